#!/usr/bin/env python3
"""One layer of an artifact on random input, by `moac exec` and by torch's SDPA with an explicit mask in float32.

usage: exec_vs_torch.py MOAC ARTIFACT [--device gpu|emulator|cpu]... [--tokens T] [--layer L]... [--distinct]
Four layers, the named ones, or one of every distinct kind.
Several devices are compared with each other too.
Exit status 1 if a relative Frobenius error is above the bound of the element type.
"""
import argparse
import json
import math
import subprocess
import tempfile

import torch
from safetensors.torch import load_file, save_file

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("moac")
parser.add_argument("artifact")
parser.add_argument("--device", action="append")
parser.add_argument("--tokens", type=int, default=1500)
parser.add_argument("--layer", type=int, action="append")
parser.add_argument("--distinct", action="store_true")
args = parser.parse_args()

with open(args.artifact, "rb") as file:
    header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
manifest = json.loads(header["__metadata__"]["moac"])["manifest"]
plan, geometry = manifest["plan"], manifest["geometry"]
model = plan["model"]
heads, kv_heads, dim = model["num_heads"], model["num_kv_heads"], model["head_dim"]
dtype, bound = {"bf16": (torch.bfloat16, 5e-3), "f16": (torch.float16, 1e-3)}[manifest["dtype"]]
scale = model.get("softmax_scale") or 1 / math.sqrt(dim)
where = "cuda" if torch.cuda.is_available() else "cpu"
torch.backends.cuda.matmul.allow_tf32 = False
torch.manual_seed(7)
failed = False


def expected(layer, bucket, q, k, v):
    spans = [layer["buckets"][bucket]["span"][group] for group in layer["group_of_head"]]
    t = q.shape[1]
    i, j = torch.arange(t, device=where)[:, None], torch.arange(t, device=where)[None]
    out = torch.empty(q.shape, device=where)
    for head, span in enumerate(spans):
        mask = (j <= i) & ((j < plan["sink"]) | (i - j < span - plan["sink"]))
        of = head // (heads // kv_heads)
        rows = [x[:, :, n].float().to(where) for x, n in ((q, head), (k, of), (v, of))]
        out[:, :, head] = torch.nn.functional.scaled_dot_product_attention(*rows, attn_mask=mask, scale=scale)
    return out


layers = geometry["layers"]
if args.distinct:
    kinds = {json.dumps([layer["group_of_head"], layer["buckets"]]): number for number, layer in enumerate(layers)}
    numbers = sorted(kinds.values())
else:
    numbers = args.layer or range(0, len(layers), max(1, len(layers) // 4))
for number in numbers:
    layer = geometry["layers"][number]
    lengths = geometry["lengths"]
    tokens = min(args.tokens, lengths[-1])
    bucket = next(n for n, length in enumerate(lengths) if length >= tokens)
    q = torch.randn(2, tokens, heads, dim).to(dtype)
    k, v = (torch.randn(2, tokens, kv_heads, dim).to(dtype) for _ in range(2))
    want = expected(layer, bucket, q, k, v)
    prompt = tokens - 20
    for phase, flags, first in (
        ("prefill", [], 0),
        ("prefill", ["--chunk", "333"], 0),
        ("decode", ["--prompt", str(prompt)], prompt),
    ):
        outputs = {}
        for device in args.device or ["gpu"]:
            with tempfile.TemporaryDirectory() as folder:
                save_file({"q": q, "k": k, "v": v}, f"{folder}/in.safetensors")
                command = [args.moac, "exec", args.artifact, "--layer", str(number), "--phase", phase, "--device", device]
                command += ["--inputs", f"{folder}/in.safetensors", "--outputs", f"{folder}/out.safetensors", *flags]
                ran = subprocess.run(command, stderr=subprocess.PIPE, text=True)
                if ran.returncode != 0:
                    raise SystemExit(f"{' '.join(command)}\n{ran.stderr}")
                outputs[device] = load_file(f"{folder}/out.safetensors")["o"].float().to(where)
        pairs = [(device, "torch", want[:, first:]) for device in outputs]
        base = next(iter(outputs))
        pairs += [(device, base, outputs[base]) for device in outputs if device != base]
        for device, other, reference in pairs:
            error = ((outputs[device] - reference).norm() / reference.norm()).item()
            ok = error <= bound
            failed |= not ok
            print(f"layer {number} {phase} {' '.join(flags)}, {device} against {other}: {error:.2e} ({'ok' if ok else 'WRONG'})")
raise SystemExit(failed)
