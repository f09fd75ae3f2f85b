"""Makes encodings.safetensors: random blocks of every quantised type of GGUF files and what gguf-py decodes them to.

    python -m venv venv && venv/bin/pip install gguf==0.19.0 safetensors numpy
    venv/bin/python encodings.py encodings.safetensors
"""

import sys

import gguf
import numpy as np
from gguf.quants import dequantize
from safetensors.numpy import save_file

ELEMENTS = 512

# Where a block has its float16 scales.
SCALES = {
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q8_0": [0],
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
}


def main():
    random = np.random.default_rng(1)
    tensors = {}
    for name, places in SCALES.items():
        kind = gguf.GGMLQuantizationType[name]
        block, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = random.integers(0, 256, (ELEMENTS // block, size), dtype=np.uint8)
        for place in places:
            scales = random.uniform(-0.1, 0.1, len(blocks)).astype(np.float16)
            blocks[:, place : place + 2] = scales.view(np.uint8).reshape(-1, 2)
        tensors[name] = blocks
        tensors[f"{name}.decoded"] = dequantize(blocks, kind).astype(np.float32).reshape(-1)
    save_file(tensors, sys.argv[1])


main()
