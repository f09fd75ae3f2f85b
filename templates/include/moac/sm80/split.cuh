// How a decode launch is cut into equal ranges of tiles, one per CTA, and how a CTA walks its range.
//
// The work is the tiles of all requests in order, within a request those of its KV heads in order: a line of `total`
// tiles. CTA c of n takes tiles [total * c / n, total * (c + 1) / n). A range may end amid a KV head, whose result is
// then split; at most the first and the last KV head of a range are. Nothing depends on how many SMs there are.
#pragma once

#include <moac/window.cuh>

namespace moac {
namespace sm80 {

// The tiles a request attends to once the new token is in: `length` tokens, no KV head more than its KV span.
template <class Spec>
__device__ __forceinline__ int kv_head_tiles(int bucket, int kv_head, int length) {
  const int* prefix = Spec::kBucket[bucket].tile_prefix;
  return min((length + kTile - 1) / kTile, prefix[kv_head + 1] - prefix[kv_head]);
}

template <class Spec>
__device__ __forceinline__ int request_tiles(const Params& p, int request) {
  if (request >= p.batch || p.chunk[request] == 0) return 0;
  const int bucket = p.buckets[request], length = p.cached[request] + 1;
  // All rings full: the table's last entry. Before that, head by head.
  static constexpr LongestKvSpan<Spec> kLongest{};  // without the braces NVRTC leaves it all zeros
  if (length >= kLongest.tokens[bucket]) return Spec::kBucket[bucket].tile_prefix[Spec::kKvHeads];
  int tiles = 0;
  for (int g = 0; g < Spec::kKvHeads; ++g) tiles += kv_head_tiles<Spec>(bucket, g, length);
  return tiles;
}

// The range of tiles of each CTA.
struct Ranges {
  int total, parts;

  __device__ __forceinline__ int begin(int part) const {
    return static_cast<int>(static_cast<i64>(total) * part / parts);
  }

  // The part whose range holds tile `tile`.
  __device__ __forceinline__ int part_of(int tile) const {
    return static_cast<int>((static_cast<i64>(tile + 1) * parts - 1) / total);
  }
};

// A stretch of tiles of one KV head of one request: [first, last) of `tiles`, whose first lies at `origin` on the line.
struct Segment {
  int request, kv_head, first, last, tiles, origin;

  __device__ __forceinline__ bool whole() const { return last - first == tiles; }
};

// The segments of one range, in order. Every lane of a warp holds the same walk.
template <class Spec>
struct SegmentWalk {
  int request, kv_head, origin, position, end;

  // Finds the request that tile `begin` belongs to; all 32 lanes take part.
  __device__ __forceinline__ SegmentWalk(const Params& p, int begin, int end_) : position(begin), end(end_) {
    const int lane = threadIdx.x & 31;
    kv_head = 0;
    int before = 0;
    for (int base = 0;; base += 32) {
      const int own = request_tiles<Spec>(p, base + lane);
      int inclusive = own;
#pragma unroll
      for (int step = 1; step < 32; step *= 2) {
        const int other = __shfl_up_sync(0xffffffffu, inclusive, step);
        if (lane >= step) inclusive += other;
      }
      const unsigned past = __ballot_sync(0xffffffffu, before + inclusive > begin);
      if (past != 0 || base + 32 >= p.batch) {
        const int found = past != 0 ? __ffs(past) - 1 : 31;
        request = base + found;
        origin = before + __shfl_sync(0xffffffffu, inclusive - own, found);
        break;
      }
      before += __shfl_sync(0xffffffffu, inclusive, 31);
    }
  }

  // Takes the next segment of the range; false at its end.
  __device__ __forceinline__ bool next(const Params& p, Segment& s) {
    if (position >= end) return false;
    for (;; ++request, kv_head = 0) {
      if (p.chunk[request] == 0) continue;
      const int bucket = p.buckets[request], length = p.cached[request] + 1;
      for (; kv_head < Spec::kKvHeads; ++kv_head) {
        const int tiles = kv_head_tiles<Spec>(bucket, kv_head, length);
        if (position < origin + tiles) {
          s = {request, kv_head, position - origin, min(end - origin, tiles), tiles, origin};
          position = origin + s.last;
          if (s.last == tiles) {
            origin += tiles;
            ++kv_head;
          }
          return true;
        }
        origin += tiles;
      }
    }
  }
};

// All tiles of the launch; all 32 lanes take part.
template <class Spec>
__device__ __forceinline__ int total_tiles(const Params& p) {
  int tiles = 0;
  for (int request = threadIdx.x & 31; request < p.batch; request += 32) tiles += request_tiles<Spec>(p, request);
#pragma unroll
  for (int step = 16; step > 0; step /= 2) tiles += __shfl_xor_sync(0xffffffffu, tiles, step);
  return tiles;
}

}  // namespace sm80
}  // namespace moac
