// A tile of a swizzled ring: 64 slots, where each 16-byte chunk lies, how it is copied and how a warp reads it.
//
// A tile is head_dim / 64 panels of 64 rows of 128 bytes; chunk c of a row lies where c ^ (row & 7) would in a plain
// layout. A copy keeps that order, so in shared memory the eight rows of a matrix load fall into distinct banks; the
// tile has to start at a multiple of 128 bytes there.
#pragma once

#include <moac/ptx/hopper.cuh>
#include <moac/window.cuh>

namespace moac {
namespace sm90 {

template <int kHeadDim>
struct RingTile {
  static constexpr int kRowBytes = kHeadDim * 2;
  static constexpr int kChunks = kHeadDim / 8;  // of 16 bytes, in a row
  static constexpr int kPanels = kHeadDim / 64;
  static constexpr int kPanelRow = 128;  // bytes
  static constexpr int kPanelBytes = kTile * kPanelRow;
  static constexpr int kBytes = kPanels * kPanelBytes;

  // Where a chunk lies in its tile.
  static __device__ __forceinline__ int at(int row, int chunk) {
    return (chunk >> 3) * kPanelBytes + row * kPanelRow + (((chunk & 7) ^ (row & 7)) << 4);
  }

  // The lane's address for reading 16 rows from `row` (a multiple of 16) as the M side of a product over head_dim,
  // and, below, as its K side, transposed; `step` moves either on by 16 elements of head_dim.
  static __device__ __forceinline__ u32 lane_rows(u32 base, int row) {
    const int lane = threadIdx.x & 31;
    return base + at(row + (lane & 15), lane >> 4);
  }

  static __device__ __forceinline__ u32 lane_transposed(u32 base, int row) {
    const int lane = threadIdx.x & 31;
    return base + at(row + (lane & 7) + ((lane >> 4) << 3), (lane >> 3) & 1);
  }

  static __device__ __forceinline__ u32 step(u32 lane_address, int k) {
    return (lane_address ^ ((k & 3) << 5)) + (k >> 2) * kPanelBytes;
  }
};

// Starts copying a whole tile of K to `to` and of V behind it; one lane does.
template <int kHeadDim>
__device__ __forceinline__ void load_tile(u32 to, const unsigned char* k, const unsigned char* v, int tile,
                                          u32 barrier) {
  using T = RingTile<kHeadDim>;
  const i64 offset = static_cast<i64>(tile) * T::kBytes;
  load_once(to, k + offset, T::kBytes, barrier);
  load_once(to + T::kBytes, v + offset, T::kBytes, barrier);
}

// The same for the first `rows` rows only, of which row `fresh` comes from the new token instead of the ring (kTile if
// none of them does). All 32 lanes take part. Rows behind stay as they were.
template <int kHeadDim>
__device__ __forceinline__ void load_rows(u32 to, const unsigned char* k, const unsigned char* v,
                                          const unsigned char* new_k, const unsigned char* new_v, int tile, int rows,
                                          int fresh, u32 barrier) {
  using T = RingTile<kHeadDim>;
  const int lane = threadIdx.x & 31;
  const i64 offset = static_cast<i64>(tile) * T::kBytes;
  if (lane < 4 * T::kPanels) {
    // One lane per operand, stretch before or behind the new row, and panel.
    const bool is_v = lane & 1, behind = lane & 2;
    const int begin = behind ? fresh + 1 : 0, end = behind ? rows : min(fresh, rows);
    const int at = (lane >> 2) * T::kPanelBytes + begin * T::kPanelRow;
    if (begin < end) {
      load_once(to + (is_v ? T::kBytes : 0) + at, (is_v ? v : k) + offset + at,
                (end - begin) * T::kPanelRow, barrier);
    }
  }
  if (fresh < rows) {
    for (int i = lane; i < 2 * T::kChunks; i += 32) {
      const bool is_v = i >= T::kChunks;
      const int chunk = i % T::kChunks;
      bulk_load(to + (is_v ? T::kBytes : 0) + T::at(fresh, chunk), (is_v ? new_v : new_k) + chunk * 16, 16,
                barrier);
    }
  }
}

}  // namespace sm90
}  // namespace moac
