#!/usr/bin/env python3
"""Times dense attention of one layer by the peers, and sets `moac bench --json` beside it, in one run.

usage: peers.py MOAC ARTIFACT OUT.json [--context 16384]
Peers: FA2 through torch SDPA; FA3 (PyPI `fa3-fwd`) where it can be imported. Random data, medians of 21.
The bars: 32 layers of the plan's prefill at most 32 dense layers of FA2, none above 1.15 of one; decode at batch 32 at
70% of the read bandwidth or more.
"""
import argparse
import json
import statistics
import subprocess

import torch

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("moac")
parser.add_argument("artifact")
parser.add_argument("out")
parser.add_argument("--context", type=int, default=16384)
args = parser.parse_args()

with open(args.artifact, "rb") as file:
    header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
manifest = json.loads(header["__metadata__"]["moac"])["manifest"]
model = manifest["plan"]["model"]
dtype = {"bf16": torch.bfloat16, "f16": torch.float16}[manifest["dtype"]]


def median_ms(run, times=21):
    for _ in range(5):
        run()
    taken = []
    for _ in range(times):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        taken.append(begin.elapsed_time(end))
    return statistics.median(taken)


def dense(context):
    shape = lambda heads: (1, heads, context, model["head_dim"])
    q = torch.randn(shape(model["num_heads"]), device="cuda", dtype=dtype)
    k, v = (torch.randn(shape(model["num_kv_heads"]), device="cuda", dtype=dtype) for _ in range(2))
    peers = {}
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
        sdpa = torch.nn.functional.scaled_dot_product_attention
        peers["fa2"] = median_ms(lambda: sdpa(q, k, v, is_causal=True, enable_gqa=True))
    try:
        from fa3_fwd_interface import flash_attn_func
    except ImportError as error:
        print(f"no FA3 here: {error}")
    else:
        rows = [x.transpose(1, 2).contiguous() for x in (q, k, v)]
        peers["fa3"] = median_ms(lambda: flash_attn_func(*rows, causal=True))
    return peers


def bench(phase, batch, context):
    command = [args.moac, "bench", args.artifact, "--phase", phase, "--batch", batch, "--context", str(context), "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


before = dense(args.context)
prefill = bench("prefill", "1", args.context)
after = dense(args.context)
decode = bench("decode", "1,8,32", args.context)
peers = {name: (before[name] + after[name]) / 2 for name in before}
result = {"context": args.context, "peers_ms_per_layer": peers, "peers_before": before, "peers_after": after}
result |= {"prefill": prefill, "decode": decode}
with open(args.out, "w") as file:
    json.dump(result, file, indent=1)
layers = model["num_layers"]
for run in (prefill, decode):
    print(f"{run['device']}, {run['arch']}, {run['dtype']}; ceilings {run['ceilings']}")
print(f"dense layer: {before} before, {after} after")
for point in prefill["points"]:
    for peer, ms in peers.items():
        worst = max(layer["ms"] for layer in point["layers"]) / ms
        print(
            f"prefill of {point['context']}: {point['ms']:.2f} ms, {point['tflop_per_s']:.0f} TFLOP/s, "
            f"{point['ms'] / (layers * ms):.3f} of {layers} dense layers of {peer}; worst layer {worst:.3f}"
        )
for point in decode["points"]:
    share = "unknown" if point["share"] is None else f"{point['share']:.3f}"
    print(
        f"decode of {point['batch']} x {point['context']}: {point['ms']:.3f} ms, {point['gb_per_s']:.0f} GB/s, "
        f"share of the read bandwidth {share}"
    )
