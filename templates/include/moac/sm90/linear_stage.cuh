// The shape of a linear kernel (linear.cuh), and the stages that its copying warps fill with weights.
#pragma once

#include <moac/element.cuh>
#include <moac/glue/params.cuh>
#include <moac/sm90/stage.cuh>

namespace moac {
namespace sm90 {

using glue::LinearParams;

// `Spec` has the depth kIn and the rows kOut of W, whether x goes through a norm (kNorm, kEpsilon), whether results are
// added to y (kAdd), are silu(gate) * up (kActivate) or are stored as float32 (kFloatOut).
template <class Spec>
struct LinearShape {
  static constexpr int kColumns = 16;  // rows of x that the products have room for
  static constexpr int kBlocks = kColumns / 8;
  static constexpr int kRows = 16;  // rows of W in a tile
  static constexpr int kWarps = 8, kCopyWarps = 2;
  static constexpr int kMathThreads = 32 * kWarps, kThreads = kMathThreads + 32 * kCopyWarps;

  // A chunk of the depth is what a stage has of it: up to 2 KiB of a row, in equal slices for the warps. A multiprocessor
  // issues a copy in some 60 cycles, in which 1.2 to 1.8 KB have to come.
  static constexpr int kStep = 32;  // elements of depth of two products
  static constexpr int kChunks = (Spec::kIn + 1023) / 1024;
  static constexpr int kSteps = (Spec::kIn + kChunks * kWarps * kStep - 1) / (kChunks * kWarps * kStep);
  static constexpr int kSlice = kSteps * kStep;
  static constexpr int kDepth = kWarps * kSlice;
  static constexpr int kRowBytes = kDepth * 2;
  static constexpr int kPitch = kRowBytes + 64;  // so that two rows of 64 bytes fall into distinct banks
  static_assert(Spec::kIn % kStep == 0, "a step has to be whole");

  static constexpr int kResults = Spec::kActivate ? Spec::kOut / 2 : Spec::kOut;  // elements of a row of y
  static constexpr int kTileResults = Spec::kActivate ? kRows / 2 : kRows;
  static constexpr int kTiles = (kResults + kTileResults - 1) / kTileResults;
  static constexpr int kTilesAtOnce = 4;
  static_assert(kResults % 2 == 0, "results are stored in pairs");

  // The row of W that is row `row` of a tile; a last tile that is not full repeats rows.
  static __device__ __forceinline__ i64 source(int tile, int row) {
    if (!Spec::kActivate) return min(tile * kRows + row, Spec::kOut - 1);
    return min(tile * 8 + (row & 7), kResults - 1) + (row >> 3) * kResults;
  }

  // Whether the depth reaches to step `step` of the warp's slice of a chunk.
  static __device__ __forceinline__ bool in_depth(int chunk, int step) {
    if (Spec::kIn % kDepth == 0) return true;
    return chunk * kDepth + static_cast<int>(threadIdx.x >> 5) * kSlice + step * kStep < Spec::kIn;
  }

  // Tiles of the CTAs before this one.
  static __device__ __forceinline__ int tiles_before(u32 cta) {
    return static_cast<int>(kTiles / gridDim.x * cta + min(cta, kTiles % gridDim.x));
  }

  // How many of `left` tiles are taken together: each time about as many.
  static __device__ __forceinline__ int taken(int left) {
    const int times = (left + kTilesAtOnce - 1) / kTilesAtOnce;
    return (left + times - 1) / times;
  }
};

// The stages, each a chunk of 16 rows of weights with a `full` barrier, which counts the copying warps and their bytes,
// and an `empty` one, which counts the warps that multiply.
template <class Spec>
struct WeightStages {
  using L = LinearShape<Spec>;
  static constexpr int kStageBytes = L::kRows * L::kPitch;
  static constexpr int kStages = 203 * 1024 / (kStageBytes + 16);
  static constexpr int kBarriers = kStages * kStageBytes;  // where they begin
  static constexpr int kBytes = kBarriers + kStages * 16;

  u32 base;
  Cursor<kStages> cursor;

  __device__ __forceinline__ explicit WeightStages(u32 base_) : base(base_) {}

  __device__ __forceinline__ u32 slot() const { return base + cursor.slot * kStageBytes; }
  __device__ __forceinline__ u32 full() const { return base + kBarriers + cursor.slot * 16; }
  __device__ __forceinline__ u32 empty() const { return full() + 8; }

  // One thread does, before a barrier of the CTA.
  __device__ __forceinline__ void init() const {
#pragma unroll
    for (int i = 0; i < kStages; ++i) {
      barrier_init(base + kBarriers + i * 16, L::kCopyWarps);
      barrier_init(base + kBarriers + i * 16 + 8, L::kWarps);
    }
    barrier_init_fence();
  }
};

// A copying warp: its part of the rows of the tiles from `first`, in the order in which they are multiplied.
template <class Spec>
__device__ __forceinline__ void supply_weights(const LinearParams& p, WeightStages<Spec> stages, int first, int last) {
  using L = LinearShape<Spec>;
  constexpr int kRows = L::kRows / L::kCopyWarps;
  const int lane = threadIdx.x & 31, row = ((threadIdx.x >> 5) - L::kWarps) * kRows + lane;
#pragma unroll 1
  for (int tile = first; tile < last;) {
    const int end = tile + L::taken(last - tile);
#pragma unroll 1
    for (int chunk = 0; chunk < L::kChunks; ++chunk) {
      const int bytes = min(L::kRowBytes, Spec::kIn * 2 - chunk * L::kRowBytes);
#pragma unroll 1
      for (int t = tile; t < end; ++t) {
        barrier_wait(stages.empty(), stages.cursor.phase ^ 1);
        if (lane == 0) barrier_arrive_expect(stages.full(), kRows * bytes);
        __syncwarp();
        if (lane < kRows) {
          const i64 at = L::source(t, row) * (Spec::kIn * 2) + chunk * L::kRowBytes;
          load_once(stages.slot() + row * L::kPitch, static_cast<const unsigned char*>(p.weights) + at, bytes,
                    stages.full());
        }
        stages.cursor.next();
      }
    }
    tile = end;
  }
}

}  // namespace sm90
}  // namespace moac
