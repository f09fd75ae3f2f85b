// How a decode launch is cut into equal ranges of tiles, one per CTA, and how a CTA's copier finds its own.
//
// The work is the tiles of all requests in order, within a request those of its KV heads in order: a line of `total`
// tiles. Each of n CTAs takes total / n of them, the first total % n one more. A range may end amid a KV head, whose
// result is then split; at most the first and the last KV head of a range are. Nothing depends on how many SMs there
// are. Everything here is done by one whole warp, all of whose lanes hold the same values unless it says otherwise.
#pragma once

#include <moac/sm90/decode_params.cuh>
#include <moac/window.cuh>

namespace moac {
namespace sm90 {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kNowhere = 0x7fffffff;

// The range of tiles of each CTA.
struct Ranges {
  int parts, share, rest;

  __device__ __forceinline__ Ranges(int total, int parts_)
      : parts(parts_),
        share(static_cast<unsigned>(total) / static_cast<unsigned>(parts_)),
        rest(total - share * parts_) {}

  __device__ __forceinline__ int begin(int part) const { return part * share + min(part, rest); }

  // The part whose range holds tile `tile`.
  __device__ __forceinline__ int part_of(int tile) const {
    const unsigned longer = rest * (share + 1), at = tile;
    return at < longer ? at / (share + 1u) : rest + (at - longer) / static_cast<unsigned>(share);
  }
};

__device__ __forceinline__ int tiles_of(int tokens) {
  return static_cast<int>((static_cast<unsigned>(tokens) + kTile - 1) / kTile);
}

// The walk's data of 32 requests from `base` on, one a lane, all loaded at once.
struct Requests {
  int base;
  int begin, end;  // the lane's request's tiles on the line; kNowhere behind the batch
  int bucket, cached;
  i64 row;
  unsigned char* slab;

  __device__ __forceinline__ void load(const DecodeParams& p, int base_) {
    base = base_;
    const int request = base + (threadIdx.x & 31);
    begin = end = kNowhere;
    if (request < p.call.batch) {
      begin = p.first_tile[request];
      end = p.first_tile[request + 1];
      bucket = p.call.buckets[request];
      cached = p.call.cached[request];
      row = p.call.starts[request];
      slab = p.call.slabs[request];
    }
  }

  // Loads requests among which the one of tile `tile` is. A batch of at most 32 needs no search, so its loads wait
  // for nothing; of a larger one each step leaves a thirty-second part.
  __device__ __forceinline__ void load_around(const DecodeParams& p, int tile) {
    int low = 0, count = p.call.batch;
    while (count > 32) {
      const int stride = (count + 31) / 32;
      const int offset = (threadIdx.x & 31) * stride;
      const int before = offset < count ? p.first_tile[low + offset] : kNowhere;
      const int found = 31 - __clz(__ballot_sync(kAllLanes, before <= tile));
      low += found * stride;
      count = min(stride, count - found * stride);
    }
    load(p, low);
  }

  // The lane of the request that tile `tile` belongs to.
  __device__ __forceinline__ int lane_of(int tile) const {
    return 31 - __clz(__ballot_sync(kAllLanes, begin <= tile));
  }

  // The lane of the next request with any tiles behind that of lane `lane`, which there has to be.
  __device__ __forceinline__ int lane_behind(const DecodeParams& p, int lane) {
    unsigned more = __ballot_sync(kAllLanes, begin < end) & ~(kAllLanes >> (31 - lane));
    while (more == 0) {
      load(p, base + 32);
      more = __ballot_sync(kAllLanes, begin < end);
    }
    return __ffs(more) - 1;
  }
};

// A stretch of tiles [first, last) of a KV head's `tiles`, the first of which lies at `origin` on the line.
struct Stretch {
  int kv_head, first, last, tiles, origin;
  int prefix;  // tiles of the rings before this KV head's
  int kv_tiles;  // of its ring
};

// The stretches of one range, in order.
template <class Spec>
struct Walk {
  Requests requests;
  int position, end;
  int bucket, length;  // of the current request, and below
  int request;
  i64 row;
  unsigned char* slab;

  // Begins in the range [begin, end), which is not empty, once `requests` holds that of tile `begin`.
  __device__ __forceinline__ void start(int begin, int end_) {
    position = begin;
    end = end_;
    const int lane = requests.lane_of(begin);
    enter(lane);
    // The KV head of the first tile: the last one that starts at or before it.
    origin = __shfl_sync(kAllLanes, requests.begin, lane);
    kv_head = -1;
    for (int head = 0; head < Spec::kKvHeads; head += 32) {
      const int* table = Spec::kBucket[bucket].tile_prefix;
      const int mine = min(head + (threadIdx.x & 31), Spec::kKvHeads - 1);
      const int before = table[mine], its = table[mine + 1] - before;
      const int own = head + (threadIdx.x & 31) < Spec::kKvHeads ? min(tiles_of(length), its) : 0;
      int inclusive = own;
#pragma unroll
      for (int step = 1; step < (Spec::kKvHeads < 32 ? Spec::kKvHeads : 32); step *= 2) {
        const int other = __shfl_up_sync(kAllLanes, inclusive, step);
        if ((threadIdx.x & 31) >= step) inclusive += other;
      }
      const unsigned past = __ballot_sync(kAllLanes, origin + inclusive > begin);
      if (past != 0) {
        const int found = __ffs(past) - 1;
        kv_head = head + found;
        origin += __shfl_sync(kAllLanes, inclusive - own, found);
        prefix = __shfl_sync(kAllLanes, before, found);
        kv_tiles = __shfl_sync(kAllLanes, its, found);
        break;
      }
      origin += __shfl_sync(kAllLanes, inclusive, 31);
    }
  }

  __device__ __forceinline__ bool more() const { return position < end; }

  // Takes the next stretch; `leave` has to follow.
  __device__ __forceinline__ Stretch take() const {
    Stretch s;
    s.kv_head = kv_head;
    s.origin = origin;
    s.prefix = prefix;
    s.kv_tiles = kv_tiles;
    s.tiles = min(tiles_of(length), kv_tiles);
    s.first = position - origin;
    s.last = min(end - origin, s.tiles);
    return s;
  }

  __device__ __forceinline__ void leave(const DecodeParams& p, const Stretch& s) {
    position = origin + s.last;
    if (position >= end) return;
    origin = position;
    if (++kv_head == Spec::kKvHeads) {
      kv_head = 0;
      enter(requests.lane_behind(p, request - requests.base));
    }
    prefix = Spec::kBucket[bucket].tile_prefix[kv_head];
    kv_tiles = Spec::kBucket[bucket].tile_prefix[kv_head + 1] - prefix;
  }

 private:
  int origin, kv_head, prefix, kv_tiles;

  __device__ __forceinline__ void enter(int lane) {
    request = requests.base + lane;
    bucket = __shfl_sync(kAllLanes, requests.bucket, lane);
    length = __shfl_sync(kAllLanes, requests.cached, lane) + 1;
    row = __shfl_sync(kAllLanes, requests.row, lane);
    slab = reinterpret_cast<unsigned char*>(__shfl_sync(kAllLanes, reinterpret_cast<u64>(requests.slab), lane));
  }
};

}  // namespace sm90
}  // namespace moac
