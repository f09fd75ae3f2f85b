// Which keys a query sees, where they lie, and which tiles that makes: the only window arithmetic there is.
//
// The query at position i sees key j iff j <= i and (j < sink or i - j < window). Sink, window and span are whole
// tiles of 64 keys, so ring slots keep the tile structure of positions: tile t of positions is one tile of slots.
#pragma once

#include <moac/params.cuh>

namespace moac {

constexpr int kTile = 64;

template <class Spec>
struct Window {
  static constexpr int kSinkTiles = Spec::kSink / kTile;

  // The span of query head `head` in bucket `bucket`.
  static __device__ __forceinline__ int span(int bucket, int head) {
    return Spec::kBucket[bucket].span[Spec::kGroupOfHead[head]];
  }

  static __device__ __forceinline__ bool visible(int i, int j, int window) {
    return j <= i && (j < Spec::kSink || i - j < window);
  }

  // The tile of ring slots that holds the tile `tile` of positions, for a ring of `kv_span` tokens.
  static __device__ __forceinline__ int slot_tile(int tile, int kv_span) {
    return tile < kSinkTiles ? tile : kSinkTiles + (tile - kSinkTiles) % (kv_span / kTile - kSinkTiles);
  }

  // The slot of position `position`.
  static __device__ __forceinline__ int slot(int position, int kv_span) {
    return position < Spec::kSink ? position : Spec::kSink + (position - Spec::kSink) % (kv_span - Spec::kSink);
  }
};

// The longest KV span of each bucket: past it all of a request's rings are full.
template <class Spec>
struct LongestKvSpan {
  int tokens[Spec::kBuckets];

  constexpr LongestKvSpan() : tokens() {
    for (int b = 0; b < Spec::kBuckets; ++b) {
      for (int g = 0; g < Spec::kKvHeads; ++g) {
        if (Spec::kBucket[b].kv_span[g] > tokens[b]) tokens[b] = Spec::kBucket[b].kv_span[g];
      }
    }
  }
};

// The tiles of keys that the queries at positions first..last see: the sink's, then the band's, ascending.
template <class Spec>
struct TileWalk {
  int sink_tiles, band_first, count;

  __device__ __forceinline__ TileWalk(int first, int last, int window) {
    const int diagonal = last / kTile;
    const int left = first - window + 1;
    sink_tiles = min(Window<Spec>::kSinkTiles, diagonal + 1);
    band_first = max(left, Spec::kSink) / kTile;
    count = sink_tiles + max(0, diagonal - band_first + 1);
  }

  __device__ __forceinline__ int operator[](int n) const { return n < sink_tiles ? n : band_first + n - sink_tiles; }
};

// How the queries at positions first..last see a tile of keys.
enum class Sight { kNone, kSome, kAll };

template <class Spec>
__device__ __forceinline__ Sight sight(int tile, int first, int last, int window) {
  const int begin = tile * kTile, end = begin + kTile - 1;
  const bool sink = tile < Window<Spec>::kSinkTiles;
  if (begin > last || (!sink && first - end >= window)) return Sight::kNone;
  return end <= first && (sink || last - begin < window) ? Sight::kAll : Sight::kSome;
}

// The K and V rings of one KV head of one request.
template <class Spec>
struct Ring {
  unsigned char* k;
  unsigned char* v;
  int kv_span;  // tokens

  __device__ __forceinline__ Ring(const Params& p, int request, int bucket, int kv_head) {
    const int* prefix = Spec::kBucket[bucket].tile_prefix;
    const i64 row_bytes = Spec::kHeadDim * 2;
    kv_span = Spec::kBucket[bucket].kv_span[kv_head];
    k = p.slabs[request] + p.layer_base[bucket] + 2 * kTile * row_bytes * prefix[kv_head];
    v = k + row_bytes * kv_span;
  }
};

}  // namespace moac
