#!/usr/bin/env python3
"""A plan with one rule for each KV head and a given share of the KV bytes, out of a published plan with a rule for each head.

usage: kv_head_plan.py PUBLISHED.json CONFIG.json DENSITY OUT.json
Each KV head keeps a share of the context, the same at every length: that which its longest head has at 16,384 tokens in the
published plan, times the largest factor with which all together keep at most DENSITY at 4,096 and at 16,384 tokens, spans
rounded up to tiles. Both plans see the same layers and heads as important.
"""
import json
import sys

CONTEXT = 16384
CONTEXTS = (4096, CONTEXT)
TILE = 64


def main(published, config, density, out):
    rules, model = json.load(open(published)), json.load(open(config))
    heads, kv_heads = model["num_attention_heads"], model["num_key_value_heads"]
    group = heads // kv_heads
    span = lambda alpha, beta: min(CONTEXT, max(128, alpha + beta * CONTEXT))
    shares = []
    for alphas, betas in zip(rules["alphas"], rules["betas"]):
        spans = [span(alpha, beta) / CONTEXT for alpha, beta in zip(alphas, betas)]
        shares.append([max(spans[kv * group:(kv + 1) * group]) for kv in range(kv_heads)])
    every = [share for layer in shares for share in layer]
    kept = lambda share, context: min(context, max(128, -(-int(share * context) // TILE) * TILE)) / context
    low, high = 0.0, 1e6
    for _ in range(200):
        factor = (low + high) / 2
        means = [sum(kept(min(1, factor * share), context) for share in every) / len(every) for context in CONTEXTS]
        low, high = (factor, high) if max(means) <= density else (low, factor)
    betas = [[min(1, low * share) for share in layer for _ in range(group)] for layer in shares]
    shape = {"name": "llama-3-8b", "num_layers": model["num_hidden_layers"], "num_heads": heads, "num_kv_heads": kv_heads}
    shape |= {"head_dim": model.get("head_dim") or model["hidden_size"] // heads, "rope_theta": model["rope_theta"]}
    shape["context"] = model["max_position_embeddings"]
    plan = {"format": "moac.plan/1", "model": shape, "sink": 64, "min_span": 128}
    plan |= {"alphas": [[0] * heads for _ in betas], "betas": betas}
    json.dump(plan, open(out, "w"))


if __name__ == "__main__":
    published, config, density, out = sys.argv[1:]
    main(published, config, float(density), out)
