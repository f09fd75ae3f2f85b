//! Defects of Hopper's kernels.

use super::table::{Mutant, Survivor, Table, m};

const HOPPER: &str = "moac/ptx/hopper.cuh";
const STEP: &str = "moac/sm90/decode.cuh";
const SUPPLY: &str = "moac/sm90/supply.cuh";
const SPLIT: &str = "moac/sm90/split.cuh";
const STAGE: &str = "moac/sm90/stage.cuh";
const NARROW: &str = "moac/sm90/narrow.cuh";
const COMBINE: &str = "moac/sm90/combine.cuh";
const RING: &str = "moac/sm90/ring.cuh";
const ATTEND: &str = "moac/sm90/prefill.cuh";
const PRODUCE: &str = "moac/sm90/produce.cuh";
const ROWS: &str = "moac/sm90/rows.cuh";
const WALK: &str = "moac/sm90/walk.cuh";
const ITEMS: &str = "moac/sm90/items.cuh";
const SHARED: &str = "moac/sm90/shared.cuh";
const WGMMA: &str = "moac/sm90/wgmma.cuh";
const FILL: &str = "moac/sm90/fill.cuh";
const WINDOW: &str = "moac/window.cuh";

/// Defects that prefill, its fill included, must show.
pub(crate) const PREFILL: Table = Table {
    mutants: OF_PREFILL,
    survivors: &[Survivor {
        name: "rows that saw nothing make NaN",
        why: "of the blocks of an item, the first one walked holds a key that each of its rows sees, so no peak that is \
              read is -inf; the guard is there for other orders",
    }],
};

/// Defects that decode must show.
pub(crate) const DECODE: Table = Table {
    mutants: OF_DECODE,
    survivors: &[Survivor {
        name: "inputs not waited for",
        why: "the emulator starts a launch when those before it have ended: only a GPU on which one overlaps the next \
              could tell",
    }],
};

const OF_DECODE: &[Mutant] = &[
    m("rows without a token not zeroed", STEP, "if (rows < kWarpSlots) {\n", "if (rows < 0) {\n"),
    m("new token not appended", STEP, "if (fresh < 0 || fresh >= kWarpSlots) return;", "return;"),
    m(
        "new token appended one slot on",
        STEP,
        "((is_v ? v : k) + at) =",
        "((is_v ? v : k) + T::at(row + fresh + 1, i % T::kChunks)) =",
    ),
    m("barriers used before they are there", STEP, "named_barrier_sync<2, decode_threads<Spec>()>();", ""),
    m(
        "stage given back before all lanes are done",
        STEP,
        "give_back(stages.tile_empty());",
        "async_proxy_fence();\n      if ((threadIdx.x & 31) == 0) barrier_arrive(stages.tile_empty());",
    ),
    m(
        "desk given back before all lanes are done",
        STEP,
        "give_back(stages.desk_empty());",
        "async_proxy_fence();\n    if ((threadIdx.x & 31) == 0) barrier_arrive(stages.desk_empty());",
    ),
    m(
        "stage given back without a proxy fence",
        STEP,
        "give_back(stages.tile_empty());",
        "__syncwarp();\n      if ((threadIdx.x & 31) == 0) barrier_arrive(stages.tile_empty());",
    ),
    m(
        "desk given back without a proxy fence",
        STEP,
        "give_back(stages.desk_empty());",
        "__syncwarp();\n    if ((threadIdx.x & 31) == 0) barrier_arrive(stages.desk_empty());",
    ),
    m(
        "wait for the other phase",
        STEP,
        "stages.tile_full(), stages.tile.phase)",
        "stages.tile_full(), stages.tile.phase ^ 1)",
    ),
    m("phase never turns", STAGE, "phase ^= 1;", ""),
    m("stage free when all warps but one say so", STAGE, "+ 8, Spec::kWarps);", "+ 8, Spec::kWarps - 1);"),
    m("barriers without a fence", STAGE, "barrier_init_fence();", ""),
    m("bytes of a whole tile expected", SUPPLY, "2 * rows * T::kRowBytes", "2 * kTile * T::kRowBytes"),
    m(
        "new token read from the ring",
        SUPPLY,
        "< kTile ? new_slot - tile * kTile : kTile;",
        "< kTile ? kTile : kTile;",
    ),
    m(
        "stage copied into before it is free",
        SUPPLY,
        "barrier_wait(stages.tile_empty(), stages.tile.phase ^ 1);",
        "",
    ),
    m(
        "slot of a ring one too long",
        SUPPLY,
        "% static_cast<unsigned>(kv_span - Spec::kSink);",
        "% static_cast<unsigned>(kv_span);",
    ),
    m(
        "new token not counted",
        SUPPLY,
        "written = min(walk.length, kv_span);",
        "written = min(walk.length - 1, kv_span);",
    ),
    m("V ring off by a tile", SUPPLY, "(T::kBytes) * s.kv_tiles;", "(T::kBytes) * (s.kv_tiles - 1);"),
    m("queries of the first KV head", SUPPLY, "(head + lane) * call.q_head", "lane * call.q_head"),
    m(
        "V by K's strides",
        SUPPLY,
        "(row * call.v_token + s.kv_head * call.v_head)",
        "(row * call.k_token + s.kv_head * call.k_head)",
    ),
    m(
        "last split not counted",
        SUPPLY,
        "ranges.part_of(s.origin + s.tiles - 1);",
        "ranges.part_of(s.origin + s.tiles - 2);",
    ),
    m("inputs not waited for", HOPPER, "asm volatile(\"griddepcontrol.wait;\" ::: \"memory\");", ""),
    m("longer ranges one tile short", SPLIT, "longer = rest * (share + 1)", "longer = rest * share"),
    m("scan forgets a step", SPLIT, "int step = 1; step <", "int step = 2; step <"),
    m(
        "requests without a token not passed over",
        SPLIT,
        "unsigned more = __ballot_sync(kAllLanes, begin < end) &",
        "unsigned more = kAllLanes &",
    ),
    m("last of 32 requests twice", SPLIT, "load(p, base + 32);", "load(p, base + 31);"),
    m(
        "search stops a request early",
        SPLIT,
        "__ballot_sync(kAllLanes, before <= tile)",
        "__ballot_sync(kAllLanes, before < tile)",
    ),
    m(
        "rings of the first KV head",
        SPLIT,
        "prefix = Spec::kBucket[bucket].tile_prefix[kv_head];",
        "prefix = Spec::kBucket[bucket].tile_prefix[0];",
    ),
    m("window one token too wide", NARROW, "its_age >= window[n][j]", "its_age > window[n][j]"),
    m("unwritten slots not hidden", NARROW, "slot >= written || ", ""),
    m(
        "mask skipped a token early",
        NARROW,
        "oldest < smallest_window)) return;",
        "oldest <= smallest_window)) return;",
    ),
    m("wrap inside 16 slots not seen", NARROW, "= first <= new_slot && new_slot < last;", "= false;"),
    m("age wraps at the whole ring", NARROW, "behind + span_window;", "behind + span_window + Spec::kSink;"),
    m("factor of the other head", NARROW, "*= factor[j & 1];", "*= factor[j >> 1];"),
    m("maximum over half the lanes", NARROW, "lane *= 2) x = fmaxf", "lane *= 4) x = fmaxf"),
    m("swizzle over four rows", RING, "((chunk & 7) ^ (row & 7))", "((chunk & 7) ^ (row & 3))"),
    m("panels of a tile side by side", RING, "(k >> 2) * kPanelBytes;", "(k >> 2) * kPanelRow;"),
    m("row behind the new one not copied", RING, "behind ? fresh + 1 : 0", "behind ? fresh + 2 : 0"),
    m("meeting barrier removed", COMBINE, "put(rows);\n    meet();", "put(rows);"),
    m("areas reused too soon", COMBINE, "meet();  // the areas are free again", ""),
    m("arrival before all have written", COMBINE, "meet();  // all of the CTA's results are written", ""),
    m("never the last", COMBINE, "arrive_at(counter) == e.splits - 1;", "arrive_at(counter) == e.splits;"),
    m("counter not reset", COMBINE, "if (last) *counter = 0;", ""),
    m("one place for both ends", COMBINE, "2 * (first_part + n) + (n == 0);", "2 * (first_part + n);"),
    m(
        "states among the values",
        COMBINE,
        "(2 * static_cast<i64>(gridDim.x) * Spec::kHeadDim +",
        "(static_cast<i64>(gridDim.x) * Spec::kHeadDim +",
    ),
    m(
        "splits of a set twice",
        COMBINE,
        "const int place = e.place(split + n * kSets);",
        "const int place = e.place(split + n);",
    ),
    m(
        "a warp left out",
        COMBINE,
        "warp < Spec::kWarps; ++warp) {\n      const u32 from",
        "warp < Spec::kWarps - 1; ++warp) {\n      const u32 from",
    ),
    m("range one tile short", STEP, "ranges.begin(part + 1));", "ranges.begin(part + 1) - 1);"),
    m(
        "splits past the ninth left out",
        COMBINE,
        "split < e.splits; split += kSets * kAhead",
        "split == set; split += kSets * kAhead",
    ),
    m("sum of the first nine splits not scaled", COMBINE, "sum *= mine;", ""),
];

const OF_PREFILL: &[Mutant] = &[
    m("zeros without a proxy fence", PRODUCE, "async_proxy_fence();", ""),
    m("unwritten slots not zeroed", PRODUCE, "if (low < kTile) clear_rows(to, low, kTile);", ""),
    m(
        "bytes of a whole block of the ring expected",
        PRODUCE,
        "(low + high) * S::kPanels",
        "kBlock * S::kPanels",
    ),
    m(
        "second half from the next tile",
        PRODUCE,
        "(half == 0 ? block.begin[0] : block.begin[1]) / kTile",
        "block.begin[0] / kTile + half",
    ),
    m(
        "second panel a block on",
        PRODUCE,
        "kTileBytes + panel * S::kHalfPanelBytes",
        "kTileBytes + panel * S::kBlockPanelBytes",
    ),
    m("chunk rows by position", PRODUCE, "block.begin[0] - item.cached, 0", "block.begin[0], 0"),
    m("KV head of another group", PRODUCE, "0, item.kv_head, kEvictLast", "0, item.head, kEvictLast"),
    m("second mended block not waited for", PRODUCE, "mended_parity ^= 1;", ""),
    m("values behind the chunk not zeroed", PRODUCE, "clear_rows(to, rows, kBlock);", ""),
    m("block not mended a row early", PRODUCE, "rows >= kBlock)", "rows >= kBlock - 1)"),
    m(
        "stage copied into before it is free",
        PRODUCE,
        "shared.keys_empty(stage), blocks.parity() ^ 1);",
        "shared.keys_empty(stage), 1);",
    ),
    m(
        "queries copied before the result is out",
        PRODUCE,
        "barrier_wait(shared.queries_empty(taken.index()), taken.parity() ^ 1);",
        "",
    ),
    m("note free before the values are copied", SHARED, "4 * kGroups + 1);", "4 * kGroups);"),
    m(
        "keys free when all warps but one say so",
        SHARED,
        "keys_empty(stage), 4 * kGroups)",
        "keys_empty(stage), 4 * kGroups - 1)",
    ),
    m("barriers without a fence", SHARED, "barrier_init_fence();", ""),
    m("parity turns with every stage", SHARED, "count / kStages & 1", "count & 1"),
    m(
        "panels of values half as far",
        WGMMA,
        "static_cast<u32>(kPanelBytes >> 4) << 16",
        "static_cast<u32>(kPanelBytes >> 5) << 16",
    ),
    m("64-byte swizzle", WGMMA, "64u | 1u << 30", "64u | 2u << 30"),
    m(
        "queries' panels as far as keys'",
        ROWS,
        "k / 4 * (kRowsOfGroup * kPanel)",
        "k / 4 * S::kBlockPanelBytes",
    ),
    m(
        "window one key too wide",
        ROWS,
        "keys_up_to(query - window - key)",
        "keys_up_to(query - window - key - 1)",
    ),
    m("diagonal hidden", ROWS, "keys_up_to(min(query, ", "keys_up_to(min(query - 1, "),
    m("sink one key too long", ROWS, "keys_up_to(Spec::kSink - 1 - key)", "keys_up_to(Spec::kSink - key)"),
    m("sum not rescaled", ROWS, "row.sum * factor[half], 0.f", "row.sum, 0.f"),
    m("output of the second row not rescaled", ROWS, "out.scale(1, factor[1]);", ""),
    m("rows that saw nothing make NaN", ROWS, "peak[half] == neg_inf() ? 0.f : peak[half]", "peak[half]"),
    m(
        "rows past the chunk stored",
        ROWS,
        "row, chunk)), warp_row + row < count);",
        "row, chunk)), warp_row + row <= count);",
    ),
    m("log-sum-exp without its pitch", ROWS, "lse[(warp_row + row) * lse_pitch]", "lse[warp_row + row]"),
    m("result read before it is there", ROWS, "__syncwarp();", ""),
    m("result without a proxy fence", ATTEND, "async_proxy_fence();", ""),
    m(
        "queries given back before all lanes are done",
        ATTEND,
        "async_proxy_fence();\n    __syncwarp();",
        "async_proxy_fence();",
    ),
    m(
        "keys not waited for",
        ATTEND,
        "{ barrier_wait(shared.keys_full(keys.index()), keys.parity()); }",
        "{}",
    ),
    m("output of the item before kept", ATTEND, "rows.clear();", ""),
    m("warpgroup without rows multiplies", ATTEND, "if (count <= 0) {", "if (count < 0) {"),
    m(
        "log-sum-exp of the first warpgroup",
        ATTEND,
        "p.lse + row * p.lse_token",
        "p.lse + item.row * p.lse_token",
    ),
    m(
        "cut tile of the ring taken for full",
        WALK,
        "(ring_tiles - (cached % kTile != 0)) / 2",
        "ring_tiles / 2",
    ),
    m("left edge taken for full", WALK, "hidden = last - item.window;", "hidden = last - item.window - 1;"),
    m(
        "half at the left edge taken for full",
        WALK,
        "last - max(begin, Spec::kSink) < window;",
        "last - max(begin, Spec::kSink) <= window;",
    ),
    m(
        "band starts a tile early",
        WALK,
        "left = first - item.window + 1;",
        "left = first - item.window + 1 - kTile;",
    ),
    m(
        "band of the ring starts a tile late",
        WALK,
        "ring_band = max(left, Spec::kSink) / kTile;",
        "ring_band = (max(left, Spec::kSink) + kTile - 1) / kTile;",
    ),
    m(
        "sink of the chunk forgotten",
        WALK,
        "own_sink = max(min((Spec::kSink - cached + kBlock - 1)",
        "own_sink = max(min((Spec::kSink - cached)",
    ),
    m(
        "diagonal taken for full",
        WALK,
        "own_index(item.offset / kBlock);",
        "own_index(item.offset / kBlock + 1);",
    ),
    m(
        "own left edge taken for full",
        WALK,
        "own_index((hidden - cached) / kBlock + 1)",
        "own_index((hidden - cached) / kBlock)",
    ),
    m("first rows first", ITEMS, "(count - 1 - rest / heads)", "(rest / heads)"),
    m("counter not reset", ITEMS, "p.counters[0] = 0;", ""),
    m("an item skipped", ITEMS, "gridDim.x + ticket", "gridDim.x + ticket + 1"),
    m("fill swizzles over four rows", FILL, "(chunk % 8 ^ slot % 8)", "(chunk % 8 ^ slot % 4)"),
    m("fill forgets the oldest kept token", FILL, "position >= kept);", "position > kept);"),
    m("fill forgets the sink", FILL, "(position < Spec::kSink || position >= kept)", "(position >= kept)"),
    m(
        "fill reads V by K's strides",
        FILL,
        "(start * p.v_token + kv_head * p.v_head)",
        "(start * p.k_token + kv_head * p.k_head)",
    ),
    m("ring of tiles one too long", WINDOW, "(kv_span / kTile - kSinkTiles)", "(kv_span / kTile)"),
    m(
        "values not waited for",
        ATTEND,
        "barrier_wait(shared.values_full(values.index()), values.parity());",
        "",
    ),
    m(
        "scores not waited for",
        ATTEND,
        "pass_turn();\n      wgmma_wait<1>();",
        "pass_turn();\n      wgmma_wait<2>();",
    ),
    m("scores of a half not waited for", ATTEND, "wgmma_wait<0>();\n    settle(s);", "settle(s);"),
    m(
        "values given back before they are multiplied",
        ATTEND,
        "wgmma_wait<0>();\n      settle(rows.out);",
        "settle(rows.out);",
    ),
    m(
        "values of the lower half for the upper",
        ATTEND,
        "shared.values(values.index()) + half * S::kHalfPanelBytes",
        "shared.values(values.index())",
    ),
    m("keys of the next block taken for there", ATTEND, "keys_there = values_there = false;", ""),
    m("first turn not given", ATTEND, "named_barrier_arrive<1, 256>();\n#pragma", "\n#pragma"),
];
