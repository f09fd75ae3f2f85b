#!/usr/bin/env python3
"""Decode steps of a whole model beside vLLM on one GPU, in one run; a record in benches/results for each figure.

usage: beside_vllm.py MOAC CONFIG_DIR HALF.moac QUARTER.moac OUT --commit COMMIT [--vllm "COMMAND"] [--contexts 16384,4096]
HALF.moac and QUARTER.moac are plans of Llama-3-8B's shape that keep a half and a quarter of the KV bytes (kv_head_plan.py), bf16
for sm_90a, with the engine's kernels. COMMAND runs vLLM's side and is given CONFIG_DIR and cases as `16x16384` or `max16384`; its
last line of output is a JSON object {"cases": [{"batch", "prompt", "decode_step_ms", "decode_tok_s"}]}. Weights are random on
both sides. vLLM's time is that from step to step of its engine; ours is that of the loop, host included. The share of the limit
is that of a step in its graph.
"""
import argparse
import json
import os
import shlex
import subprocess
import sys

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("moac")
parser.add_argument("config")
parser.add_argument("half")
parser.add_argument("quarter")
parser.add_argument("out")
parser.add_argument("--commit", required=True)
parser.add_argument("--vllm", default="")
parser.add_argument("--contexts", default="16384,4096")
parser.add_argument("--rows", default="2048")
args = parser.parse_args()
CONTEXTS = [int(context) for context in args.contexts.split(",")]
# Of paths only the names: a record is of a command, not of a machine's folders.
WORDS = [os.path.basename(word) for argument in sys.argv[6:] for word in shlex.split(argument)]
COMMAND = " ".join(["benches/gpu/beside_vllm.py moac llama3-8b half.moac quarter.moac OUT", *WORDS])


def ours(artifact, batches):
    """What `moac bench --model` says, and its points by (batch, context); the largest batch also as "max"."""
    command = [args.moac, "bench", artifact, "--model", os.path.join(args.config, "config.json"), "--random-weights"]
    command += ["--batch", batches, "--context", args.contexts, "--rows", args.rows, "--profile", "--json"]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    points = {(point["batch"], point["context"]): point for point in found["points"]}
    for fits in found["fits"]:
        points["max", fits["context"]] = points.get((fits["batch"], fits["context"]))
    return found, points


def vllm():
    """vLLM's cases by (batch, context), likewise."""
    if not args.vllm:
        return {}
    asked = [(batch, context) for context in CONTEXTS for batch in (1, 16, "max")]
    command = shlex.split(args.vllm) + [args.config] + [f"{batch}x{context}" for batch, context in asked]
    log = subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout
    with open(os.path.join(args.out, "vllm.log"), "w") as file:
        file.write(log)
    cases = json.loads(log.strip().splitlines()[-1])["cases"]
    return {key: case for key, case in zip(asked, cases) if "decode_step_ms" in case}


def record(name, what, ours, peer, ratio, **more):
    content = {"what": what, "gpu": half["device"], "command": COMMAND, "commit": args.commit}
    content |= {"ours": ours, "peer": peer, "ratio": round(ratio, 4), **more}
    with open(os.path.join(args.out, name + ".json"), "w") as file:
        json.dump(content, file, indent=1)
        file.write("\n")
    print(f"{name}: {ratio:.3f}", flush=True)


os.makedirs(args.out, exist_ok=True)
half, half_points = ours(args.half, "1,16,max")
quarter, quarter_points = ours(args.quarter, "1,16,max")
for name, found in (("half", half), ("quarter", quarter)):
    with open(os.path.join(args.out, f"bench-{name}.json"), "w") as file:
        json.dump(found, file, indent=1)
peer = vllm()
longest = max(CONTEXTS)
cells = []
for name, points in (("half", half_points), ("quarter", quarter_points)):
    for (batch, context), point in points.items():
        if point is None:
            continue
        cell = {"plan": name, "batch": point["batch"], "context": context, "largest": batch == "max"}
        cell |= {key: round(point[key], 4) for key in ("step_ms", "loop_ms", "tokens_per_s", "limit_ms", "share")}
        beside = peer.get((batch, context))
        if beside:
            cell |= {"vllm_batch": beside["batch"], "vllm_step_ms": beside["decode_step_ms"], "vllm_tokens_per_s": beside["decode_tok_s"]}
            cell["ratio"] = round(point["tokens_per_s"] / beside["decode_tok_s"], 3)
        cells.append(cell)
        print(cell, flush=True)
largest = {"half": half_points["max", longest], "quarter": quarter_points["max", longest]}
common = {"ceilings": half["ceilings"], "cells": cells}
for key, name in ((1, "b1"), (16, "b16"), ("max", "max")):
    point = half_points.get((key, longest))
    if point:
        what = f"a decode step's limit over its time: plan of half the KV bytes, batch {point['batch']} at {longest}"
        record(f"engine-step-{name}", what, point["step_ms"], point["limit_ms"], point["share"], profile=point.get("profile"), **common)
for name, point in largest.items():
    beside = peer.get(("max", longest))
    if point and beside:
        what = f"tokens/s over vLLM's at {longest}, the largest batch of each: {point['batch']} with {name} of the KV bytes, {beside['batch']}"
        record(f"engine-vllm-{name}-16k", what, point["tokens_per_s"], beside["decode_tok_s"], point["tokens_per_s"] / beside["decode_tok_s"], **common)
single, beside = half_points.get((1, longest)), peer.get((1, longest))
if single and beside:
    what = f"tokens/s over vLLM's at {longest}, one request, plan of half the KV bytes"
    record("engine-vllm-b1-16k", what, single["tokens_per_s"], beside["decode_tok_s"], single["tokens_per_s"] / beside["decode_tok_s"], **common)
