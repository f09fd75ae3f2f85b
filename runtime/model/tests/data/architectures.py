"""Makes architectures.json: logits of tiny models of every architecture, as Hugging Face transformers computes them.

    python -m venv venv && venv/bin/pip install torch transformers==5.24.0
    venv/bin/python architectures.py > architectures.json

Weights are numbers that follow from a tensor's name, few enough bits of them that every element type holds them exactly; the
Rust test makes the same ones (runtime/model/src/tests/architectures.rs).
"""

import json
import sys

import torch
from transformers import AutoConfig, AutoModelForCausalLM

MASK = (1 << 64) - 1

BASE = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 4096,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}

CASES = {
    "llama-2": {"model_type": "llama", "num_key_value_heads": 4},
    "llama-3.1": {
        "model_type": "llama",
        "rope_theta": 500000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
    "llama-3.2": {"model_type": "llama", "head_dim": 32, "rope_theta": 500000.0, "tie_word_embeddings": True},
    "vicuna-16k": {
        "model_type": "llama",
        "num_key_value_heads": 4,
        "rope_scaling": {"type": "linear", "factor": 4.0},
    },
    "mistral": {"model_type": "mistral", "head_dim": 32, "sliding_window": None, "rope_theta": 1000000.0},
    "qwen2": {
        "model_type": "qwen2",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "sliding_window": 32,
        "use_sliding_window": False,
        "max_window_layers": 1,
        "tie_word_embeddings": True,
    },
    "qwen2-untied": {"model_type": "qwen2", "num_attention_heads": 6, "rope_theta": 10000.0},
    "qwen3": {
        "model_type": "qwen3",
        "head_dim": 32,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "attention_bias": False,
        "tie_word_embeddings": True,
    },
    "qwen3-untied": {
        "model_type": "qwen3",
        "head_dim": 16,
        "rope_parameters": {"rope_type": "default", "rope_theta": 20000.0},
        "layer_types": ["full_attention", "full_attention"],
    },
}

TOKENS = [(31 * i * i + 7 * i + 3) % 97 for i in range(70)]
ROWS = [0, 1, 37, 69]


def hash64(name):
    """FNV-1a."""
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = (value ^ byte) * 0x100000001B3 & MASK
    return value


def noise(seed, count):
    """Numbers in [-1, 1)."""
    state = (seed * 0x9E3779B97F4A7C15 & MASK) | 1
    out = []
    for _ in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) & MASK
        out.append((state >> 40) / (1 << 23) - 1.0)
    return torch.tensor(out, dtype=torch.float64)


def weight(name, shape):
    values = noise(hash64(name), shape.numel())
    if name.endswith("norm.weight"):
        values = 1 + torch.floor(values * 32) / 64
    elif name.endswith("embed_tokens.weight"):
        values = torch.floor(values * 64) / 64
    elif name.endswith(".bias"):
        values = torch.floor(values * 64) / 128
    else:
        values = torch.floor(values * 64) / 256
    return values.reshape(shape)


def run(name, changes):
    config = {**BASE, **changes}
    settings = dict(config)
    model_type = settings.pop("model_type")
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **settings), attn_implementation="eager")
    model = model.double().eval()
    with torch.no_grad():
        for tensor_name, tensor in model.named_parameters():
            tensor.copy_(weight(tensor_name, tensor.shape))
        logits = model(torch.tensor([TOKENS])).logits[0, ROWS]
    return {"name": name, "config": config, "logits": [[round(x, 7) for x in row] for row in logits.tolist()]}


def main():
    cases = [run(name, changes) for name, changes in CASES.items()]
    out = {"tokens": TOKENS, "rows": ROWS, "cases": cases}
    # A line for each case.
    text = ",\n".join(json.dumps(case, separators=(",", ":")) for case in out.pop("cases"))
    sys.stdout.write(json.dumps(out)[:-1] + ', "cases": [\n' + text + "\n]}\n")


main()
