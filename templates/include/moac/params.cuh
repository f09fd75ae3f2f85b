// The parameter block of every attention kernel: what varies from call to call. One layout with `Params` in
// runtime/src/abi.rs, which documents each field; every rendered kernel asserts the size.
#pragma once

namespace moac {

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

constexpr int kMaxBuckets = 64;

enum Task { kAttend = 0, kFill = 1 };

struct Params {
  const void* q;                // [row][head][head_dim]
  const void* k;                // [row][kv head][head_dim], after RoPE
  const void* v;                // [row][kv head][head_dim]
  void* o;                      // [row][head][head_dim]
  float* lse;                   // [row][head], natural logarithm; may be null
  float* partials;              // decode: [2 * grid][group size][head_dim + 2]
  u32* counters;                // decode: [batch][kv heads], zero before and after
  unsigned char* const* slabs;  // [batch]
  const int* buckets;           // [batch] index into Spec::kBucket
  const int* cached;            // [batch] tokens in the slab before the call
  const int* chunk;             // [batch] new tokens of the call
  const i64* starts;            // [batch] first row of the request
  i64 q_token, q_head, k_token, k_head, v_token, v_head, o_token, o_head, lse_token, lse_head;  // elements
  int batch;
  int task;
  u64 layer_base[kMaxBuckets];  // bytes from the slab's base to this layer's rings, by bucket
};

}  // namespace moac
