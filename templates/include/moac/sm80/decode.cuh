// Decode with `mma.sync` and `cp.async`: one token per request, appended to its rings by the same launch.
//
// K and V of a KV head are read once for all its query heads, which are the rows of one 16-row matrix operand. Each
// warp streams its own 16 of every 64 slots through its own stages and keeps its own softmax, so the main loop has no
// barrier; the warps meet where a segment (split.cuh) ends. The new token's row comes from the caller and is stored
// to the ring by the warp whose slot it is; nobody reads that slot from the ring in this launch.
#pragma once

#include <moac/element.cuh>
#include <moac/sm80/combine.cuh>
#include <moac/sm80/split.cuh>
#include <moac/softmax.cuh>
#include <moac/window.cuh>

namespace moac {
namespace sm80 {

template <class Spec>
constexpr int decode_threads() {
  return Spec::kWarps * 32;
}

// Rows of K, or of V, that one warp holds of a tile.
constexpr int kWarpSlots = 16;

template <class Spec>
constexpr int decode_stage_bytes() {
  return 2 * kWarpSlots * Spec::kHeadDim * 2;
}

template <class Spec>
constexpr int decode_shared_bytes() {
  return Spec::kWarps * Spec::kStages * decode_stage_bytes<Spec>() + Meeting<Spec>::kBytes;
}

// What a warp needs to know of a segment's request and KV head.
template <class Spec>
struct Stream {
  const unsigned char* new_k;  // the new token's row
  const unsigned char* new_v;
  Ring<Spec> ring;
  int length;    // tokens once the new one is in
  int new_slot;  // its slot
  int bucket;

  __device__ __forceinline__ Stream(const Params& p, const Segment& s)
      : ring(p, s.request, p.buckets[s.request], s.kv_head) {
    bucket = p.buckets[s.request];
    const int position = p.cached[s.request];
    const i64 row = p.starts[s.request];
    length = position + 1;
    new_slot = Window<Spec>::slot(position, ring.kv_span);
    new_k = static_cast<const unsigned char*>(p.k) + (row * p.k_token + s.kv_head * p.k_head) * 2;
    new_v = static_cast<const unsigned char*>(p.v) + (row * p.v_token + s.kv_head * p.v_head) * 2;
  }

  // Tokens since the one in `slot` was written; 0 is the new one.
  __device__ __forceinline__ int age(int slot) const {
    const int behind = new_slot - slot;
    return behind >= 0 ? behind : behind + ring.kv_span - Spec::kSink;
  }

  // Starts copying the warp's slots of a tile: K to `to`, V behind it. Slots not yet written become zeros.
  __device__ __forceinline__ void load(u32 to, int tile, int warp) const {
    using T = Tile<Spec::kHeadDim>;
    constexpr int kRowsPerStep = 32 / T::kChunks;
    const int lane = threadIdx.x & 31;
    const int chunk = lane % T::kChunks, first = lane / T::kChunks;
    const int base = tile * kTile + warp * kWarpSlots;
    const i64 offset = static_cast<i64>(base + first) * T::kRowBytes + chunk * 16;
#pragma unroll
    for (int step = 0; step < kWarpSlots / kRowsPerStep; ++step) {
      const int row = first + step * kRowsPerStep;
      const bool fresh = base + row == new_slot, valid = base + row < length;
      const i64 at = offset + step * kRowsPerStep * T::kRowBytes;
      copy_async(T::at(to, row, chunk), fresh ? new_k + chunk * 16 : ring.k + at, valid);
      copy_async(T::at(to + kWarpSlots * T::kRowBytes, row, chunk), fresh ? new_v + chunk * 16 : ring.v + at, valid);
    }
  }

  // Stores the new token's row from the stage at `from`, if the warp's slots of `tile` hold it.
  __device__ __forceinline__ void append(u32 from, int tile, int warp) const {
    using T = Tile<Spec::kHeadDim>;
    const int row = new_slot - tile * kTile - warp * kWarpSlots;
    if (row < 0 || row >= kWarpSlots) return;
    const int lane = threadIdx.x & 31;
    if (lane >= 2 * T::kChunks) return;  // one lane per chunk of K, then of V
    const int chunk = lane % T::kChunks;
    const bool is_k = lane < T::kChunks;
    unsigned char* to = (is_k ? ring.k : ring.v) + static_cast<i64>(new_slot) * T::kRowBytes + chunk * 16;
    *reinterpret_cast<Vec16*>(to) = load_shared(T::at(from + (is_k ? 0 : kWarpSlots * T::kRowBytes), row, chunk));
  }
};

// The query rows of one KV head, as one warp sees them: its own softmax and output over its own slots.
template <class Spec>
struct DecodeRows {
  using Element = typename Spec::Element;
  using T = Tile<Spec::kHeadDim>;
  static constexpr int kGroup = Spec::kHeads / Spec::kKvHeads;

  u32 queries[Spec::kHeadDim / 16][4];
  Accumulator<Spec::kHeadDim> out;
  SoftmaxRow softmax[2];
  int window[2];        // of the lane's two rows
  int smallest_window;  // of the group

  // `stage` is 16 bytes times the row's chunks for each query head, the warp's own.
  __device__ __forceinline__ void begin(const Params& p, const Segment& s, int bucket, int kv_span, u32 stage) {
    const int lane = threadIdx.x & 31;
    const int head = s.kv_head * kGroup;
    const unsigned char* q =
        static_cast<const unsigned char*>(p.q) + (p.starts[s.request] * p.q_token + head * p.q_head) * 2;
    for (int i = lane; i < kGroup * T::kChunks; i += 32) {
      const int row = i / T::kChunks, chunk = i % T::kChunks;
      store_shared(T::at(stage, row, chunk), *reinterpret_cast<const Vec16*>(q + row * p.q_head * 2 + chunk * 16));
    }
    __syncwarp();
#pragma unroll
    for (int k = 0; k < Spec::kHeadDim / 16; ++k) {
      // Rows past the group repeat its last one; their results are never used.
      load_matrix(queries[k], T::at(stage, min(lane & 15, kGroup - 1), 2 * k + (lane >> 4)));
    }
    out.clear();
    smallest_window = kv_span - Spec::kSink;
    for (int row = 0; row < kGroup; ++row) {
      smallest_window = min(smallest_window, Window<Spec>::span(bucket, head + row) - Spec::kSink);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      softmax[half] = SoftmaxRow();
      window[half] = Window<Spec>::span(bucket, head + min((lane >> 2) + half * 8, kGroup - 1)) - Spec::kSink;
    }
  }

  __device__ __forceinline__ void attend(const Stream<Spec>& stream, u32 keys, int tile, int warp) {
    Accumulator<kWarpSlots> s;
    s.clear();
#pragma unroll
    for (int k = 0; k < Spec::kHeadDim / 16; ++k) {
      u32 b[4];
      T::load_b(b, keys, 0, k);
      Element::mma(s.value[0], queries[k], b[0], b[1]);
      Element::mma(s.value[1], queries[k], b[2], b[3]);
    }
    mask(s, stream, tile * kTile + warp * kWarpSlots);
#pragma unroll
    for (int half = 0; half < 2; ++half) out.scale(half, softmax[half].update(s, half, Spec::kScaleLog2));
    u32 weights[4];
#pragma unroll
    for (int j = 0; j < 4; ++j)
      weights[j] = Element::pack(s.value[j >> 1][2 * (j & 1)], s.value[j >> 1][2 * (j & 1) + 1]);
#pragma unroll
    for (int n = 0; n < Spec::kHeadDim / 16; ++n) {
      u32 b[4];
      T::load_b_transposed(b, keys + kWarpSlots * T::kRowBytes, 0, n);
      Element::mma(out.value[2 * n], weights, b[0], b[1]);
      Element::mma(out.value[2 * n + 1], weights, b[2], b[3]);
    }
  }

 private:
  // Hides slots from `first` that hold no token yet or one that has left a row's window.
  __device__ __forceinline__ void mask(Accumulator<kWarpSlots>& s, const Stream<Spec>& stream, int first) const {
    const int last = first + kWarpSlots - 1;
    // The oldest token of these slots lies right behind the new one, or else in the first of them.
    const bool wraps = first <= stream.new_slot && stream.new_slot < last;
    const int oldest = wraps ? stream.ring.kv_span - Spec::kSink - 1 : stream.age(first);
    if (last < stream.length && (first < Spec::kSink || oldest < smallest_window)) return;
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int n = 0; n < kWarpSlots / 8; ++n) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int slot = first + n * 8 + 2 * (lane & 3) + (j & 1);
        const bool seen = slot < stream.length && (slot < Spec::kSink || stream.age(slot) < window[j >> 1]);
        if (!seen) s.value[n][j] = neg_inf();
      }
    }
  }
};

template <class Spec>
__device__ __forceinline__ void decode(const Params& p) {
  extern __shared__ __align__(128) unsigned char shared[];
  const int warp = threadIdx.x >> 5;

  Ranges ranges{total_tiles<Spec>(p), 0};
  ranges.parts = min(static_cast<int>(gridDim.x), max(1, ranges.total / Spec::kMinTiles));
  const int part = blockIdx.x;
  if (part >= ranges.parts || ranges.total == 0) return;
  const int begin = ranges.begin(part), end = ranges.begin(part + 1);

  Meeting<Spec> meeting{shared_address(shared)};
  const u32 stages = meeting.base + Meeting<Spec>::kBytes + warp * Spec::kStages * decode_stage_bytes<Spec>();

  // The loads run kStages - 1 tiles ahead of the arithmetic, across the ends of segments.
  SegmentWalk<Spec> load_walk(p, begin, end), walk = load_walk;
  Segment ahead;
  load_walk.next(p, ahead);
  Stream<Spec> source(p, ahead);
  int load_tile = ahead.first, load_stage = 0;
  bool more = true;
  auto load_next = [&] {
    if (more) {
      source.load(stages + load_stage * decode_stage_bytes<Spec>(), load_tile, warp);
      load_stage = load_stage + 1 == Spec::kStages ? 0 : load_stage + 1;
      if (++load_tile == ahead.last) {
        more = load_walk.next(p, ahead);
        if (more) {
          source = Stream<Spec>(p, ahead);
          load_tile = ahead.first;
        }
      }
    }
    copy_commit();
  };
  for (int i = 0; i < Spec::kStages - 1; ++i) load_next();

  int stage = 0;
  Segment s;
  while (walk.next(p, s)) {
    const Stream<Spec> stream(p, s);
    DecodeRows<Spec> rows;
    rows.begin(p, s, stream.bucket, stream.ring.kv_span, meeting.warp_area(warp));
#pragma unroll 1
    for (int tile = s.first; tile < s.last; ++tile) {
      load_next();
      copy_wait<Spec::kStages - 1>();
      __syncwarp();  // every lane's part of the tile has arrived
      const u32 keys = stages + stage * decode_stage_bytes<Spec>();
      stream.append(keys, tile, warp);
      rows.attend(stream, keys, tile, warp);
      __syncwarp();  // the stage may be written again
      stage = stage + 1 == Spec::kStages ? 0 : stage + 1;
    }
    meeting.finish(p, s, ranges, part, rows.out, rows.softmax);
  }
}

}  // namespace sm80
}  // namespace moac
