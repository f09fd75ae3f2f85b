// The parameter block of Hopper's decode kernel: the common one, and where each request's work starts.
//
// `first_tile[b]`, b in 0..=batch, is the number of tiles of 64 slots that this layer reads for the requests before b:
// the sum over their KV heads of min(ceil(length / 64), kv_span / 64), with length = cached + 1, and 0 for a request
// of chunk 0. The host fills it once a step, so that no CTA counts the batch.
#pragma once

#include <moac/params.cuh>

namespace moac {
namespace sm90 {

struct DecodeParams {
  Params call;
  const int* first_tile;
};

}  // namespace sm90
}  // namespace moac
