// Prefill with `mma.sync` and `cp.async`: attention of a chunk, and its append to the rings (fill.cuh).
//
// A CTA serves one query head of one request and kTileM query rows; each warp has its own rows of them. The keys it
// walks lie in the ring (positions before the chunk) or in the chunk itself; a tile may mix both. K has two buffers
// and V one: V(n) and K(n+1) are on their way while Q K(n) and its softmax are computed.
#pragma once

#include <moac/element.cuh>
#include <moac/sm80/fill.cuh>
#include <moac/softmax.cuh>
#include <moac/window.cuh>

namespace moac {
namespace sm80 {

template <class Spec>
constexpr int prefill_threads() {
  return Spec::kWarps * 32;
}

template <class Spec>
constexpr int prefill_shared_bytes() {
  return (Spec::kTileM + (Spec::kStages + 1) * kTile) * Spec::kHeadDim * 2;
}

// One request's keys, or its values: before the chunk in the ring, after it in the caller's rows.
template <class Spec>
struct Source {
  const unsigned char* ring;
  const unsigned char* chunk;  // row of position `cached`
  i64 pitch;                   // bytes between rows of the chunk
  int cached, end, kv_span;

  // Starts copying a tile of 64 positions; rows past `end` become zeros, and their addresses are never read.
  __device__ __forceinline__ void load(u32 to, int tile) const {
    using T = Tile<Spec::kHeadDim>;
    constexpr int kRowsPerStep = prefill_threads<Spec>() / T::kChunks;
    const int chunk_index = threadIdx.x % T::kChunks, first = threadIdx.x / T::kChunks;
    const int position = tile * kTile + first;
    const i64 slot = static_cast<i64>(Window<Spec>::slot_tile(tile, kv_span)) * kTile + first;
    const unsigned char* old_rows = ring + slot * T::kRowBytes + chunk_index * 16;
    const unsigned char* new_rows = chunk + (position - cached) * pitch + chunk_index * 16;
#pragma unroll
    for (int step = 0; step < kTile / kRowsPerStep; ++step) {
      const int row = step * kRowsPerStep;
      const unsigned char* from = position + row < cached ? old_rows + row * T::kRowBytes : new_rows + row * pitch;
      copy_async(T::at(to, first + row, chunk_index), from, position + row < end);
    }
  }
};

template <class Spec>
__device__ __forceinline__ void load_queries(u32 to, const unsigned char* rows, i64 pitch, int count) {
  using T = Tile<Spec::kHeadDim>;
  constexpr int kRowsPerStep = prefill_threads<Spec>() / T::kChunks;
  const int chunk_index = threadIdx.x % T::kChunks;
#pragma unroll
  for (int step = 0; step < Spec::kTileM / kRowsPerStep; ++step) {
    const int row = step * kRowsPerStep + threadIdx.x / T::kChunks;
    copy_async(T::at(to, row, chunk_index), rows + row * pitch + chunk_index * 16, row < count);
  }
}

// The query rows of one warp: kAtoms times 16 rows.
template <class Spec>
struct WarpRows {
  using Element = typename Spec::Element;
  using T = Tile<Spec::kHeadDim>;
  static constexpr int kAtoms = Spec::kTileM / Spec::kWarps / 16;
  static constexpr int kRows = kAtoms * 16;

  Accumulator<Spec::kHeadDim> out[kAtoms];
  SoftmaxRow softmax[kAtoms][2];

  __device__ __forceinline__ void scores(Accumulator<kTile> (&s)[kAtoms], u32 queries, u32 keys) const {
#pragma unroll
    for (int atom = 0; atom < kAtoms; ++atom) s[atom].clear();
#pragma unroll 2  // more at once and the registers run out on sm_90
    for (int k = 0; k < Spec::kHeadDim / 16; ++k) {
      u32 a[kAtoms][4];
#pragma unroll
      for (int atom = 0; atom < kAtoms; ++atom) T::load_a(a[atom], queries, atom * 16, k);
#pragma unroll
      for (int n = 0; n < kTile / 16; ++n) {
        u32 b[4];
        T::load_b(b, keys, n * 16, k);
#pragma unroll
        for (int atom = 0; atom < kAtoms; ++atom) {
          Element::mma(s[atom].value[2 * n], a[atom], b[0], b[1]);
          Element::mma(s[atom].value[2 * n + 1], a[atom], b[2], b[3]);
        }
      }
    }
  }

  // `first` is the position of the warp's first row, `tile` the tile of positions of the scores.
  static __device__ __forceinline__ void mask(Accumulator<kTile> (&s)[kAtoms], int first, int tile, int window) {
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int atom = 0; atom < kAtoms; ++atom) {
#pragma unroll
      for (int n = 0; n < kTile / 8; ++n) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int row = first + atom * 16 + (lane >> 2) + (j >> 1) * 8;
          const int key = tile * kTile + n * 8 + 2 * (lane & 3) + (j & 1);
          if (!Window<Spec>::visible(row, key, window)) s[atom].value[n][j] = neg_inf();
        }
      }
    }
  }

  // Turns scores into weights, packed as the A operands of P V, and rescales what was accumulated.
  __device__ __forceinline__ void weigh(u32 (&weights)[kAtoms][kTile / 16][4], Accumulator<kTile> (&s)[kAtoms]) {
#pragma unroll
    for (int atom = 0; atom < kAtoms; ++atom) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        out[atom].scale(half, softmax[atom][half].update(s[atom], half, Spec::kScaleLog2));
      }
#pragma unroll
      for (int k = 0; k < kTile / 16; ++k) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const float* pair = &s[atom].value[2 * k + (j >> 1)][2 * (j & 1)];
          weights[atom][k][j] = Element::pack(pair[0], pair[1]);
        }
      }
    }
  }

  __device__ __forceinline__ void accumulate(const u32 (&weights)[kAtoms][kTile / 16][4], u32 values) {
#pragma unroll
    for (int k = 0; k < kTile / 16; ++k) {
#pragma unroll
      for (int n = 0; n < Spec::kHeadDim / 16; ++n) {
        u32 b[4];
        T::load_b_transposed(b, values, k * 16, n);
#pragma unroll
        for (int atom = 0; atom < kAtoms; ++atom) {
          Element::mma(out[atom].value[2 * n], weights[atom][k], b[0], b[1]);
          Element::mma(out[atom].value[2 * n + 1], weights[atom][k], b[2], b[3]);
        }
      }
    }
  }

  // Writes the warp's first `count` rows; `stage` is the warp's own part of the query tile, which is done with.
  __device__ __forceinline__ void store(u32 stage, unsigned char* rows, i64 pitch, float* lse, i64 lse_pitch,
                                        int count) {
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int atom = 0; atom < kAtoms; ++atom) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const SoftmaxRow& s = softmax[atom][half];
        const int row = atom * 16 + half * 8 + (lane >> 2);
        const float sum = quad_sum(s.sum);
        if (lse != nullptr && (lane & 3) == 0 && row < count) {
          lse[row * lse_pitch] = log_sum_exp(s.peak, sum, Spec::kScaleLog2);
        }
        const float inverse = 1.f / sum;
#pragma unroll
        for (int n = 0; n < Spec::kHeadDim / 8; ++n) {
          const float* pair = &out[atom].value[n][2 * half];
          store_shared(T::at(stage, row, n) + (lane & 3) * 4, Element::pack(pair[0] * inverse, pair[1] * inverse));
        }
      }
    }
    __syncwarp();
    constexpr int kRowsPerStep = 32 / T::kChunks;
#pragma unroll
    for (int step = 0; step < kRows / kRowsPerStep; ++step) {
      const int row = step * kRowsPerStep + lane / T::kChunks, chunk = lane % T::kChunks;
      if (row < count)
        *reinterpret_cast<Vec16*>(rows + row * pitch + chunk * 16) = load_shared(T::at(stage, row, chunk));
    }
  }
};

template <class Spec>
__device__ __forceinline__ void attend(const Params& p) {
  using Warp = WarpRows<Spec>;
  constexpr int kRowBytes = Tile<Spec::kHeadDim>::kRowBytes;
  extern __shared__ __align__(128) unsigned char shared[];

  const int request = blockIdx.z;
  const int head = Spec::kHeadOrder[blockIdx.y];
  // The last rows see the most keys: they go first.
  const int offset = (gridDim.x - 1 - blockIdx.x) * Spec::kTileM;
  const int chunk = p.chunk[request];
  if (offset >= chunk) return;

  const int kv_head = head / (Spec::kHeads / Spec::kKvHeads);
  const int bucket = p.buckets[request], cached = p.cached[request];
  const i64 start = p.starts[request];
  const int window = Window<Spec>::span(bucket, head) - Spec::kSink;
  const int rows = min(Spec::kTileM, chunk - offset);
  const int first = cached + offset, last = first + rows - 1;

  const Ring<Spec> ring(p, request, bucket, kv_head);
  const unsigned char* q =
      static_cast<const unsigned char*>(p.q) + ((start + offset) * p.q_token + head * p.q_head) * 2;
  const unsigned char* k = static_cast<const unsigned char*>(p.k) + (start * p.k_token + kv_head * p.k_head) * 2;
  const unsigned char* v = static_cast<const unsigned char*>(p.v) + (start * p.v_token + kv_head * p.v_head) * 2;
  const Source<Spec> keys{ring.k, k, p.k_token * 2, cached, cached + chunk, ring.kv_span};
  const Source<Spec> values{ring.v, v, p.v_token * 2, cached, cached + chunk, ring.kv_span};

  constexpr int kTileBytes = kTile * kRowBytes;
  const u32 query_tile = shared_address(shared);
  const u32 key_tiles = query_tile + Spec::kTileM * kRowBytes;
  const u32 value_tile = key_tiles + 2 * kTileBytes;
  const TileWalk<Spec> walk(first, last, window);

  const int warp_row = (threadIdx.x >> 5) * Warp::kRows;
  const u32 warp_queries = query_tile + warp_row * kRowBytes;
  const int warp_first = first + warp_row, warp_last = min(warp_first + Warp::kRows - 1, last);
  Warp warp;
#pragma unroll
  for (int atom = 0; atom < Warp::kAtoms; ++atom) warp.out[atom].clear();

  load_queries<Spec>(query_tile, q, p.q_token * 2, rows);
  keys.load(key_tiles, walk[0]);
  copy_commit();
#pragma unroll 1
  for (int n = 0; n < walk.count; ++n) {
    const int tile = walk[n];
    copy_wait<0>();
    __syncthreads();  // K(n) has arrived; K(n-1) and V(n-1) are done with
    values.load(value_tile, tile);
    copy_commit();
    if (n + 1 < walk.count) keys.load(key_tiles + (n + 1) % 2 * kTileBytes, walk[n + 1]);
    copy_commit();
    // A warp past the chunk's end has nothing to compute; rows past it in another warp are computed and never stored.
    const Sight seen = warp_first > last ? Sight::kNone : sight<Spec>(tile, warp_first, warp_last, window);
    u32 weights[Warp::kAtoms][kTile / 16][4];
    if (seen != Sight::kNone) {
      Accumulator<kTile> s[Warp::kAtoms];
      warp.scores(s, warp_queries, key_tiles + n % 2 * kTileBytes);
      if (seen == Sight::kSome) Warp::mask(s, warp_first, tile, window);
      warp.weigh(weights, s);
    }
    copy_wait<1>();
    __syncthreads();  // V(n) has arrived
    if (seen != Sight::kNone) warp.accumulate(weights, value_tile);
  }

  const i64 row = start + offset + warp_row;
  unsigned char* o = static_cast<unsigned char*>(p.o) + (row * p.o_token + head * p.o_head) * 2;
  float* lse = p.lse == nullptr ? nullptr : p.lse + row * p.lse_token + head * p.lse_head;
  warp.store(warp_queries, o, p.o_token * 2, lse, p.lse_token, rows - warp_row);
}

template <class Spec>
__device__ __forceinline__ void prefill(const Params& p) {
  if (p.task == kFill) {
    fill<Spec>(p);
  } else {
    attend<Spec>(p);
  }
}

}  // namespace sm80
}  // namespace moac
