// Where the math warps of a CTA meet at a segment's end, and where the CTAs that share a KV head do.
//
// A result is (output not yet divided, peak, sum) per query head. The warps' results meet in shared memory. A segment
// that is a whole KV head is then done. Of a split one, every CTA writes its result to the workspace and counts
// itself in; the last to arrive adds them up in the order of the split, so the order of arrival changes no bit, and
// sets the counter back to zero for the next launch. Only the math warps take part.
#pragma once

#include <moac/sm90/narrow.cuh>

namespace moac {
namespace sm90 {

// What a segment's end needs of its description, whose stage has been given back by then.
struct Ending {
  i64 row;
  int kv_head, counter;
  int splits, split, first_part;

  template <int kGroup>
  __device__ __forceinline__ explicit Ending(const Segment<kGroup>& s)
      : row(s.row),
        kv_head(s.kv_head),
        counter(s.counter),
        splits(s.splits),
        split(s.split),
        first_part(s.first_part) {}

  // The place in the workspace of the result of split `n`. A CTA has two: the first for the KV head that its range goes
  // on with, the second for the one that it opens and does not finish.
  __device__ __forceinline__ int place(int n) const { return 2 * (first_part + n) + (n == 0); }
};

// Four elements of a head's result.
template <class Spec>
struct Piece {
  float value[4] = {};
  float peak = neg_inf(), sum = 0.f;

  // Adds `kCount` results to this one.
  template <int kCount>
  __device__ __forceinline__ void add(const float4 (&values)[kCount], const float2 (&states)[kCount]) {
    float next = peak;
#pragma unroll
    for (int i = 0; i < kCount; ++i) next = fmaxf(next, states[i].x);
    const float offset = next == neg_inf() ? 0.f : next * Spec::kScaleLog2;  // if none has seen a key
    const float mine = exp2_fast(fmaf(peak, Spec::kScaleLog2, -offset));
    sum *= mine;
#pragma unroll
    for (int j = 0; j < 4; ++j) value[j] *= mine;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const float its = exp2_fast(fmaf(states[i].x, Spec::kScaleLog2, -offset));
      sum = fmaf(states[i].y, its, sum);
      value[0] = fmaf(values[i].x, its, value[0]);
      value[1] = fmaf(values[i].y, its, value[1]);
      value[2] = fmaf(values[i].z, its, value[2]);
      value[3] = fmaf(values[i].w, its, value[3]);
    }
    peak = next;
  }

  __device__ __forceinline__ float4 values() const { return make_float4(value[0], value[1], value[2], value[3]); }
};

template <class Spec>
struct Meeting {
  using Element = typename Spec::Element;
  static constexpr int kGroup = Spec::kHeads / Spec::kKvHeads;
  static constexpr int kThreads = Spec::kWarps * 32;
  static constexpr int kPieces = Spec::kHeadDim / 4;  // of a head
  static constexpr int kAll = kGroup * kPieces;
  static constexpr int kSets = kAll < kThreads ? kThreads / kAll : 1;  // of threads that share the splits of a KV head
  static constexpr int kWidth = Spec::kHeadDim + 4;  // floats of a head: the output, peak, sum and 8 bytes of padding
  static constexpr int kAreaBytes = kGroup * kWidth * 4;
  static constexpr int kWarpsBytes = Spec::kWarps * kAreaBytes, kSetsBytes = kSets > 1 ? kThreads * 32 : 0;
  static constexpr int kBytes = (kWarpsBytes > kSetsBytes ? kWarpsBytes : kSetsBytes) + 16;
  static constexpr int kAhead = 9;  // split results that a thread reads at once

  u32 base;

  __device__ __forceinline__ void finish(const Params& p, const Ending& e, const NarrowRows<Spec>& rows) const {
    put(rows);
    meet();
    const int thread = threadIdx.x;
    if (e.splits == 1) {
      for (int i = thread; i < kAll; i += kThreads) store(p, e, i, of_warps(i));
      meet();  // the areas are free again
      return;
    }
    for (int i = thread; i < kAll; i += kThreads) write(p, e, i, of_warps(i));
    meet();  // all of the CTA's results are written
    const u32 flag = base + kBytes - 16;
    if (thread == 0) {
      u32* counter = p.counters + e.counter;
      const bool last = arrive_at(counter) == e.splits - 1;
      if (last) *counter = 0;
      store_shared(flag, last ? 1.f : 0.f, 0.f);
    }
    meet();
    if (load_shared_pair(flag).x != 0.f) reduce(p, e);
    meet();
  }

 private:
  static __device__ __forceinline__ void meet() { named_barrier_sync<1, kThreads>(); }

  __device__ __forceinline__ u32 area(int warp, int row) const { return base + warp * kAreaBytes + row * kWidth * 4; }

  __device__ __forceinline__ void put(const NarrowRows<Spec>& rows) const {
    using Rows = NarrowRows<Spec>;
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int n = 0; n < Rows::kBlocks; ++n) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const float sum = head_sum(rows.sum[n][j]);
        const int head = Rows::head(n, j);
        if (head >= kGroup) continue;
        const u32 to = area(threadIdx.x >> 5, head);
#pragma unroll
        for (int m = 0; m < Rows::kSteps; ++m) {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            store_shared(to + (m * 16 + half * 8 + (lane >> 2)) * 4, __float_as_uint(rows.out[m][n][2 * half + j]));
          }
        }
        if (lane < 4) store_shared(to + Spec::kHeadDim * 4, rows.peak[n][j], sum);
      }
    }
  }

  static __device__ __forceinline__ float4 load_shared_values(u32 from) {
    const Vec16 v = load_shared(from);
    return make_float4(__uint_as_float(v.word[0]), __uint_as_float(v.word[1]), __uint_as_float(v.word[2]),
                       __uint_as_float(v.word[3]));
  }

  // The warps' results of piece `i`, added up.
  __device__ __forceinline__ Piece<Spec> of_warps(int i) const {
    float4 values[Spec::kWarps];
    float2 states[Spec::kWarps];
#pragma unroll
    for (int warp = 0; warp < Spec::kWarps; ++warp) {
      const u32 from = area(warp, i / kPieces);
      values[warp] = load_shared_values(from + i % kPieces * 16);
      states[warp] = load_shared_pair(from + Spec::kHeadDim * 4);
    }
    Piece<Spec> total;
    total.add(values, states);
    return total;
  }

  static __device__ __forceinline__ float* place_values(const Params& p, int place) {
    return p.partials + static_cast<i64>(place) * kGroup * Spec::kHeadDim;
  }

  // Behind the values of all places: peak and sum of each.
  static __device__ __forceinline__ float* place_states(const Params& p, int place) {
    return p.partials + (2 * static_cast<i64>(gridDim.x) * Spec::kHeadDim + 2 * static_cast<i64>(place)) * kGroup;
  }

  static __device__ __forceinline__ void write(const Params& p, const Ending& e, int i, const Piece<Spec>& piece) {
    const int place = e.place(e.split);
    reinterpret_cast<float4*>(place_values(p, place))[i] = piece.values();
    if (i % kPieces == 0) {
      reinterpret_cast<float2*>(place_states(p, place))[i / kPieces] = make_float2(piece.peak, piece.sum);
    }
  }

  // All splits of the KV head, in their order; where there are fewer pieces than threads, sets of threads take turns.
  __device__ __forceinline__ void reduce(const Params& p, const Ending& e) const {
    for (int thread = threadIdx.x; thread < kAll * kSets; thread += kThreads) {
      const int i = thread % kAll, set = thread / kAll;
      Piece<Spec> total;
      for (int split = set; split < e.splits; split += kSets * kAhead) {
        float4 values[kAhead];
        float2 states[kAhead];
#pragma unroll
        for (int n = 0; n < kAhead; ++n) {
          values[n] = make_float4(0.f, 0.f, 0.f, 0.f);
          states[n] = make_float2(neg_inf(), 0.f);
          if (split + n * kSets < e.splits) {
            const int place = e.place(split + n * kSets);
            values[n] = load_l2(place_values(p, place) + i * 4);
            states[n] = load_l2_pair(place_states(p, place) + i / kPieces * 2);
          }
        }
        total.add(values, states);
      }
      if constexpr (kSets == 1) {
        store(p, e, i, total);
      } else {
        const u32 to = base + thread * 32;
        store_shared(to, Vec16{{__float_as_uint(total.value[0]), __float_as_uint(total.value[1]),
                                __float_as_uint(total.value[2]), __float_as_uint(total.value[3])}});
        store_shared(to + 16, total.peak, total.sum);
      }
    }
    if constexpr (kSets > 1) {
      meet();
      if (threadIdx.x < kAll) {
        float4 values[kSets];
        float2 states[kSets];
#pragma unroll
        for (int set = 0; set < kSets; ++set) {
          const u32 from = base + (set * kAll + threadIdx.x) * 32;
          values[set] = load_shared_values(from);
          states[set] = load_shared_pair(from + 16);
        }
        Piece<Spec> total;
        total.add(values, states);
        store(p, e, threadIdx.x, total);
      }
    }
  }

  static __device__ __forceinline__ void store(const Params& p, const Ending& e, int i, const Piece<Spec>& piece) {
    const int head = e.kv_head * kGroup + i / kPieces;
    const float inverse = 1.f / piece.sum;
    uint2 packed;
    packed.x = Element::pack(piece.value[0] * inverse, piece.value[1] * inverse);
    packed.y = Element::pack(piece.value[2] * inverse, piece.value[3] * inverse);
    unsigned char* o = static_cast<unsigned char*>(p.o) + (e.row * p.o_token + head * p.o_head) * 2;
    *reinterpret_cast<uint2*>(o + i % kPieces * 8) = packed;
    if (p.lse != nullptr && i % kPieces == 0) {
      p.lse[e.row * p.lse_token + head * p.lse_head] = log_sum_exp(piece.peak, piece.sum, Spec::kScaleLog2);
    }
  }
};

}  // namespace sm90
}  // namespace moac
