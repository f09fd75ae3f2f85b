#!/usr/bin/env python3
"""The linear layers of a decode step beside cuBLAS on one GPU, in one run; a record for benches/results.

usage: linear_step.py OUT --commit COMMIT [--rows 1,2,4,8,16]
Compiles templates/include/moac/sm90/linear.cuh with the NVRTC that torch brings, checks it against float64 at the shapes
of several models, and times Llama-3-8B's: qkv with the norm in front, o added to the residual stream, gate_up with the
norm in front and the activation behind, down added, 32 layers of weights that take turns, in one CUDA graph with
dependent launch. cuBLAS (torch.mm and addmm) does the products and the additions of the same graph, but no norm and no
activation. The limit is the time in which a pass that only reads would read the weights, in the same run. Medians.
"""
import argparse
import ctypes
import glob
import json
import os
import re
import statistics
import sys

import torch

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
INCLUDE = os.path.join(ROOT, "templates", "include")
SITE = os.path.dirname(os.path.dirname(torch.__file__))
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("out")
parser.add_argument("--commit", required=True)
parser.add_argument("--rows", default="1,2,4,8,16")
args = parser.parse_args()
torch.zeros(1, device="cuda")
SMS = torch.cuda.get_device_properties(0).multi_processor_count
THREADS, COLUMNS = 320, 16
cuda = ctypes.CDLL("libcuda.so.1")
nvrtc = ctypes.CDLL(glob.glob(SITE + "/nvidia/**/libnvrtc.so.13", recursive=True)[0])
pointer, text = ctypes.c_void_p, lambda string: string.encode()


def call(function, *arguments):
    code = getattr(cuda if function.startswith("cu") else nvrtc, function)(*arguments)
    if code:
        raise RuntimeError(f"{function}: error {code}")


def function(source, symbol):
    """The function of a CUDA source, compiled and loaded."""
    program, size, module, found = pointer(), ctypes.c_size_t(), pointer(), pointer()
    call("nvrtcCreateProgram", ctypes.byref(program), text(source), b"kernel.cu", 0, None, None)
    options = ["--gpu-architecture=sm_90a", "--std=c++17", "--device-as-default-execution-space", "--include-path=" + INCLUDE]
    call("nvrtcCompileProgram", program, len(options), (ctypes.c_char_p * len(options))(*map(text, options)))
    call("nvrtcGetCUBINSize", program, ctypes.byref(size))
    cubin = ctypes.create_string_buffer(size.value)
    call("nvrtcGetCUBIN", program, cubin)
    call("cuModuleLoadData", ctypes.byref(module), cubin)
    call("cuModuleGetFunction", ctypes.byref(found), module, text(symbol))
    return found


class Params(ctypes.Structure):
    _fields_ = [(name, pointer) for name in ("x", "weights", "norm", "y")] + [("rows", ctypes.c_int), ("reserved", ctypes.c_int)]


class Attribute(ctypes.Structure):
    _fields_ = [("id", ctypes.c_int), ("pad", ctypes.c_int), ("value", ctypes.c_ubyte * 64)]


class Config(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint) for name in ("x", "y", "z", "threads", "threads_y", "threads_z", "shared")]
    _fields_ += [("stream", pointer), ("attributes", ctypes.POINTER(Attribute)), ("count", ctypes.c_uint)]


EARLY = Attribute(id=6)  # programmatic stream serialization
EARLY.value[0] = 1


class Linear:
    def __init__(self, depth, out, norm=False, add=False, activate=False, float_out=False, dtype=torch.bfloat16):
        self.depth, self.out, self.norm, self.add, self.activate = depth, out, norm, add, activate
        self.dtype, self.y_dtype = dtype, torch.float32 if float_out else dtype
        self.results = out // 2 if activate else out
        tiles = -(-self.results // (8 if activate else 16))
        self.grid = -(-tiles // -(-tiles // SMS))
        flags = f"kNorm = {norm:d}, kAdd = {add:d}, kActivate = {activate:d}, kFloatOut = {float_out:d}"
        element = "bf16" if dtype == torch.bfloat16 else "f16"
        # As the header counts them, which asserts it.
        chunks = -(-depth // 1024)
        stage = 16 * (-(-depth // (chunks * 256)) * 512 + 64) + 16
        self.shared = 203 * 1024 // stage * stage + 8 * 2 * 16 * 80 + (8 * 16 * 4 if norm else 0)
        self.function = function(
            f"""#include <moac/sm90/linear.cuh>
            struct Spec {{
              using Element = moac::{element};
              static constexpr int kThreads = {THREADS}, kSharedBytes = {self.shared}, kIn = {depth}, kOut = {out}, {flags};
              static constexpr float kEpsilon = 1e-5f;
            }};
            extern "C" __global__ void __launch_bounds__(Spec::kThreads)
            linear(const __grid_constant__ moac::glue::LinearParams p) {{ moac::sm90::linear<Spec>(p); }}
            """,
            "linear",
        )
        call("cuFuncSetAttribute", self.function, 8, self.shared)
        call("cuFuncSetAttribute", self.function, 9, 100)

    def __call__(self, x, weights, y, norm=None, rows=None):
        block = Params(x.data_ptr(), weights.data_ptr(), norm.data_ptr() if norm is not None else 0, y.data_ptr(), rows or len(x))
        stream = torch.cuda.current_stream().cuda_stream
        config = Config(self.grid, 1, 1, THREADS, 1, 1, self.shared, stream, ctypes.pointer(EARLY), 1)
        call("cuLaunchKernelEx", ctypes.byref(config), self.function, (pointer * 1)(ctypes.addressof(block)), None)

    def check(self, rows, repetitions=3):
        """The error against float64; the results of all repetitions have to be the same bits."""
        random = lambda *shape: torch.randn(*shape, device="cuda")
        x, weights = random(rows, self.depth).to(self.dtype), torch.empty(self.out, self.depth, device="cuda", dtype=self.dtype)
        weights.normal_(std=self.depth**-0.5)
        norm = (1 + 0.3 * random(self.depth)).to(self.dtype)
        expected = x.double()
        if self.norm:
            expected = expected * torch.rsqrt((expected**2).mean(1, keepdim=True) + 1e-5) * norm.double()
        expected = torch.cat([expected @ part.double().T for part in weights.split(16384)], 1)
        if self.activate:
            expected = torch.nn.functional.silu(expected[:, : self.results]) * expected[:, self.results :]
        # A row more than there is, which has to stay as it is.
        before = torch.full((rows + 1, self.results), float("nan"), device="cuda", dtype=self.y_dtype)
        if self.add:
            before[:rows] = random(rows, self.results)
            expected = expected + before[:rows].double()
        outputs = []
        for _ in range(repetitions):
            outputs.append(before.clone())
            torch.cuda.synchronize()
            self(x, weights, outputs[-1], norm, rows)
            torch.cuda.synchronize()
        y = outputs[0]
        assert all(torch.equal(y[:rows], other[:rows]) for other in outputs), "results differ from run to run"
        assert y[rows].isnan().all(), "wrote behind the last row"
        error = ((y[:rows].double() - expected).norm() / expected.norm()).item()
        # Without a rounding to the element type only float32's own is left.
        wide = self.y_dtype == torch.float32 and not self.norm
        limit = 1e-5 if wide else 4e-3 if self.dtype == torch.bfloat16 else 6e-4
        assert error < limit, f"depth {self.depth}, out {self.out}, {rows} rows: error {error:.2e}, expected below {limit:.0e}"
        return error


def graph_ms(run, repetitions=15):
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    taken = []
    for repetition in range(repetitions + 3):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        if repetition >= 3:
            taken.append(begin.elapsed_time(end))
    return round(statistics.median(taken), 4)


def read_gb_per_s(gib=4):
    source = re.search(r'READ_SOURCE: &str = r#"\n(.*?)"#', open(ROOT + "/runtime/src/gpu/ceiling.rs").read(), re.S).group(1)
    read = function(source, "moac_read_pass")
    data = torch.empty(gib << 29, dtype=torch.bfloat16, device="cuda").normal_()
    sink = torch.zeros(4, dtype=torch.int32, device="cuda")

    def run():
        values = [ctypes.c_ulonglong(value) for value in (data.data_ptr(), gib << 26, sink.data_ptr())]
        parameters = (pointer * 3)(*map(ctypes.addressof, values))
        stream = pointer(torch.cuda.current_stream().cuda_stream)
        call("cuLaunchKernel", read, SMS * 4, 1, 1, 512, 1, 1, 0, stream, parameters, None)

    return (gib << 30) / graph_ms(run) / 1e6


bf16, f16 = torch.bfloat16, torch.float16
HIDDEN, QKV, INNER, VOCAB, LAYERS = 4096, 6144, 14336, 128256, 32
OURS = {
    "qkv": Linear(HIDDEN, QKV, norm=True),
    "o": Linear(HIDDEN, HIDDEN, add=True),
    "gate_up": Linear(HIDDEN, 2 * INNER, norm=True, activate=True),
    "down": Linear(INNER, HIDDEN, add=True),
    "head": Linear(HIDDEN, VOCAB, float_out=True),
}
OTHERS = [
    Linear(576, 960, norm=True), Linear(576, 3072, norm=True, activate=True), Linear(1536, 576, add=True),
    Linear(896, 1152, norm=True), Linear(4864, 896, add=True), Linear(32, 2), Linear(1504, 1000, float_out=True, dtype=f16),
    Linear(1504, 1000, norm=True, activate=True, dtype=f16), Linear(HIDDEN, QKV, norm=True, dtype=f16), Linear(18944, 3584, add=True, dtype=f16),
]  # fmt: skip
errors = [linear.check(rows) for linear in [*OURS.values(), *OTHERS] for rows in (1, 2, 3, 7, 8, 9, 16)]
print(f"{len(errors)} checks against float64: the largest error is {max(errors):.2e}", flush=True)

read = read_gb_per_s()
weights = {
    name: [torch.empty(o.out, o.depth, device="cuda", dtype=bf16).normal_(std=o.depth**-0.5) for _ in range(LAYERS)]
    for name, o in OURS.items()
    if name != "head"
}
head, norm = torch.empty(VOCAB, HIDDEN, device="cuda", dtype=bf16).normal_(std=HIDDEN**-0.5), torch.ones(HIDDEN, device="cuda", dtype=bf16)
chain_bytes = sum(part.numel() * 2 for parts in weights.values() for part in parts)
measured = []
for rows in map(int, args.rows.split(",")):
    buffer = lambda width, dtype=bf16: torch.randn(rows, width, device="cuda").to(dtype)
    x, q, o, gate_up, h, logits = buffer(HIDDEN), buffer(QKV), buffer(HIDDEN), buffer(2 * INNER), buffer(INNER), buffer(VOCAB, torch.float32)
    low_logits = buffer(VOCAB)
    io = {"qkv": (x, q), "o": (o, x), "gate_up": (x, h), "down": (h, x)}
    ours = lambda name, layer: OURS[name](io[name][0], weights[name][layer], io[name][1], norm)
    cublas = {
        "qkv": lambda w: torch.mm(x, w.T, out=q), "o": lambda w: torch.addmm(x, o, w.T, out=x),
        "gate_up": lambda w: torch.mm(x, w.T, out=gate_up), "down": lambda w: torch.addmm(x, h, w.T, out=x),
    }  # fmt: skip
    theirs = lambda name, layer: cublas[name](weights[name][layer])
    chain = lambda one: graph_ms(lambda: [one(name, layer) for layer in range(LAYERS) for name in io])
    alone = lambda one: {name: round(graph_ms(lambda: [one(name, layer) for layer in range(LAYERS)]) / LAYERS * 1e3, 2) for name in io}
    cell = {"rows": rows, "ours_ms": chain(ours), "cublas_ms": chain(theirs), "ours_us": alone(ours), "cublas_us": alone(theirs)}
    cell["ours_us"]["head"] = round(graph_ms(lambda: OURS["head"](x, head, logits)) * 1e3, 1)
    cell["cublas_us"]["head"] = round(graph_ms(lambda: torch.mm(x, head.T, out=low_logits)) * 1e3, 1)
    measured.append(cell)
read = max(read, read_gb_per_s())
limit = chain_bytes / read / 1e6
for cell in measured:
    cell |= {"limit_ms": round(limit, 3), "share": round(limit / cell["ours_ms"], 4), "ratio": round(cell["cublas_ms"] / cell["ours_ms"], 4)}
    print(f"{cell['rows']:2} rows: {cell['ours_ms']:.3f} ms, {cell['share']:.3f} of reading; cuBLAS {cell['cublas_ms']:.3f}", cell["ours_us"], cell["cublas_us"])
worst = min(measured, key=lambda cell: cell["share"])
what = "linear layers of a decode step, 32 x (qkv, o, gate_up, down): the time of reading the weights over ours, the worst number of rows; peer is cuBLAS"
record = {"what": what, "gpu": torch.cuda.get_device_name(), "command": "benches/gpu/linear_step.py OUT " + " ".join(sys.argv[2:]), "commit": args.commit}
record |= {"ours": worst["ours_ms"], "peer": worst["cublas_ms"], "ratio": worst["share"], "cells": measured, "read_gb_per_s": round(read, 1)}
os.makedirs(args.out, exist_ok=True)
with open(os.path.join(args.out, "linear-step.json"), "w") as file:
    json.dump(record, file, indent=1)
    file.write("\n")
print(f"linear-step: {worst['share']:.3f}")
