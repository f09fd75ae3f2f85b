// The tables of a step and the parameter block of each of the engine's kernels. One layout with their namesakes in
// runtime/src/glue/block.rs, which documents each field; every rendered kernel asserts the size of its block.
#pragma once

#include <moac/params.cuh>

namespace moac {
namespace glue {

constexpr u32 kNewest = 0xffffffffu;  // Row::token: what the lane's last sample chose
constexpr u32 kIdle = 0xffffffffu;    // Row::lane, Sample::lane: nobody reads it
constexpr int kTopLogprobs = 20;

struct alignas(16) Row {
  u32 token, position, lane, reserved;
};

struct alignas(16) Sample {
  u32 row, lane, top_k;
  float temperature, top_p, min_p, penalty;
  u32 counter;
  u64 seed;
  u32 top_logprobs, reserved;
};

struct Outcome {
  u32 token;
  float logprob;
};

static_assert(sizeof(Row) == 16 && sizeof(Sample) == 48 && sizeof(Outcome) == 8, "as in runtime/src/glue/block.rs");

struct EmbedParams {
  const Row* table;       // [rows]
  const void* embedding;  // [vocab, hidden]
  void* x;                // [rows, hidden]
  const u32* newest;      // [lanes]
  u32* seen;              // [lanes, words]; may be null
  u32 lanes, rows;
};

struct NormParams {
  const void* x;          // [of_rows, hidden]
  const void* weight;     // [hidden]
  void* y;                // [rows, hidden]
  const Sample* samples;  // [rows]; may be null
  u32 of_rows, rows;
};

struct RotateParams {
  const Row* table;  // [rows]
  void* qkv;         // [rows, heads + 2 kv heads, head_dim]
  const void* bias;  // [heads + 2 kv heads, head_dim]
  const void* q_norm;
  const void* k_norm;  // [head_dim]
  u32 rows, reserved;
};

struct ActivateParams {
  const void* gate_up;  // [rows, 2 intermediate]
  void* y;              // [rows, intermediate]
  u32 rows, reserved;
};

struct LinearParams {
  const void* x;        // [rows, in]
  const void* weights;  // [out, in]; with an activation gate rows, then up rows
  const void* norm;     // [in], the weights of the norm of x; null where there is none
  void* y;              // [rows, out], or [rows, out / 2] behind an activation
  u32 rows, reserved;
};

struct SampleParams {
  const Sample* samples;  // [rows]
  const float* logits;    // [rows, vocab]
  Outcome* outcomes;      // [rows]
  Outcome* top;           // [rows, kTopLogprobs]; may be null
  u32* newest;            // [lanes]
  const u32* seen;        // [lanes, words]; may be null
  u32* counters;          // [rows], zero before and after
  void* scratch;          // [rows, parts] of Found
  u32 lanes, rows;
};

}  // namespace glue
}  // namespace moac
