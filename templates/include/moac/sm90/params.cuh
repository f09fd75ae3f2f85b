// The parameter blocks of the kernels for Hopper: the block of every kernel, and what the family adds to it.
#pragma once

#include <moac/ptx/hopper.cuh>

namespace moac {
namespace sm90 {

// Maps of the caller's whole q, k and v: dimensions {64, rows, head_dim / 64, heads}, boxes {64, R, head_dim / 64, 1}
// with R of prefill.cuh, 128-byte swizzle, zeros outside. A box lands as head_dim / 64 panels of R rows of 128 bytes.
struct PrefillParams {
  TensorMap q, k, v;
  Params call;
};

}  // namespace sm90
}  // namespace moac
