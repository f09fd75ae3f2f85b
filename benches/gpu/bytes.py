#!/usr/bin/env python3
"""The bytes that kernels read, as the profiler of a GPU counts them, beside what the emulator counts.

usage: bytes.py MOAC ARTIFACT [--context 16384], an artifact of portable kernels (`--arch sm_90`)
Decode of one request, every layer: DRAM reads, of caches that the profiler empties before each launch, against K and V
as the emulator counts them, and q. Prefill: sectors read from L2, against the tiles that each CTA walks, a rule that
the emulator's counts of single CTAs are checked with first. Sectors are shown both of all units and of the SMs alone:
decode's cross from one half of L2 to the other too, and L1 answers some of what the SMs ask for twice.
Exit status 1 if a sum differs by more than 2%.
"""
import argparse
import csv
import json
import subprocess

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("moac")
parser.add_argument("artifact")
parser.add_argument("--context", type=int, default=16384)
args = parser.parse_args()

SECTORS, DRAM = "lts__t_sectors_srcunit_tex_op_read.sum", "dram__bytes_read.sum"
ALL_SECTORS = "lts__t_sectors_op_read.sum"
with open(args.artifact, "rb") as file:
    header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
manifest = json.loads(header["__metadata__"]["moac"])["manifest"]
plan, geometry = manifest["plan"], manifest["geometry"]
layers = geometry["layers"]
row_bytes = 2 * plan["model"]["head_dim"]
bucket = next(n for n, length in enumerate(geometry["lengths"]) if length >= args.context)
tile_m = next(kernel for kernel in manifest["kernels"] if kernel["phase"] == "prefill")["launch"]["grid"]["tiles"]["rows"]
bench = ["bench", args.artifact, "--batch", "1", "--context", str(args.context), "--phase"]


def emulated(phase):
    output = subprocess.run([args.moac, *bench, phase, "--emulate", "--json"], check=True, stdout=subprocess.PIPE).stdout
    return json.loads(output)


def profiled(phase, launches):
    command = ["ncu", "--clock-control", "none", "--csv", "--print-units", "base", "-k", f"regex:moac_{phase}"]
    command += ["--launch-count", str(launches), "--metrics", f"{SECTORS},{ALL_SECTORS},{DRAM}"]
    output = subprocess.run([*command, args.moac, *bench, phase], check=True, stdout=subprocess.PIPE, text=True).stdout
    table = output[output.index('"ID"') :].splitlines()
    found = {}
    for row in csv.DictReader(line for line in table if line.startswith('"')):
        found.setdefault(int(row["ID"]), {})[row["Metric Name"]] = float(row["Metric Value"].replace(",", ""))
    return [found[number] for number in sorted(found)]


def walked(rows, span):
    """Bytes of K and V, and of q, of the CTA of some query rows of a head with a span."""
    sink = plan["sink"]
    start, end = rows
    tiles = set(range(0, min(sink, end), 64)) | set(range(max(0, start + 1 - (span - sink)) // 64 * 64, end, 64))
    keys = sum(min(64, args.context - tile) for tile in tiles)
    return 2 * keys * row_bytes, (end - start) * row_bytes


def spans(layer):
    return [layer["buckets"][bucket]["span"][group] for group in layer["group_of_head"]]


def compare(name, metric, unit, expected, found):
    ratio = [unit * launch[metric] / bytes for launch, bytes in zip(found, expected, strict=True)]
    total = unit * sum(launch[metric] for launch in found) / sum(expected)
    of = {m: sum(launch[m] for launch in found) for m in (SECTORS, ALL_SECTORS, DRAM)}
    ok = abs(total - 1) <= 0.02
    print(
        f"{name}: {sum(expected)} bytes expected of {len(expected)} layers; {metric} is {total:.4f} of it, "
        f"layers {min(ratio):.4f} to {max(ratio):.4f} ({'ok' if ok else 'WRONG'}); "
        f"L2 to SMs {32 * of[SECTORS]:.0f}, L2 to all {32 * of[ALL_SECTORS]:.0f}, DRAM {of[DRAM]:.0f} bytes"
    )
    return ok


decode, asked = {}, 0
for it in emulated("decode"):
    assert not it["failures"], it["failures"]
    for layer in it["layers"]:
        decode[layer] = it["kv_bytes"] + plan["model"]["num_heads"] * row_bytes
        asked += it["kv_bytes"] + it["q_bytes"] + it["partials_bytes"] // 2
print(f"decode: {asked} bytes asked for by all warps, q and split results included")
ok = compare("decode", DRAM, 1, [decode[number] for number in range(len(layers))], profiled("decode", len(layers)))

last = (args.context - 1) // tile_m * tile_m, args.context
for it in emulated("prefill"):
    assert not it["failures"], it["failures"]
    layer = layers[it["layers"][0]]
    groups = sorted(set(layer["group_of_head"]))
    of = sorted((layer["buckets"][bucket]["span"][group] for group in groups), reverse=True)[: it["ctas"]]
    rule = [sum(parts) for parts in zip(*(walked(last, span) for span in of))]
    found = [it["kv_bytes"], it["q_bytes"]]
    if rule != found:
        print(f"{it['kernel']}: the rule says {rule} bytes, the emulator {found}")
        ok = False
prefill = []
for layer in layers:
    tiles = [(at, min(at + tile_m, args.context)) for at in range(0, args.context, tile_m)]
    prefill.append(sum(sum(walked(rows, span)) for span in spans(layer) for rows in tiles))
# Every layer's attention is followed by its append.
ok &= compare("prefill", ALL_SECTORS, 32, prefill, profiled("prefill", 2 * len(layers))[::2])
raise SystemExit(not ok)
