// Decode on Hopper: one token per request, appended to its swizzled rings by the same launch.
//
// Two warps supply (supply.cuh): one copies the tiles of the CTA's range (split.cuh), one says what they belong to and
// fetches the queries. The math warps take 16 slots each of a tile (narrow.cuh) and meet where a segment ends
// (combine.cuh). The new token's row is copied from the caller into its place in the stage, and the warp whose slot it
// is stores it to the ring from there; nobody reads that slot from the ring in this launch, nor any that holds no token
// yet.
#pragma once

#include <moac/sm90/combine.cuh>
#include <moac/sm90/supply.cuh>

namespace moac {
namespace sm90 {

template <class Spec>
constexpr int decode_threads() {
  return Spec::kWarps * 32 + 64;
}

template <class Spec>
constexpr int decode_shared_bytes() {
  return Stages<Spec>::kBytes + Meeting<Spec>::kBytes;
}

// Makes the 16 rows from `row` of a stage's tile what the products may read: rows that hold no token become zeros. Also
// stores the new token's row to the rings, if it is one of them.
template <class Spec>
__device__ __forceinline__ void settle(const Stages<Spec>& stages, int row, int rows, int fresh, unsigned char* k,
                                       unsigned char* v) {
  using T = RingTile<Spec::kHeadDim>;
  const int lane = threadIdx.x & 31;
  if (rows < kWarpSlots) {
    for (int i = lane; i < (kWarpSlots - rows) * T::kChunks; i += 32) {
      const int at = T::at(row + rows + i / T::kChunks, i % T::kChunks);
      store_shared(stages.keys() + at, Vec16{});
      store_shared(stages.values() + at, Vec16{});
    }
    __syncwarp();
  }
  if (fresh < 0 || fresh >= kWarpSlots) return;
  for (int i = lane; i < 2 * T::kChunks; i += 32) {
    const int at = T::at(row + fresh, i % T::kChunks);
    const bool is_v = i >= T::kChunks;
    *reinterpret_cast<Vec16*>((is_v ? v : k) + at) = load_shared((is_v ? stages.values() : stages.keys()) + at);
  }
}

// Brings the tables and the parameters into the caches while the supplying warps wait for the request's fields, so that
// what they look up next is there. `scratch` takes a word a thread, for a load nobody uses would be left out.
template <class Spec>
__device__ __forceinline__ void warm_tables(const Params& p, u32 scratch) {
  constexpr int kSector = 32, kBytes = sizeof(Spec::kBucket), kHeadBytes = sizeof(Spec::kGroupOfHead);
  constexpr int kSectors = (kBytes + kSector - 1) / kSector, kHeadSectors = (kHeadBytes + kSector - 1) / kSector;
  if constexpr (kSectors + kHeadSectors <= Spec::kWarps * 32) {
    const int i = threadIdx.x;
    if (i < kSectors + kHeadSectors) {
      const void* table = i < kSectors ? static_cast<const void*>(Spec::kBucket) : Spec::kGroupOfHead;
      const int sector = i < kSectors ? i : i - kSectors;
      store_shared(scratch + i * 4, static_cast<const u32*>(table)[sector * (kSector / 4)]);
    }
  }
  if (threadIdx.x < Spec::kBuckets) {
    store_shared(scratch + (Spec::kWarps * 32 + threadIdx.x) * 4, static_cast<u32>(p.layer_base[threadIdx.x]));
  }
}

template <class Spec>
__device__ __forceinline__ void decode(const DecodeParams& p) {
  using T = RingTile<Spec::kHeadDim>;
  constexpr int kTileWarps = kTile / kWarpSlots;
  static_assert(Spec::kWarps % kTileWarps == 0, "the math warps share a tile by rows");
  extern __shared__ __align__(1024) unsigned char shared[];
  Stages<Spec> stages(shared);
  const int warp = threadIdx.x >> 5;
  let_next_kernel_start();

  if (warp >= Spec::kWarps) {
    Walk<Spec> walk;
    walk.requests.load(p, 0);
    const int total = p.first_tile[p.call.batch];
    named_barrier_sync<2, decode_threads<Spec>()>();  // the math warps are long there
    const int part = blockIdx.x;
    const Ranges ranges(total, max(1, min(static_cast<int>(gridDim.x), total / Spec::kMinTiles)));
    Supply<Spec> supply{p, stages};
    if (part < ranges.parts && total > 0) {
      const int begin = ranges.begin(part);
      if (p.call.batch > 32) walk.requests.load_around(p, begin);
      walk.start(begin, ranges.begin(part + 1));
      while (walk.more()) {
        const Stretch s = walk.take();
        supply.take(walk, s);
        if (warp == Spec::kWarps) {
          supply.copy(walk, s);
        } else {
          supply.describe(walk, s, ranges, part);
        }
        walk.leave(p, s);
      }
    }
    if (warp > Spec::kWarps) supply.stop();
    return;
  }

  const Meeting<Spec> meeting{stages.base + Stages<Spec>::kBytes};
  if (threadIdx.x == 0) stages.init();
  __syncwarp();
  named_barrier_arrive<2, decode_threads<Spec>()>();
  warm_tables<Spec>(p.call, meeting.base);
  named_barrier_sync<1, Spec::kWarps * 32>();
  // Four warps share a tile; further fours take tiles in turn. All wait for and give back every stage, so that none
  // runs ahead of the others by more than the stages there are.
  const int row = warp % kTileWarps * kWarpSlots, turn = warp / kTileWarps;
  constexpr int kTurns = Spec::kWarps / kTileWarps;
  for (;;) {
    barrier_wait(stages.desk_full(), stages.desk.phase);
    const auto& s = stages.segment();
    const int first = s.first, last = s.last;
    if (last == 0) break;
    NarrowRows<Spec> rows;
    rows.begin(s, stages.queries());
    unsigned char* const k = s.k;
    unsigned char* const v = s.v;
    const Ending ending(s);
    give_back(stages.desk_empty());
    stages.desk.next();
#pragma unroll 1
    for (int tile = first; tile < last; ++tile) {
      barrier_wait(stages.tile_full(), stages.tile.phase);
      const int slot = tile * kTile + row;
      const int full_rows = rows.written - slot, fresh = rows.new_slot - slot;
      if ((tile - first) % kTurns == turn && full_rows > 0) {
        if (full_rows < kWarpSlots || static_cast<unsigned>(fresh) < kWarpSlots) {
          const i64 at = static_cast<i64>(tile) * T::kBytes;
          settle(stages, row, full_rows, fresh, k + at, v + at);
        }
        rows.attend(stages.keys(), stages.values(), row, slot);
      }
      give_back(stages.tile_empty());
      stages.tile.next();
    }
    wait_for_inputs();
    meeting.finish(p.call, ending, rows);
  }
  wait_for_inputs();  // also where there was nothing to do: whoever waits for this kernel waits for those before it
}

}  // namespace sm90
}  // namespace moac
