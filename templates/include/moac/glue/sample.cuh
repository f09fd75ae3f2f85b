// A token for each sample. Each of a sample's CTAs looks at some of its logits, and the last one to arrive joins what they
// found: the likeliest token and the sum for its probability, which is all that a greedy sample needs. For others the
// same CTA makes the cuts and chooses (cut.cuh).
#pragma once

#include <moac/glue/cut.cuh>

namespace moac {
namespace glue {

// The findings of a CTA among its tokens.
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

constexpr int kTokensOfThread = 8;

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

// Looks at the CTA's tokens; thread 0 writes what was found.
template <class Spec>
__device__ __forceinline__ void look(const Logits<Spec>& logits, const Join<Spec>& join, int tops, Found& found) {
  constexpr int kVectors = kTokensOfThread / 4, kStride = Spec::kThreads * 4;
  const int first = blockIdx.y * Spec::kThreads * kTokensOfThread + threadIdx.x * 4;
  float x[kVectors][4];
#pragma unroll
  for (int i = 0; i < kVectors; ++i) logits.four(x[i], first + i * kStride);
  // The key of the likeliest token below `before`, in all threads.
  const auto most = [&](u64 before) {
    u64 best = 0;
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int token = first + i * kStride + j;
        const u64 own = token < Spec::kVocab ? key(fmaxf(x[i][j], neg_inf()), token) : 0;
        best = own < before ? max(best, own) : best;
      }
    }
    return join.most(best);
  };
  u64 best = most(~static_cast<u64>(0));
  const float peak = from_ordered(static_cast<u32>(best >> 32));
  float sum = 0.f;
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) sum += relative(x[i][j], peak);  // not a number if any of them is not
  }
  sum = join.sum(sum);
  u64 next = best;
  for (int rank = 0; rank < tops; ++rank) {
    if (threadIdx.x == 0) found.top[rank] = next;
    next = most(next);
  }
  if (logits.seen != nullptr) {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) logits.penalise(x[i], first + i * kStride);
    best = most(~static_cast<u64>(0));
  }
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
  static_assert(Spec::kParts * Spec::kThreads * kTokensOfThread >= Spec::kVocab, "every token is looked at");
  __shared__ SampleShared shared;
  __shared__ CutShared cut_shared;
  const i64 index = blockIdx.x;
  const Sample& s = p.samples[index];  // read where it is needed: registers are few
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
    Cuts<Spec> cuts(logits, from_ordered(static_cast<u32>(best >> 32)), s.temperature, cut_shared);
    if (s.top_k > 0 && s.top_k < Spec::kVocab) {
      cuts.keep([](float) { return 1u; }, [&](u64) { return static_cast<u64>(s.top_k); });
    }
    if (s.top_p < 1.f) {
      const u64 part = static_cast<u64>(__float2uint_ru(s.top_p * 16777216.f)) << 40;
      cuts.keep([](float distance) { return Scale::weight(distance); },
                [&](u64 all) { return max(__umul64hi(all, part), 1ull); });
    }
    if (s.min_p > 0.f) {
      const float steps = fminf(fmaxf(-logf(s.min_p) * 65536.f, 0.f), static_cast<float>(Scale::kFar));
      cuts.keep_up_to(min(cuts.last, static_cast<u32>(steps)));
    }
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
