// The blocks of keys that an item walks, one sequence for the producer and for all that multiply.
//
// A block is two halves of 64 keys. Old keys come from the ring, any two tiles of it in a block; the chunk's own keys
// come in blocks of 128 rows from the chunk's first row on. A block of which every query of the item sees every key is
// *full*; the others, the *edges*, come first. A full block may be taken for an edge, never an edge for a full block.
#pragma once

#include <moac/sm90/items.cuh>

namespace moac {
namespace sm90 {

constexpr int kBlock = 128;
constexpr int kNowhere = 1 << 30;  // where a half begins that does not exist

struct Block {
  int begin[2];    // the positions of the first key of each half
  int end;         // the first position behind the block's source
  bool from_ring;
};

// How queries `first`..`last` see the half of a block that begins at `begin`.
template <class Spec>
__device__ __forceinline__ Sight half_sight(int begin, int end, int first, int last, int window) {
  const int back = begin + kTile - 1;
  if (begin > last || begin >= end || (begin >= Spec::kSink && first - back >= window)) return Sight::kNone;
  const bool reached = back < Spec::kSink || last - max(begin, Spec::kSink) < window;
  return back <= first && back < end && reached ? Sight::kAll : Sight::kSome;
}

template <class Spec>
struct Walk {
  int cached, end;
  int ring_tiles, ring_sink, ring_band;             // tiles; of the sink; the first of the band
  int ring_blocks, ring_full, ring_full_end;        // blocks of the ring, and the range of full ones
  int own_sink, own_band;                           // blocks of the sink; the first of the band
  int own_blocks, own_full, own_full_end;           // blocks of the chunk, and the range of full ones
  int edges, count;                                 // blocks that come first; all

  Walk() = default;

  __device__ __forceinline__ explicit Walk(const Item& item) {
    cached = item.cached;
    end = cached + item.chunk;
    const int first = cached + item.offset, last = min(first + Spec::kTileM, end) - 1;
    const int left = first - item.window + 1;  // the first key of the band that any row sees
    const int hidden = last - item.window;     // the last key of the band that some row does not see

    const int tiles = (cached + kTile - 1) / kTile;
    ring_sink = min(Window<Spec>::kSinkTiles, tiles);
    ring_band = max(left, Spec::kSink) / kTile;
    ring_tiles = ring_sink + (left < cached ? max(tiles - ring_band, 0) : 0);
    ring_blocks = (ring_tiles + 1) / 2;
    ring_full_end = (ring_tiles - (cached % kTile != 0)) / 2;
    const int cut = max(hidden / kTile + 1 - ring_band, 0);  // tiles at the left edge
    ring_full = hidden < Spec::kSink ? 0 : min((ring_sink + cut + 1) / 2, ring_full_end);

    own_sink = max(min((Spec::kSink - cached + kBlock - 1) / kBlock, (last - cached) / kBlock + 1), 0);
    own_band = max((max(left, cached) - cached) / kBlock, own_sink);
    own_blocks = own_sink + max((last - cached) / kBlock + 1 - own_band, 0);
    own_full_end = own_index(item.offset / kBlock);
    own_full = hidden < max(cached, Spec::kSink) ? 0 : min(own_index((hidden - cached) / kBlock + 1), own_full_end);

    count = ring_blocks + own_blocks;
    edges = count - (ring_full_end - ring_full) - (own_full_end - own_full);
  }

  __device__ __forceinline__ int own_index(int block) const {
    return min(block < own_sink ? block : own_sink + max(block - own_band, 0), own_blocks);
  }

  __device__ __forceinline__ Block operator[](int n) const {
    bool ring;
    if (n < edges) {
      int fulls = ring_full_end - ring_full;
      if (n >= ring_full) n += fulls;
      ring = n < ring_blocks;
      if (!ring) {
        n = own_edge(n - ring_blocks);
      }
    } else {
      n += ring_full - edges;
      ring = n < ring_full_end;
      if (!ring) n += own_full - ring_full_end;
    }
    Block block;
    block.from_ring = ring;
    if (ring) {
      block.end = cached;
      block.begin[0] = ring_position(2 * n);
      block.begin[1] = 2 * n + 1 < ring_tiles ? ring_position(2 * n + 1) : kNowhere;
    } else {
      block.end = end;
      block.begin[0] = cached + (n < own_sink ? n : n - own_sink + own_band) * kBlock;
      block.begin[1] = block.begin[0] + kTile;
    }
    return block;
  }

  // The chunk's edges: the sink's, the first of the band, the newest keys, the rest of the band's left. Blocks of which
  // a warpgroup sees one half, if that, stand in front of those of which it sees both.
  __device__ __forceinline__ int own_edge(int n) const {
    const int lead = min(own_sink + 1, own_full), newest = own_blocks - own_full_end;
    return n < lead ? n : n < lead + newest ? own_full_end + n - lead : n - newest;
  }

  __device__ __forceinline__ int ring_position(int tile) const {
    return (tile < ring_sink ? tile : tile - ring_sink + ring_band) * kTile;
  }
};

}  // namespace sm90
}  // namespace moac
