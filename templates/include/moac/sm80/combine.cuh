// Where the warps of a CTA meet at a segment's end, and where the CTAs that share a KV head do.
//
// A result is (output not yet divided, peak, sum) per query head. The warps' results meet in shared memory. A segment
// that is a whole KV head is then done. Of a split one, every CTA writes its result to the workspace and counts
// itself in; the last to arrive adds them up in the order of the split, so the order of arrival changes no bit, and
// sets the counter back to zero for the next launch.
#pragma once

#include <moac/sm80/split.cuh>
#include <moac/softmax.cuh>

namespace moac {
namespace sm80 {

template <class Spec>
struct Meeting {
  using Element = typename Spec::Element;
  static constexpr int kGroup = Spec::kHeads / Spec::kKvHeads;
  static constexpr int kWidth = Spec::kHeadDim + 4;  // floats of a row: the output, peak, sum, and 8 bytes of padding
  static constexpr int kAreaBytes = kGroup * kWidth * 4;
  static constexpr int kBytes = Spec::kWarps * kAreaBytes;
  static constexpr int kPieces = Spec::kHeadDim / 8;  // of 8 elements: what one thread adds up

  u32 base;

  // The warp's own area; free between a meeting's end and the next one's start. Queries that the warp keeps there are
  // read before its first tile, whose barriers order them before `put`.
  __device__ __forceinline__ u32 warp_area(int warp) const { return base + warp * kAreaBytes; }

  // All threads of the CTA take part.
  __device__ __forceinline__ void finish(const Params& p, const Segment& s, const Ranges& ranges, int part,
                                         Accumulator<Spec::kHeadDim>& out, const SoftmaxRow (&softmax)[2]) const {
    put(out, softmax);
    __syncthreads();
    bool last = s.whole();
    if (!last) {
      for (int i = threadIdx.x; i < kGroup * kPieces; i += Spec::kWarps * 32)
        write(p, ranges, part, s, i / kPieces, i % kPieces);
      last = arrive(p, s, ranges);
    }
    if (last) {
      for (int i = threadIdx.x; i < kGroup * kPieces; i += Spec::kWarps * 32) {
        const int row = i / kPieces, piece = i % kPieces;
        Piece result = s.whole() ? meet(row, piece) : reduce(p, ranges, s, row, piece);
        store(p, s, row, piece, result);
      }
    }
    __syncthreads();  // the areas are free again
  }

 private:
  // Eight elements of a row's result.
  struct Piece {
    float value[8] = {};
    float peak = neg_inf(), sum = 0.f;

    __device__ __forceinline__ void add(const float (&other)[8], float other_peak, float other_sum) {
      const float next = fmaxf(peak, other_peak);
      if (next == neg_inf()) return;  // neither has seen a key
      const float mine = exp2_fast((peak - next) * Spec::kScaleLog2);
      const float its = exp2_fast((other_peak - next) * Spec::kScaleLog2);
#pragma unroll
      for (int j = 0; j < 8; ++j) value[j] = value[j] * mine + other[j] * its;
      sum = sum * mine + other_sum * its;
      peak = next;
    }
  };

  __device__ __forceinline__ void put(Accumulator<Spec::kHeadDim>& out, const SoftmaxRow (&softmax)[2]) const {
    const int lane = threadIdx.x & 31;
    const u32 area = warp_area(threadIdx.x >> 5);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float sum = quad_sum(softmax[half].sum);
      const int row = (lane >> 2) + half * 8;
      if (row >= kGroup) continue;
      const u32 at = area + row * kWidth * 4;
#pragma unroll
      for (int n = 0; n < Spec::kHeadDim / 8; ++n) {
        store_shared(at + (n * 8 + 2 * (lane & 3)) * 4, out.value[n][2 * half], out.value[n][2 * half + 1]);
      }
      if ((lane & 3) == 0) store_shared(at + Spec::kHeadDim * 4, softmax[half].peak, sum);
    }
  }

  // The warps' results of a piece, added up in the order of the warps.
  __device__ __forceinline__ Piece meet(int row, int piece) const {
    Piece total;
#pragma unroll
    for (int warp = 0; warp < Spec::kWarps; ++warp) {
      const u32 at = warp_area(warp) + row * kWidth * 4;
      const Vec16 low = load_shared(at + piece * 32), high = load_shared(at + piece * 32 + 16);
      const float2 state = load_shared_pair(at + Spec::kHeadDim * 4);
      float value[8];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        value[j] = __uint_as_float(low.word[j]);
        value[j + 4] = __uint_as_float(high.word[j]);
      }
      total.add(value, state.x, state.y);
    }
    return total;
  }

  // A CTA has two places in the workspace: for the KV head its range begins in, and for the one it ends in.
  static __device__ __forceinline__ i64 place(const Ranges& ranges, int part, const Segment& s) {
    return 2 * part + (ranges.begin(part) >= s.origin ? 0 : 1);
  }

  static __device__ __forceinline__ float* place_values(const Params& p, i64 place, int row) {
    return p.partials + (place * kGroup + row) * Spec::kHeadDim;
  }

  // Behind the values of all places: peak and sum of each.
  static __device__ __forceinline__ float* place_state(const Params& p, i64 place, int row) {
    return p.partials + 2 * static_cast<i64>(gridDim.x) * kGroup * Spec::kHeadDim + (place * kGroup + row) * 2;
  }

  __device__ __forceinline__ void write(const Params& p, const Ranges& ranges, int part, const Segment& s, int row,
                                        int piece) const {
    const Piece own = meet(row, piece);
    const i64 to = place(ranges, part, s);
    float4* values = reinterpret_cast<float4*>(place_values(p, to, row) + piece * 8);
    values[0] = make_float4(own.value[0], own.value[1], own.value[2], own.value[3]);
    values[1] = make_float4(own.value[4], own.value[5], own.value[6], own.value[7]);
    if (piece == 0) *reinterpret_cast<float2*>(place_state(p, to, row)) = make_float2(own.peak, own.sum);
  }

  // Counts this CTA in; true, for all its threads, if every other one that shares the KV head has been.
  __device__ __forceinline__ bool arrive(const Params& p, const Segment& s, const Ranges& ranges) const {
    __syncthreads();  // all of the CTA's results are written
    bool last = false;
    if (threadIdx.x == 0) {
      const u32 splits = ranges.part_of(s.origin + s.tiles - 1) - ranges.part_of(s.origin) + 1;
      u32* counter = p.counters + static_cast<i64>(s.request) * Spec::kKvHeads + s.kv_head;
      last = arrive_at(counter) == splits - 1;
      if (last) *counter = 0;
    }
    return __syncthreads_or(last);
  }

  static __device__ __forceinline__ Piece reduce(const Params& p, const Ranges& ranges, const Segment& s, int row,
                                                 int piece) {
    const int first = ranges.part_of(s.origin), last = ranges.part_of(s.origin + s.tiles - 1);
    Piece total;
#pragma unroll 4
    for (int part = first; part <= last; ++part) {
      const i64 from = place(ranges, part, s);
      const float2 state = load_l2_pair(place_state(p, from, row));
      const float4 low = load_l2(place_values(p, from, row) + piece * 8);
      const float4 high = load_l2(place_values(p, from, row) + piece * 8 + 4);
      const float value[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
      total.add(value, state.x, state.y);
    }
    return total;
  }

  static __device__ __forceinline__ void store(const Params& p, const Segment& s, int row, int piece,
                                               const Piece& result) {
    const i64 token = p.starts[s.request];
    const int head = s.kv_head * kGroup + row;
    const float inverse = 1.f / result.sum;
    Vec16 packed;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      packed.word[j] = Element::pack(result.value[2 * j] * inverse, result.value[2 * j + 1] * inverse);
    }
    unsigned char* o = static_cast<unsigned char*>(p.o) + (token * p.o_token + head * p.o_head) * 2;
    *reinterpret_cast<Vec16*>(o + piece * 16) = packed;
    if (p.lse != nullptr && piece == 0) {
      p.lse[token * p.lse_token + head * p.lse_head] = log_sum_exp(result.peak, result.sum, Spec::kScaleLog2);
    }
  }
};

}  // namespace sm80
}  // namespace moac
