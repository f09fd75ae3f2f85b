#!/usr/bin/env python3
"""moac's layers beside FlashAttention-3 on one GPU, in one run; a record in benches/results for each figure.

usage: beside_fa3.py MOAC PLAN.moac DENSE.moac OUT --commit COMMIT [--decode 1x1024,..] [--prefill 1x16384,..]
PLAN.moac is a plan of Llama-3-8B's shape, DENSE.moac the plan of its full spans, both bf16 for sm_90a and for the
contexts asked for. FA3 is PyPI's `fa3-fwd`. `moac bench` times all layers of a model, each with its own keys, in one
CUDA graph; FA3's launches stand in one graph too and take turns among buffers that exceed the L2 cache. Random data,
medians.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

import torch
from fa3_fwd_interface import flash_attn_func, flash_attn_with_kvcache

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("moac")
parser.add_argument("plan")
parser.add_argument("dense")
parser.add_argument("out")
parser.add_argument("--commit", required=True)
parser.add_argument("--decode", default="1x1024,1x4096,1x16384,4x1024,4x4096,4x16384,16x1024,16x4096,16x16384,64x1024,64x4096")
parser.add_argument("--prefill", default="8x1024,8x2048,1x8192,1x16384")
args = parser.parse_args()

HEADS, KV_HEADS, DIM, LAYERS = 32, 8, 128, 32
GPU = torch.cuda.get_device_name()
COMMAND = "benches/gpu/beside_fa3.py moac plan.moac dense.moac OUT " + " ".join(sys.argv[5:])
points = lambda text: [tuple(map(int, point.split("x"))) for point in text.split(",") if point]


def graph_us(run, launches, repetitions=15):
    """Microseconds of one call of `run`, out of a graph of `launches` of them."""
    run()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(launches):
            run()
    taken = []
    for _ in range(repetitions):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        taken.append(begin.elapsed_time(end) * 1e3 / launches)
    return statistics.median(taken)


def fa3_decode(batch, context):
    sets = max(1, min(16, int(4e8 / (batch * context * KV_HEADS * DIM * 4))))
    shape = (batch, context, KV_HEADS, DIM)
    caches = [[torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(2)] for _ in range(sets)]
    q = torch.randn(batch, 1, HEADS, DIM, device="cuda", dtype=torch.bfloat16)
    lengths = torch.full((batch,), context, dtype=torch.int32, device="cuda")
    turn = [0]

    def run():
        k, v = caches[turn[0] % sets]
        turn[0] += 1
        flash_attn_with_kvcache(q, k, v, cache_seqlens=lengths)

    return graph_us(run, 4 * sets if sets > 4 else 20)


def fa3_prefill(batch, context):
    q = torch.randn(batch, context, HEADS, DIM, device="cuda", dtype=torch.bfloat16)
    k, v = (torch.randn(batch, context, KV_HEADS, DIM, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return graph_us(lambda: flash_attn_func(q, k, v, causal=True), LAYERS)


def bench(artifact, phase, wanted):
    """Points by (batch, context), and the ceilings of their run: one run for each batch size."""
    found = {}
    for batch in sorted({batch for batch, _ in wanted}):
        contexts = ",".join(str(context) for b, context in wanted if b == batch)
        command = [args.moac, "bench", artifact, "--phase", phase, "--batch", str(batch), "--context", contexts, "--json"]
        result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        for point in result["points"]:
            found[point["batch"], point["context"]] = point, result["ceilings"]
    return found


def record(name, what, ours, peer, ratio, cells, **more):
    content = {"what": what, "gpu": GPU, "command": COMMAND, "commit": args.commit}
    content |= {"ours": ours, "peer": peer, "ratio": round(ratio, 4), "cells": cells, **more}
    with open(os.path.join(args.out, name + ".json"), "w") as file:
        json.dump(content, file, indent=1)
        file.write("\n")
    print(f"{name}: {ratio:.3f}", flush=True)


os.makedirs(args.out, exist_ok=True)
limits, fa3 = [], []
for (batch, context), (point, ceilings) in bench(args.plan, "decode", points(args.decode)).items():
    us, read = point["ms"] * 1e3 / LAYERS, ceilings["read_gb_per_s"]
    moved = point["gb_per_s"] * us * 1e3
    limit = 5 + moved / (0.96 * read * 1e3)
    peer = fa3_decode(batch, context)
    cell = {"batch": batch, "context": context, "us_a_layer": round(us, 2), "bytes_a_layer": round(moved)}
    limits.append(cell | {"limit_us": round(limit, 2), "ratio": round(us / limit, 3)})
    fa3.append(cell | {"fa3_dense_us": round(peer, 2), "ratio": round(us / peer, 3)})
    print(f"decode {batch} x {context}: {us:.2f} us a layer, limit {limit:.2f}; dense FA3 {peer:.2f}, {us / peer:.2f} of it", flush=True)
if limits:
    worst = max(limits, key=lambda cell: cell["ratio"])
    what = "decode: time of a layer (mean of 32) over 5 us + bytes / (0.96 x read bandwidth), the worst cell"
    record("decode-limit", what, worst["us_a_layer"], worst["limit_us"], worst["ratio"], limits, read_gb_per_s=read)
    singles = [cell for cell in fa3 if cell["batch"] == 1]
    worst = max(singles, key=lambda cell: cell["ratio"])
    what = "decode: time of a layer (mean of 32) over dense FA3's; the ratio is the worst of one request"
    record("decode-fa3-b1", what, worst["us_a_layer"], worst["fa3_dense_us"], worst["ratio"], fa3, read_gb_per_s=read)
names = {(8, 1024): "8x1k", (8, 2048): "8x2k", (1, 8192): "8k", (1, 16384): "16k"}
prefills = {plan: bench(file, "prefill", points(args.prefill)) for plan, file in (("plan", args.plan), ("dense", args.dense))}
for batch, context in points(args.prefill):
    peer = fa3_prefill(batch, context)
    flops = 2 * DIM * HEADS * batch * context * (context + 1)
    for plan, found in prefills.items():
        point, ceilings = found[batch, context]
        us = point["ms"] * 1e3 / LAYERS
        cell = {"batch": batch, "context": context, "us_a_layer": round(us, 1), "tflop_per_s": round(point["tflop_per_s"], 1)}
        cell |= {"fa3_dense_us": round(peer, 1), "fa3_tflop_per_s": round(flops / peer / 1e6, 1)}
        what = f"prefill, append included: dense FA3's time over ours, mean of 32 layers, {plan} of {batch} x {context}"
        name = names.get((batch, context), f"{batch}x{context}")
        record(f"prefill-{plan}-{name}", what, round(us, 1), round(peer, 1), peer / us, [cell], ceilings=ceilings)
