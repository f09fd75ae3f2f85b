// Prefill on Hopper: two warps copy, warpgroups of 64 query rows multiply.
//
// A CTA takes items (items.cuh) and walks their blocks of keys (walk.cuh), the edges, which are masked, before the full
// ones. Q K of a block is started before P V of the block before it, and its peaks are found while P V still runs.
// One warpgroup multiplies while the others take exponentials: two fall into that by themselves, three take turns.
#pragma once

#include <moac/sm90/fill.cuh>
#include <moac/sm90/produce.cuh>
#include <moac/sm90/rows.cuh>

namespace moac {
namespace sm90 {

template <class Spec>
constexpr int prefill_threads() {
  return (Spec::kTileM / kRowsOfGroup + 1) * 128;
}

template <class Spec>
constexpr int prefill_shared_bytes() {
  static_assert(Spec::kTileM == 128 || (Spec::kTileM == 192 && Spec::kHeadDim == 64), "registers hold no other tile");
  static_assert(Spec::kTileN == kBlock && Spec::kWarps * 32 == prefill_threads<Spec>(), "the shapes of this family");
  return Shared<Spec>::kBytes;
}

// One warpgroup of 64 query rows of every item. It owns its rows' sums and its part of Q; a stage of keys or values is
// given back warp by warp, once what this warp waited for says that its reads have ended.
template <class Spec>
struct Multiplier {
  using S = Shared<Spec>;
  static constexpr int kGroups = S::kGroups;
  // Measured: without turns two warpgroups are 1% faster (head_dim 128), three are 7% slower (head_dim 64).
  static constexpr bool kTurns = kGroups > 2;

  const Params& p;
  S shared;
  int group;
  Rows<Spec> rows;
  Stage<Spec::kStages> keys, values;
  Stage<S::kItems> taken;

  // Each warp gives back for itself what it has waited for.
  __device__ __forceinline__ bool leads() const { return (threadIdx.x & 31) == 0; }

  // Barrier 1 + g lets warpgroup g start products; the warpgroup before it opens it.
  __device__ __forceinline__ void await_turn() const {
    if (kTurns && group == 0) named_barrier_sync<1, 256>();
    if (kTurns && group == 1) named_barrier_sync<2, 256>();
    if (kTurns && group == 2) named_barrier_sync<3, 256>();
  }

  __device__ __forceinline__ void pass_turn() const {
    if (kTurns && group == 2) named_barrier_arrive<1, 256>();
    if (kTurns && group == 0) named_barrier_arrive<2, 256>();
    if (kTurns && group == 1) named_barrier_arrive<3, 256>();
  }

  __device__ __forceinline__ void await_keys() const { barrier_wait(shared.keys_full(keys.index()), keys.parity()); }
  __device__ __forceinline__ void await_values() const {
    barrier_wait(shared.values_full(values.index()), values.parity());
  }

  __device__ __forceinline__ void release_keys() {
    if (leads()) barrier_arrive(shared.keys_empty(keys.index()));
    keys.advance();
  }

  __device__ __forceinline__ void release_values() {
    if (leads()) barrier_arrive(shared.values_empty(values.index()));
    values.advance();
  }

  // The warp has read the note, and used its rows of Q for the result.
  __device__ __forceinline__ void release_queries() {
    async_proxy_fence();
    __syncwarp();
    if (leads()) barrier_arrive(shared.queries_empty(taken.index()));
    taken.advance();
  }

  // Waits for P V of a block and gives its values back.
  __device__ __forceinline__ void finish_values() {
    wgmma_wait<0>();
    settle(rows.out);
    release_values();
  }

  // A block of which no row sees a key.
  __device__ __forceinline__ void pass_block() {
    await_keys();
    await_values();
    __syncwarp();
    release_keys();
    release_values();
  }

  // The half of a block that is the only one with keys to see: nothing runs beside it but the other warpgroups.
  __device__ __forceinline__ void half_block(int half, Sight sight, int first, int begin, int end, int window) {
    Accumulator<kTile> s;
    await_keys();
    wgmma_fence();
    rows.start_scores(s, shared.queries(taken.index(), group), shared.keys(keys.index()) + half * S::kHalfPanelBytes);
    wgmma_commit();
    wgmma_wait<0>();
    settle(s);
    release_keys();
    rows.template mask<0>(s, sight, first, begin, end, window);
    float peak[2], factor[2];
    rows.find_peaks(peak, s);
    rows.weigh(s, factor, peak);
    rows.scale(factor);
    typename Rows<Spec>::template Weights<kTile> weights;
    rows.pack(weights, s);
    await_values();
    wgmma_fence();
    rows.template start_values<kTile>(weights, shared.values(values.index()) + half * S::kHalfPanelBytes);
    wgmma_commit();
    finish_values();
  }

  __device__ __forceinline__ void walk_blocks(const Note<Spec>& note) {
    const int edges = note.walk.edges, count = note.walk.count;
    typename Rows<Spec>::template Weights<kBlock> weights;
    bool weighed = false;                           // whether `weights` wait for their values
    bool keys_there = false, values_there = false;  // asked for well before they are needed
    const auto start_scores = [&](Accumulator<kBlock>& s) {
      wgmma_fence();
      rows.start_scores(s, shared.queries(taken.index(), group), shared.keys(keys.index()));
      wgmma_commit();
    };
    const auto start_values = [&] {
      if (!values_there) await_values();
      wgmma_fence();
      rows.template start_values<kBlock>(weights, shared.values(values.index()));
      wgmma_commit();
    };
    // Scores that have arrived become weights, while P V of the block before, if any, comes to its end.
    const auto weigh = [&](Accumulator<kBlock>& s) {
      float peak[2], factor[2];
      rows.find_peaks(peak, s);
      finish_before_waiting(peak[0] + peak[1]);
      wgmma_wait<0>();
      settle(rows.out);
      if (weighed) release_values();
      keys_there = barrier_test(shared.keys_full(keys.index()), keys.parity());
      values_there = barrier_test(shared.values_full(values.index()), values.parity());
      rows.weigh(s, factor, peak);
      rows.pack(weights, s);
      rows.scale(factor);
      weighed = true;
    };

    // The edges, and the first full block if no weights wait. The loop behind this one, which takes most blocks, stays
    // small: the same steps in one loop made it 2 to 5% slower.
    int n = 0;
#pragma unroll 1
    for (; n < edges || (!weighed && n < count); ++n) {
      Sight low = Sight::kAll, high = Sight::kAll;
      Block block;
      int first, window;
      if (n < edges) {
        block = note.walk[n];
        first = note.item.cached + note.item.offset + group * kRowsOfGroup;
        window = note.item.window;
        const int last = min(first + kRowsOfGroup, note.item.cached + note.item.chunk) - 1;
        low = half_sight<Spec>(block.begin[0], block.end, first, last, window);
        high = half_sight<Spec>(block.begin[1], block.end, first, last, window);
        if (!kTurns && (low == Sight::kNone || high == Sight::kNone)) {
          if (weighed) {
            start_values();
            finish_values();
            weighed = false;
          }
          if (low == high) {
            pass_block();
          } else {
            const bool upper = low == Sight::kNone;
            half_block(upper, upper ? high : low, first, upper ? block.begin[1] : block.begin[0], block.end, window);
          }
          keys_there = values_there = false;
          continue;
        }
      }
      Accumulator<kBlock> s;
      if (!keys_there) await_keys();
      if (weighed) await_turn();
      start_scores(s);
      if (weighed) {
        start_values();
        pass_turn();
        wgmma_wait<1>();
      } else {
        wgmma_wait<0>();
      }
      settle(s);
      release_keys();
      if (n < edges) {
        rows.template mask<0>(s, low, first, block.begin[0], block.end, window);
        rows.template mask<kTile>(s, high, first, block.begin[1], block.end, window);
      }
      weigh(s);
    }
#pragma unroll 1
    for (; n < count; ++n) {
      Accumulator<kBlock> s;
      if (!keys_there) await_keys();
      await_turn();
      start_scores(s);
      start_values();
      pass_turn();
      wgmma_wait<1>();
      settle(s);
      release_keys();
      weigh(s);
    }
    if (weighed) {
      start_values();
      finish_values();
    }
  }

  // A warpgroup without rows in the item only keeps step.
  __device__ __forceinline__ void pass_blocks(int count) {
#pragma unroll 1
    for (int n = 0; n < count; ++n) {
      if (n > 0) {
        await_keys();
        await_turn();
        pass_turn();
      }
      pass_block();
    }
  }

  __device__ __forceinline__ void run() {
    if (kTurns && group == 0) named_barrier_arrive<1, 256>();
#pragma unroll 1
    while (true) {
      barrier_wait(shared.queries_full(taken.index()), taken.parity());
      const Note<Spec>& note = shared.note(taken.index());
      const Item& item = note.item;
      if (item.head < 0) break;
      const int count = min(item.chunk - item.offset - group * kRowsOfGroup, kRowsOfGroup);
      if (count <= 0) {
        pass_blocks(note.walk.count);
        release_queries();
        continue;
      }
      rows.clear();
      walk_blocks(note);

      const i64 row = item.row + group * kRowsOfGroup;
      unsigned char* o = static_cast<unsigned char*>(p.o) + (row * p.o_token + item.head * p.o_head) * 2;
      float* lse = p.lse == nullptr ? nullptr : p.lse + row * p.lse_token + item.head * p.lse_head;
      rows.store(shared.queries(taken.index(), group), o, p.o_token * 2, lse, p.lse_token, count);
      release_queries();
    }
    if (kTurns && group == 0) named_barrier_sync<1, 256>();
  }
};

template <class Spec>
__device__ __forceinline__ void attend(const PrefillParams& params) {
  extern __shared__ __align__(1024) unsigned char dynamic[];
  const Shared<Spec> shared(dynamic);
  if (threadIdx.x == 0) {
    prefetch_map(&params.q);
    prefetch_map(&params.k);
    prefetch_map(&params.v);
    shared.init_barriers();
  }
  __syncthreads();
  const int warpgroup = __shfl_sync(0xffffffffu, threadIdx.x >> 7, 0);
  if (warpgroup == 0) {
    registers_give<kProducerRegisters<Spec>>();
    if (threadIdx.x / 32 == 0) Producer<Spec, false>{params, shared}.run();
    if (threadIdx.x / 32 == 1) Producer<Spec, true>{params, shared}.run();
  } else {
    registers_take<kMultiplierRegisters<Spec>>();
    Multiplier<Spec>{params.call, shared, warpgroup - 1}.run();
  }
}

template <class Spec>
__device__ __forceinline__ void prefill(const PrefillParams& params) {
  if (params.call.task == kFill) {
    fill<Spec>(params.call);
  } else {
    attend<Spec>(params);
  }
}

}  // namespace sm90
}  // namespace moac
