//! Defects of the portable kernels.

use super::table::{Mutant, Survivor, Table, m};

const ATTEND: &str = "moac/sm80/prefill.cuh";
const FILL: &str = "moac/sm80/fill.cuh";
const STEP: &str = "moac/sm80/decode.cuh";
const SPLIT: &str = "moac/sm80/split.cuh";
const COMBINE: &str = "moac/sm80/combine.cuh";
const WINDOW: &str = "moac/window.cuh";
const TILE: &str = "moac/tile.cuh";
const SOFTMAX: &str = "moac/softmax.cuh";
const PTX: &str = "moac/ptx.cuh";

/// Defects that prefill, its fill included, must show.
pub(crate) const PREFILL: Table = Table {
    mutants: OF_PREFILL,
    survivors: &[Survivor {
        name: "sink one key short",
        why: "prefill asks key by key only in tiles that the diagonal or a window's edge cuts, and where the diagonal cuts \
              the sink its last key is in the window too",
    }],
};

/// Defects that decode must show.
pub(crate) const DECODE: Table = Table {
    mutants: OF_DECODE,
    survivors: &[Survivor {
        name: "place in the workspace mixed up",
        why: "writer and reader agree on it, and a range that begins with a split KV head holds no other split segment, so \
              the place it takes is free",
    }],
};

const OF_PREFILL: &[Mutant] = &[
    m(
        "first barrier removed",
        ATTEND,
        "__syncthreads();  // K(n) has arrived; K(n-1) and V(n-1) are done with",
        "",
    ),
    m("second barrier removed", ATTEND, "__syncthreads();  // V(n) has arrived", ""),
    m("wait for K removed", ATTEND, "copy_wait<0>();", ""),
    m("wait for V one group short", ATTEND, "copy_wait<1>();", "copy_wait<2>();"),
    m(
        "V committed with the next K",
        ATTEND,
        "values.load(value_tile, tile);\n    copy_commit();",
        "values.load(value_tile, tile);",
    ),
    m("next K never committed in its turn", ATTEND, "walk[n + 1]);\n    copy_commit();", "walk[n + 1]);"),
    m("next K into the buffer in use", ATTEND, "(n + 1) % 2 * kTileBytes", "n % 2 * kTileBytes"),
    m(
        "scores from the other buffer",
        ATTEND,
        "key_tiles + n % 2 * kTileBytes);\n      if",
        "key_tiles + (n + 1) % 2 * kTileBytes);\n      if",
    ),
    m(
        "V tile one row too low",
        ATTEND,
        "key_tiles + 2 * kTileBytes",
        "key_tiles + 2 * kTileBytes - kRowBytes",
    ),
    m("one row past the chunk's end", ATTEND, "position + row < end)", "position + row <= end)"),
    m("first chunk row taken from the ring", ATTEND, "position + row < cached", "position + row <= cached"),
    m("next tile of keys skipped", ATTEND, "walk[n + 1]);", "walk[n + 1] + (n == 1));"),
    m("boundary mask missing", ATTEND, "if (seen == Sight::kSome) Warp::mask", "if (false) Warp::mask"),
    m("mask row of the second half off", ATTEND, "(j >> 1) * 8;", "(j >> 1) * 7;"),
    m(
        "output not rescaled",
        ATTEND,
        "out[atom].scale(half, softmax[atom][half].update(s[atom], half, Spec::kScaleLog2));",
        "softmax[atom][half].update(s[atom], half, Spec::kScaleLog2);",
    ),
    m("store barrier removed", ATTEND, "__syncwarp();", ""),
    m("rows past the chunk stored", ATTEND, "if (row < count)\n", "if (row <= count)\n"),
    m("a row of queries missing", ATTEND, "16, row < count);", "16, row + 1 < count);"),
    m("sum not added over the quad", ATTEND, "quad_sum(s.sum)", "s.sum"),
    m(
        "first rows of the chunk twice",
        ATTEND,
        "(gridDim.x - 1 - blockIdx.x)",
        "(gridDim.x - 1 - max(blockIdx.x, 1u))",
    ),
    m("KV head of another group", ATTEND, "head / (Spec::kHeads / Spec::kKvHeads)", "head % Spec::kKvHeads"),
    m("fill forgets the oldest kept token", FILL, "position < kept", "position <= kept"),
    m("fill writes a slot twice", FILL, "if (position >= Spec::kSink && position < kept) continue;", ""),
    m("fill keeps one token too many", FILL, "position < kept", "position < kept - 1"),
    m(
        "fill reads V from K's rows",
        FILL,
        "(v + token * p.v_token * 2 + byte)",
        "(k + token * p.v_token * 2 + byte)",
    ),
    m("window one key too wide", WINDOW, "|| i - j < window)", "|| i - j <= window)"),
    m("diagonal hidden", WINDOW, "return j <= i && (j <", "return j < i + (i == 0) && (j <"),
    m("sink forgotten", WINDOW, "(j < Spec::kSink || i - j < window)", "(i - j < window)"),
    m("sink one key short", WINDOW, "(j < Spec::kSink ||", "(j < Spec::kSink - 1 ||"),
    m("left edge taken for fully visible", WINDOW, "last - begin < window)", "last - begin <= window)"),
    m("empty tile computed", WINDOW, "first - end >= window)", "first - end > window)"),
    m("needed tile skipped", WINDOW, "begin > last ||", "begin > last - 16 ||"),
    m(
        "band starts a tile late",
        WINDOW,
        "max(left, Spec::kSink) / kTile;",
        "max(left, Spec::kSink) / kTile + 1;",
    ),
    m("band starts a tile early", WINDOW, "first - window + 1;", "max(first - window - 63, 0);"),
    m("ring of tiles one too long", WINDOW, "(kv_span / kTile - kSinkTiles)", "(kv_span / kTile)"),
    m(
        "V ring off by a tile",
        WINDOW,
        "v = k + row_bytes * kv_span;",
        "v = k + row_bytes * (kv_span - kTile);",
    ),
    m("ring of the next KV head", WINDOW, "row_bytes * prefix[kv_head]", "row_bytes * prefix[kv_head + 1]"),
    m("layer base of the first bucket", WINDOW, "p.layer_base[bucket]", "p.layer_base[0]"),
    m("span of the first head group", WINDOW, "span[Spec::kGroupOfHead[head]]", "span[0]"),
    m("K fragment halves swapped", TILE, "2 * k + ((lane >> 3) & 1)", "2 * k + ((lane >> 4) & 1)"),
    m("V fragment columns off", TILE, "2 * n + (lane >> 4)));\n  }\n};", "2 * n + (lane >> 5)));\n  }\n};"),
    m("no swizzle", TILE, "((chunk ^ (row & 7)) << 4)", "(chunk << 4)"),
    m("maximum over half a quad", TILE, "return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));", "return x;"),
    m("sum not rescaled", SOFTMAX, "sum *= factor;", ""),
    m("log-sum-exp in base 2", SOFTMAX, "log2_fast(sum)) * kLn2", "log2_fast(sum))"),
    m("zero fill lost", PTX, "const int bytes = valid ? 16 : 0;", "const int bytes = 16;"),
];

const OF_DECODE: &[Mutant] = &[
    m("arrival barrier removed", STEP, "__syncwarp();  // every lane's part of the tile has arrived", ""),
    m("reuse barrier removed", STEP, "__syncwarp();  // the stage may be written again", ""),
    m("wait one stage short", STEP, "copy_wait<Spec::kStages - 1>();", "copy_wait<Spec::kStages>();"),
    m("stage never committed", STEP, "    copy_commit();\n  };", "  };"),
    m("one stage too many in flight", STEP, "i < Spec::kStages - 1; ++i)", "i < Spec::kStages; ++i)"),
    m(
        "stage index out of step",
        STEP,
        "stage = stage + 1 == Spec::kStages ? 0 : stage + 1;\n    }",
        "stage = stage + 2 >= Spec::kStages ? 0 : stage + 1;\n    }",
    ),
    m(
        "new token read from the ring",
        STEP,
        "const bool fresh = base + row == new_slot,",
        "const bool fresh = false,",
    ),
    m("one slot past the length", STEP, "valid = base + row < length;", "valid = base + row <= length;"),
    m("new token not appended", STEP, "      stream.append(keys, tile, warp);\n", ""),
    m(
        "new token appended one slot on",
        STEP,
        "static_cast<i64>(new_slot) * T::kRowBytes",
        "static_cast<i64>(new_slot + 1) * T::kRowBytes",
    ),
    m(
        "V of the new token not appended",
        STEP,
        "if (lane >= 2 * T::kChunks) return;",
        "if (lane >= T::kChunks) return;",
    ),
    m("age wraps at the whole ring", STEP, "behind + ring.kv_span - Spec::kSink;", "behind + ring.kv_span;"),
    m(
        "mask skipped a token early",
        STEP,
        "oldest < smallest_window)) return;",
        "oldest <= smallest_window)) return;",
    ),
    m(
        "wrap inside a tile not seen",
        STEP,
        "const bool wraps = first <= stream.new_slot && stream.new_slot < last;",
        "const bool wraps = false;",
    ),
    m(
        "window one token too wide",
        STEP,
        "stream.age(slot) < window[j >> 1]",
        "stream.age(slot) <= window[j >> 1]",
    ),
    m("windows of the two rows swapped", STEP, "window[j >> 1]);", "window[1 - (j >> 1)]);"),
    m(
        "unwritten slots not hidden",
        STEP,
        "const bool seen = slot < stream.length && (",
        "const bool seen = (",
    ),
    m(
        "queries not waited for",
        STEP,
        "    __syncwarp();\n#pragma unroll\n    for (int k",
        "#pragma unroll\n    for (int k",
    ),
    m("queries past the group", STEP, "min(lane & 15, kGroup - 1), 2 * k", "lane & 15, 2 * k"),
    m("smallest window ignores the others", STEP, "row < kGroup; ++row", "row < 1; ++row"),
    m(
        "output not rescaled",
        STEP,
        "out.scale(half, softmax[half].update(s, half, Spec::kScaleLog2));",
        "softmax[half].update(s, half, Spec::kScaleLog2);",
    ),
    m(
        "last tile of a request dropped",
        SPLIT,
        "min((length + kTile - 1) / kTile,",
        "min(length / kTile + (length < kTile),",
    ),
    m(
        "steady-state table one KV head short",
        SPLIT,
        "tile_prefix[Spec::kKvHeads];",
        "tile_prefix[Spec::kKvHeads - 1];",
    ),
    m(
        "empty request counted",
        SPLIT,
        "request >= p.batch || p.chunk[request] == 0) return 0;",
        "request >= p.batch) return 0;",
    ),
    m(
        "range ends a tile early",
        SPLIT,
        "min(end - origin, tiles), tiles",
        "min(end - origin, tiles) - (end - origin < tiles && end - origin > 1), tiles",
    ),
    m(
        "part of a tile off by one",
        SPLIT,
        "static_cast<i64>(tile + 1) * parts - 1)",
        "static_cast<i64>(tile + 1) * parts)",
    ),
    m("scan forgets a step", SPLIT, "step = 1; step < 32; step *= 2", "step = 2; step < 32; step *= 2"),
    m("meeting barrier removed", COMBINE, "put(out, softmax);\n    __syncthreads();", "put(out, softmax);"),
    m("areas reused too soon", COMBINE, "__syncthreads();  // the areas are free again", ""),
    m(
        "arrival before all have written",
        COMBINE,
        "__syncthreads();  // all of the CTA's results are written",
        "",
    ),
    m("never the last", COMBINE, "arrive_at(counter) == splits - 1;", "arrive_at(counter) == splits;"),
    m(
        "second to last is last",
        COMBINE,
        "arrive_at(counter) == splits - 1;",
        "arrive_at(counter) == splits - 2;",
    ),
    m("counter not reset", COMBINE, "if (last) *counter = 0;", ""),
    m("counter of another KV head", COMBINE, "Spec::kKvHeads + s.kv_head;", "Spec::kKvHeads;"),
    m(
        "place in the workspace mixed up",
        COMBINE,
        "ranges.begin(part) >= s.origin ? 0 : 1",
        "ranges.begin(part) > s.origin ? 0 : 1",
    ),
    m("one place for both ends", COMBINE, "2 * part + (ranges.begin(part) >= s.origin ? 0 : 1)", "2 * part"),
    m("state of the wrong row", COMBINE, "(place * kGroup + row) * 2;", "(place * kGroup) * 2;"),
    m("last split left out", COMBINE, "part <= last; ++part", "part < last; ++part"),
    m("a warp left out", COMBINE, "warp < Spec::kWarps; ++warp", "warp < Spec::kWarps - 1; ++warp"),
    m("rows that saw nothing make NaN", COMBINE, "if (next == neg_inf()) return;", ""),
    m("arrival without release", PTX, "atom.add.acq_rel.gpu.global.u32", "atom.add.relaxed.gpu.global.u32"),
    m(
        "peak of an unseen row subtracted",
        SOFTMAX,
        "next == neg_inf() ? 0.f : next * scale_log2",
        "next * scale_log2",
    ),
    m(
        "V ring off by a tile",
        WINDOW,
        "v = k + row_bytes * kv_span;",
        "v = k + row_bytes * (kv_span - kTile);",
    ),
    m("slot of a ring one too long", WINDOW, "% (kv_span - Spec::kSink);", "% kv_span;"),
    m("zero fill lost", PTX, "const int bytes = valid ? 16 : 0;", "const int bytes = 16;"),
];
