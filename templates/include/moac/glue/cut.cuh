// The cuts of a sample, by one CTA: which distance behind the likeliest token is the last one kept, and which of the kept
// tokens a random number means. All passes read the logits again, out of L2.
#pragma once

#include <moac/glue/logits.cuh>

namespace moac {
namespace glue {

constexpr int kCoarse = 11, kFine = Scale::kBits - kCoarse;  // bits of a distance that each of two passes decides
constexpr int kBins = 1 << kCoarse;

struct CutShared {
  u32 low[kBins], high[kBins];  // the measure of the tokens of each bin
  u64 warps[32];
  u64 before;  // measure below the bin that was found
  int bin;      // that, or -1
  u32 token;
};

// The sum of the values of the threads below and with this one, and of all.
template <int kThreads>
__device__ __forceinline__ u64 running_sum(u64 value, u64 (&warps)[32], u64& all) {
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const u64 below = __shfl_up_sync(0xffffffffu, value, step);
    if (lane >= step) value += below;
  }
  __syncthreads();  // all threads have read the last call's values
  if (lane == 31) warps[warp] = value;
  __syncthreads();
  u64 below = 0;
  all = 0;
#pragma unroll 4
  for (int i = 0; i < kThreads / 32; ++i) {
    below += i < warp ? warps[i] : 0;
    all += warps[i];
  }
  return below + value;
}

template <class Spec>
struct Cuts {
  static constexpr int kThreads = Spec::kThreads;
  static constexpr int kOwn = kBins / kThreads;  // bins of a thread
  static_assert(kBins % kThreads == 0, "the threads share the bins");

  const Logits<Spec>& logits;
  Scale scale;
  CutShared& shared;
  u32 last;     // the largest distance that is kept, in steps
  float least;  // the logit below which nothing is kept

  __device__ __forceinline__ Cuts(const Logits<Spec>& logits, float best, float temperature, CutShared& shared)
      : logits(logits), scale{best, 65536.f / temperature}, shared(shared) {
    keep_up_to(Scale::kFar);
  }

  // Drops the tokens further behind.
  __device__ __forceinline__ void keep_up_to(u32 steps) {
    last = steps;
    least = scale.least(steps);
  }

  // Calls `visit` with the distances of the tokens of a run, but for some that are below `least`: four from `first` on, then from every `kStride`-th on, to
  // before `to`. Some are fetched at once, for memory is far.
  template <int kStride, class Visit>
  __device__ __forceinline__ void each(int first, int to, Visit visit) const {
    constexpr int kAtOnce = 4;
#pragma unroll 1
    for (int i = first; i < to; i += kAtOnce * kStride) {
      float x[kAtOnce][4];
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) logits.four(x[j], i + j * kStride < to ? i + j * kStride : Spec::kVocab);
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        logits.penalise(x[j], i + j * kStride);
        // Where a cut leaves few tokens, most warps have none of them.
        if (fmaxf(fmaxf(x[j][0], x[j][1]), fmaxf(x[j][2], x[j][3])) < least) continue;
#pragma unroll
        for (int k = 0; k < 4; ++k) visit(scale.distance(x[j][k]));
      }
    }
  }

  __device__ __forceinline__ void add(int bin, u32 value) {
    const u32 before = atomicAdd(&shared.low[bin], value);
    if (before + value < before) atomicAdd(&shared.high[bin], 1u);
  }

  __device__ __forceinline__ u64 measure_of(int bin) const {
    return static_cast<u64>(shared.high[bin]) << 32 | shared.low[bin];
  }

  // Keeps the likeliest tokens that together reach the measure that `target` computes from that of all; drops the rest.
  template <class Measure, class Target>
  __device__ __forceinline__ void keep(Measure measure, Target target) {
    u32 bin = 0;
    u64 need = 0;
#pragma unroll 1
    for (int pass = 0; pass < 2; ++pass) {
      for (int i = threadIdx.x; i < kBins; i += kThreads) shared.low[i] = shared.high[i] = 0;
      if (threadIdx.x == 0) {
        shared.bin = -1;
        shared.before = 0;
      }
      __syncthreads();
      each<4 * kThreads>(4 * threadIdx.x, Spec::kVocab, [&](float distance) {
        const u32 steps = Scale::steps(distance), coarse = steps >> kFine;
        if (steps > last || (pass > 0 && coarse != bin)) return;
        add(pass == 0 ? coarse : steps & ((1 << kFine) - 1), measure(distance));
      });
      __syncthreads();
      u64 own = 0, all;
#pragma unroll
      for (int i = 0; i < kOwn; ++i) own += measure_of(threadIdx.x * kOwn + i);
      u64 below = running_sum<kThreads>(own, shared.warps, all) - own;
      if (pass == 0) need = target(all);
      if (below < need && need <= below + own) {
        int at = threadIdx.x * kOwn;
        while (below + measure_of(at) < need) below += measure_of(at++);
        shared.bin = at;
        shared.before = below;
      }
      __syncthreads();
      const int found = shared.bin;
      need -= shared.before;
      __syncthreads();
      if (found < 0) return;  // all of them measure less
      bin = pass == 0 ? found : bin << kFine | found;
      // Behind the end of the bin nothing counts any more.
      keep_up_to(min(last, pass == 0 ? ((bin + 1) << kFine) - 1 : bin));
    }
  }

  // The first token, in the order of the vocabulary, at which the weight of the kept ones up to and with it exceeds
  // `part` / 2^24 of the whole; `otherwise` where nothing has any weight.
  __device__ __forceinline__ u32 choose(u32 part, u32 otherwise) {
    constexpr int kWarps = kThreads / 32;
    // A run of tokens for each warp.
    constexpr int kRun = (Spec::kVocab + kWarps * 128 - 1) / (kWarps * 128) * 128;
    const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    const auto weigh = [&](float distance) { return Scale::steps(distance) <= last ? Scale::weight(distance) : 0; };
    u64 sum = 0;
    each<128>(warp * kRun + 4 * lane, min((warp + 1) * kRun, Spec::kVocab), [&](float distance) { sum += weigh(distance); });
#pragma unroll
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    if (lane == 0) shared.warps[warp] = sum;
    if (threadIdx.x == 0) shared.token = otherwise;
    __syncthreads();
    u64 all = 0;
#pragma unroll 1  // registers are few
    for (int i = 0; i < kWarps; ++i) all += shared.warps[i];
    u64 below = 0;
    const u64 target = __umul64hi(all, static_cast<u64>(part) << 40);
    int run = 0;
#pragma unroll 1
    while (run < kWarps - 1 && below + shared.warps[run] <= target) below += shared.warps[run++];
    // The run that holds it, by all threads.
    const int to = min((run + 1) * kRun, Spec::kVocab);
    for (int from = run * kRun; from < to; from += 4 * kThreads) {
      float x[4];
      u32 weights[4];
      const int first = from + 4 * threadIdx.x;
      logits.four(x, first < to ? first : Spec::kVocab);
      logits.penalise(x, first);
      u64 of_all, own = 0;
#pragma unroll
      for (int i = 0; i < 4; ++i) own += weights[i] = weigh(scale.distance(x[i]));
      u64 up_to = below + running_sum<kThreads>(own, shared.warps, of_all) - own;
      const bool here = up_to <= target && target < up_to + own;
      if (here) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if (up_to <= target && target < up_to + weights[i]) shared.token = first + i;
          up_to += weights[i];
        }
      }
      below += of_all;
    }
    __syncthreads();
    return shared.token;
  }
};

}  // namespace glue
}  // namespace moac
