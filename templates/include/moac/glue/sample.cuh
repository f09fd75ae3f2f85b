// A token for each sample. Each of a sample's CTAs looks at some of its logits, and the last one to arrive joins what they
// found: the likeliest token and the sum for its probability, which is all that a greedy sample needs. For others the
// same CTA makes the cuts and chooses (cut.cuh).
#pragma once

#include <moac/glue/cut.cuh>

namespace moac {
namespace glue {

// What a CTA finds among its tokens.
struct alignas(16) Found {
  u64 best;         // of the penalised logits
  float peak, sum;  // of the logits as they are: the largest, and the sum of e^(logit - peak)
  u64 top[kTopLogprobs];
};

// The number in [0, 2^24) that chooses the token: SplitMix64 of the seed at place `counter` (runtime/src/glue/mod.rs).
__device__ __forceinline__ u32 random_part(u64 seed, u32 counter) {
  u64 z = seed + (static_cast<u64>(counter) + 1) * 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return static_cast<u32>((z ^ (z >> 31)) >> 40);
}

struct SampleShared {
  u64 keys[32];
  float floats[32];
  bool last;
};

template <class Spec>
struct Join {
  SampleShared& shared;

  __device__ __forceinline__ u64 most(u64 key) const {
    return join_cta<Spec::kThreads>(key, shared.keys, static_cast<u64>(0), [](u64 a, u64 b) { return max(a, b); });
  }

  __device__ __forceinline__ float most(float x) const {
    return join_cta<Spec::kThreads>(x, shared.floats, neg_inf(), [](float a, float b) { return fmaxf(a, b); });
  }

  __device__ __forceinline__ float sum(float x) const {
    return join_cta<Spec::kThreads>(x, shared.floats, 0.f, [](float a, float b) { return a + b; });
  }
};

// e^(x - peak), 0 where there is nothing but minus infinity.
__device__ __forceinline__ float relative(float x, float peak) {
  return peak == neg_inf() ? 0.f : exp2_fast((x - peak) * kLog2E);
}

// Looks at four tokens a thread; what was found is in thread 0 of `found`, which is in memory.
template <class Spec>
__device__ __forceinline__ void look(const Logits<Spec>& logits, const Join<Spec>& join, int tops, Found& found) {
  const int first = (blockIdx.y * Spec::kThreads + threadIdx.x) * 4;
  float x[4];
  logits.four(x, first);
  float peak = fmaxf(fmaxf(x[0], x[1]), fmaxf(x[2], x[3]));
  peak = join.most(peak);
  float sum = 0.f;
#pragma unroll
  for (int i = 0; i < 4; ++i) sum += relative(x[i], peak);  // not a number if any of them is not
  sum = join.sum(sum);
  u64 keys[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) keys[i] = first + i < Spec::kVocab ? key(fmaxf(x[i], neg_inf()), first + i) : 0;
  u64 before = ~static_cast<u64>(0);
  for (int rank = 0; rank < tops; ++rank) {
    u64 own = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) own = max(own, keys[i] < before ? keys[i] : 0);
    before = join.most(own);
    if (threadIdx.x == 0) found.top[rank] = before;
  }
  logits.penalise(x, first);
  u64 best = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) best = max(best, first + i < Spec::kVocab ? key(x[i], first + i) : 0);
  best = join.most(best);
  if (threadIdx.x == 0) {
    found.best = best;
    found.peak = peak;
    found.sum = sum;
  }
}

// The likeliest tokens of all parts: each thread offers the best of its part that has not been taken.
template <class Spec>
__device__ __forceinline__ void report(const Found* found, const Join<Spec>& join, int tops, float log_sum,
                                       Outcome* to) {
  int next = 0;
  const bool has_part = threadIdx.x < Spec::kParts;
  u64 own = has_part ? __ldcg(&found[threadIdx.x].top[0]) : 0;
  for (int rank = 0; rank < tops; ++rank) {
    const u64 best = join.most(own);
    if (best == own && best != 0) {
      to[rank] = {token_of(best), from_ordered(static_cast<u32>(best >> 32)) - log_sum};
      own = ++next < tops ? __ldcg(&found[threadIdx.x].top[next]) : 0;
    }
  }
}

template <class Spec>
__device__ __forceinline__ void sample(const SampleParams& p) {
  static_assert(Spec::kParts <= Spec::kThreads, "a thread joins one part");
  __shared__ SampleShared shared;
  __shared__ CutShared cut_shared;
  const i64 index = blockIdx.x;
  const Sample s = p.samples[index];
  let_next_begin();
  wait_for_inputs();
  if (s.lane >= p.lanes) return;
  const Join<Spec> join{shared};
  const Logits<Spec> logits(p, s, index);
  const int tops = p.top == nullptr ? 0 : min(static_cast<int>(min(s.top_logprobs, 0xffffu)), min(kTopLogprobs, Spec::kVocab));
  Found* const found = static_cast<Found*>(p.scratch) + index * Spec::kParts;
  look(logits, join, tops, found[blockIdx.y]);
  if (threadIdx.x == 0) shared.last = arrive_at(p.counters + index) == Spec::kParts - 1;
  __syncthreads();
  if (!shared.last) return;

  const bool has_part = threadIdx.x < Spec::kParts;
  const Found* const own = found + (has_part ? threadIdx.x : 0);
  const u64 best = join.most(has_part ? __ldcg(&own->best) : 0);
  const float own_peak = has_part ? __ldcg(&own->peak) : neg_inf();
  const float peak = join.most(own_peak);
  const float sum = join.sum(has_part ? __ldcg(&own->sum) * relative(own_peak, peak) : 0.f);
  const float log_sum = peak + logf(sum);
  if (tops > 0) report(found, join, tops, log_sum, p.top + index * kTopLogprobs);
  u32 token = token_of(best);
  if (s.temperature > 0.f) {
    Cuts<Spec> cuts{logits, Scale{from_ordered(static_cast<u32>(best >> 32)), 1.f / s.temperature}, cut_shared};
    if (s.top_k > 0 && s.top_k < Spec::kVocab) {
      cuts.keep([](float, u32 steps) { return steps < Scale::kFar ? 1u : 0u; },
                [&](u64) { return static_cast<u64>(s.top_k); });
    }
    if (s.top_p < 1.f) {
      const u64 part = static_cast<u64>(__float2uint_ru(s.top_p * 16777216.f)) << 40;
      cuts.keep([](float behind, u32) { return Scale::weight(behind); },
                [&](u64 all) { return max(__umul64hi(all, part), 1ull); });
    }
    if (s.min_p > 0.f) cuts.last = min(cuts.last, Scale::steps(fmaxf(-logf(s.min_p), 0.f)));
    token = cuts.choose(random_part(s.seed, s.counter), token);
  }
  if (threadIdx.x == 0) {
    p.counters[index] = 0;
    p.newest[s.lane] = token;
    p.outcomes[index] = {token, p.logits[index * Spec::kVocab + token] - log_sum};
  }
}

}  // namespace glue
}  // namespace moac
