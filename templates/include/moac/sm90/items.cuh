// The work items of a prefill launch, and the order in which they are taken.
//
// An item is kTileM query rows of one query head of one request. Items stand request by request; in a request by
// sections of as many KV heads as leave their keys and values in L2; in a section the last rows first, for they see
// the most keys; and the query heads of one KV head side by side. So the last items of a launch are its shortest.
#pragma once

#include <moac/ptx.cuh>
#include <moac/window.cuh>

namespace moac {
namespace sm90 {

constexpr int kSectionBytes = 32 << 20;

struct Item {
  i64 row;       // of the caller's tensors: the item's first query
  i64 start;     // of the caller's tensors: the request's first row
  int request, bucket, head, kv_head;
  int offset;    // the item's first row, in the chunk
  int chunk, cached;
  int window;    // of the head
};

template <class Spec>
struct Items {
  static constexpr int kGroup = Spec::kHeads / Spec::kKvHeads;

  // Items are asked for in ascending order: the search goes on where it ended.
  int request = 0, before = 0;

  static __device__ __forceinline__ int tiles(int chunk) { return (chunk + Spec::kTileM - 1) / Spec::kTileM; }

  static __device__ __forceinline__ int total(const Params& p) {
    int sum = 0;
    for (int b = 0; b < p.batch; ++b) sum += tiles(p.chunk[b]);
    return sum * Spec::kHeads;
  }

  // Whether there is an item `index`, and which it is.
  __device__ __forceinline__ bool find(Item& item, int index, const Params& p) {
    int count = 0;
    for (; request < p.batch; ++request) {
      count = tiles(p.chunk[request]);
      if (index < before + count * Spec::kHeads) break;
      before += count * Spec::kHeads;
    }
    if (request == p.batch) return false;
    item.request = request;
    item.chunk = p.chunk[request];
    item.cached = p.cached[request];
    item.bucket = p.buckets[request];
    item.start = p.starts[request];

    constexpr int kSectionTokens = kSectionBytes / (Spec::kHeadDim * 4);
    const int section = min(max(kSectionTokens / (item.cached + item.chunk), 1), Spec::kKvHeads);
    const int inside = index - before;
    const int first = inside / (count * kGroup * section) * section;  // the section's first KV head
    const int heads = min(section, Spec::kKvHeads - first) * kGroup;
    const int rest = inside - count * kGroup * first;
    item.head = first * kGroup + rest % heads;
    item.kv_head = item.head / kGroup;
    item.offset = (count - 1 - rest / heads) * Spec::kTileM;
    item.row = item.start + item.offset;
    item.window = Window<Spec>::span(item.bucket, item.head) - Spec::kSink;
    return true;
  }
};

// Where a CTA stands: its first item is its own, the others come from a counter if there are more items than CTAs.
template <class Spec>
struct Queue {
  Items<Spec> items;
  int next;
  bool counted;  // whether the counter is in use

  __device__ __forceinline__ explicit Queue(const Params& p)
      : next(blockIdx.x), counted(Items<Spec>::total(p) > static_cast<int>(gridDim.x)) {}

  // Goes on to the item that the counter gave.
  __device__ __forceinline__ void advance(u32 ticket) { next = counted ? gridDim.x + ticket : kNone; }

  // The next item, if there is one. One thread of a CTA calls.
  __device__ __forceinline__ bool take(Item& item, const Params& p) {
    if (items.find(item, next, p)) return true;
    // The last CTA to find nothing leaves the counters as they were.
    if (counted && arrive_at(p.counters + 1) == gridDim.x - 1) {
      p.counters[0] = 0;
      p.counters[1] = 0;
    }
    return false;
  }

  static constexpr int kNone = 0x7fffffff;
};

}  // namespace sm90
}  // namespace moac
