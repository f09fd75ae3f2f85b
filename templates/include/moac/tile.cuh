// Tiles of rows in shared memory, and the matrix fragments read from them.
//
// A row is `kHeadDim` 16-bit elements, cut into chunks of 16 bytes. Chunk c of row r lies where chunk c ^ (r & 7) of
// a plain layout would, so the eight rows that one 8x8 matrix load touches fall into distinct banks.
#pragma once

#include <moac/ptx.cuh>

namespace moac {

__device__ __forceinline__ float neg_inf() {
  return __int_as_float(0xff800000);
}

template <int kHeadDim>
struct Tile {
  static constexpr int kChunks = kHeadDim / 8;  // of 16 bytes, in a row
  static constexpr int kRowBytes = kHeadDim * 2;

  // The address of a chunk in the tile at `base`.
  static __device__ __forceinline__ u32 at(u32 base, int row, int chunk) {
    return base + row * kRowBytes + ((chunk ^ (row & 7)) << 4);
  }

  // A operand, rows `row`..+15, elements 16k..16k+15 (Q).
  static __device__ __forceinline__ void load_a(u32 (&a)[4], u32 base, int row, int k) {
    const int lane = threadIdx.x & 31;
    load_matrix(a, at(base, row + (lane & 15), 2 * k + (lane >> 4)));
  }

  // B operands of keys `row`..+7 in b[0], b[1] and of keys `row` + 8..+15 in b[2], b[3], elements 16k..16k+15 (K).
  static __device__ __forceinline__ void load_b(u32 (&b)[4], u32 base, int row, int k) {
    const int lane = threadIdx.x & 31;
    load_matrix(b, at(base, row + (lane & 7) + ((lane >> 4) << 3), 2 * k + ((lane >> 3) & 1)));
  }

  // B operands of elements 16n..16n+7 in b[0], b[1] and 16n+8..16n+15 in b[2], b[3], keys `row`..+15 (V).
  static __device__ __forceinline__ void load_b_transposed(u32 (&b)[4], u32 base, int row, int n) {
    const int lane = threadIdx.x & 31;
    load_matrix_transposed(b, at(base, row + (lane & 15), 2 * n + (lane >> 4)));
  }
};

// The accumulators of 16 rows x 8n columns: lane l holds rows l / 4 and l / 4 + 8, columns 8i + 2 (l % 4) and the
// next. `half` 0 is the first row, 1 the second.
template <int kColumns>
struct Accumulator {
  static constexpr int kBlocks = kColumns / 8;
  float value[kBlocks][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < kBlocks; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) value[i][j] = 0.f;
    }
  }

  __device__ __forceinline__ void scale(int half, float factor) {
#pragma unroll
    for (int i = 0; i < kBlocks; ++i) {
      value[i][2 * half] *= factor;
      value[i][2 * half + 1] *= factor;
    }
  }
};

// The largest and the sum of a value over the four lanes that share a row.
__device__ __forceinline__ float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

__device__ __forceinline__ float quad_sum(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

}  // namespace moac
