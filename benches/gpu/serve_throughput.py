#!/usr/bin/env python3
"""`moac serve` under many streaming clients beside the engine alone, on one GPU, in one run: two records for benches/results.

usage: serve_throughput.py MOAC CONFIG_DIR ARTIFACT OUT --commit COMMIT
ARTIFACT is a plan of Llama-3-8B's shape that keeps half the KV bytes (kv_head_plan.py), compiled for contexts of 4,096 and 16,384
tokens with the engine's kernels. The weights are random; the tokenizer, which such a folder lacks, is made here. Clients are raw
sockets in this process; each sends a prompt of tokens and reads its answer as it comes.

1. All clients decode and nothing else happens: tokens/s, beside those of `moac bench --model` at the same batch and context.
2. Long prompts arrive meanwhile, one every other second: the time between tokens of the clients, at p99 and at the median.
"""
import argparse
import asyncio
import gc
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("moac")
parser.add_argument("config")
parser.add_argument("artifact")
parser.add_argument("out")
parser.add_argument("--commit", required=True)
parser.add_argument("--device", default="gpu", help="cpu tries the script itself: there is nothing to compare with then")
parser.add_argument("--clients", type=int, default=64)
parser.add_argument("--prompt", type=int, default=2048)
parser.add_argument("--tokens", type=int, default=2040)
parser.add_argument("--long", type=int, default=16000, help="tokens of a prompt that arrives")
parser.add_argument("--arrivals", type=int, default=6)
parser.add_argument("--every", type=float, default=2.0)
parser.add_argument("--quiet", type=float, default=5.0, help="seconds without arrivals")
parser.add_argument("--chunk", type=int, default=256)
args = parser.parse_args()
VOCAB = json.load(open(os.path.join(args.config, "config.json")))["vocab_size"]
LANES = args.clients + 8


def folder():
    """The model's folder: its configuration without a token that ends answers, and a tokenizer with a word for each token."""
    path = os.path.join(args.out, "llama3-8b")
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    config = json.load(open(os.path.join(args.config, "config.json")))
    config.pop("eos_token_id", None)
    json.dump(config, open(os.path.join(path, "config.json"), "w"))
    # Bytes as byte-level tokenizers spell them, then words behind a space.
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = [byte for byte in range(256) if byte not in plain]
    vocab = [chr(byte) for byte in plain] + [chr(256 + at) for at in range(len(other))]
    vocab += [f"\u0120w{number}" for number in range(VOCAB - len(vocab))]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "vocab": {word: number for number, word in enumerate(vocab)}, "merges": []}
    tokenizer = {"version": "1.0", "added_tokens": [], "pre_tokenizer": level, "decoder": level, "model": model}
    json.dump(tokenizer, open(os.path.join(path, "tokenizer.json"), "w"))
    return path


class Answer(asyncio.Protocol):
    """A streamed answer: when each token came. Nothing is parsed before the end, so that the clients cost little."""

    def __init__(self, prompt, tokens):
        body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True}
        body = json.dumps(body | {"stream_options": {"include_usage": True}}).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
        self.request, self.prompt = head.encode() + body, len(prompt)
        self.times, self.text = [], b""
        self.begun, self.done = asyncio.Event(), asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.sent = time.perf_counter()
        transport.write(self.request)

    def data_received(self, data):
        now = time.perf_counter()
        new = (self.text[-6:] + data).count(b"data: {")
        self.text = (self.text + data)[-4096:]
        self.times += [now] * new
        if new:
            self.begun.set()

    def connection_lost(self, _):
        # Behind the tokens: the reason of the end, and how many tokens there were.
        found = re.search(rb'"completion_tokens":(\d+)', self.text)
        self.begun.set()
        if found is None or b"[DONE]" not in self.text:
            self.done.set_exception(RuntimeError(f"an answer was cut off: {self.text[-300:]}"))
            return
        tokens = int(found.group(1))
        self.times = self.times[:tokens]
        # A token that completes no character has no event: there is none with the tokenizer above.
        if len(self.times) < tokens:
            self.done.set_exception(RuntimeError(f"{tokens} tokens in {len(self.times)} events"))
            return
        self.done.set_result(tokens)


async def ask(port, prompt, tokens):
    tokens_of_prompt = [random.randrange(256, VOCAB) for _ in range(prompt)]
    _, answer = await asyncio.get_running_loop().create_connection(lambda: Answer(tokens_of_prompt, tokens), "127.0.0.1", port)
    return answer


def between(answers, start, end):
    """Seconds between tokens of all answers, of those that came in a span of time, in order."""
    pairs = (pair for answer in answers for pair in zip(answer.times, answer.times[1:]))
    return sorted(new - old for old, new in pairs if start <= new < end)


def at(values, share):
    return values[min(len(values) - 1, int(share * len(values)))]


async def load(port):
    # Every size of a step comes once before anything is timed.
    warm = [await ask(port, 8, 4 * (number + 1)) for number in range(LANES)]
    await asyncio.gather(*(answer.done for answer in warm))
    warmed = time.perf_counter()
    clients = [await ask(port, args.prompt, args.tokens) for _ in range(args.clients)]
    await asyncio.gather(*(client.begun.wait() for client in clients))
    print(f"{args.clients} prompts of {args.prompt} tokens read in {time.perf_counter() - warmed:.1f} s", flush=True)
    await asyncio.sleep(0.5)
    quiet = time.perf_counter()
    await asyncio.sleep(args.quiet)
    busy = time.perf_counter()
    arrivals = []
    for number in range(args.arrivals):
        await asyncio.sleep(max(0.0, busy + number * args.every - time.perf_counter()))
        arrivals.append(await ask(port, args.long, 4))
    await asyncio.gather(*(arrival.done for arrival in arrivals))
    end = time.perf_counter()
    await asyncio.gather(*(client.done for client in clients))
    running = min(client.times[-1] for client in clients)
    if running < end:
        print(f"the first client ended {end - running:.1f} s before the last arrival was answered", flush=True)
    half = (quiet + busy) / 2
    lengths = [client.prompt + sum(moment < half for moment in client.times) for client in clients]
    count = sum(quiet <= moment < busy for client in clients for moment in client.times)
    alone, beside = between(clients, quiet, busy), between(clients, busy, min(end, running))
    return {
        "tokens_per_s": count / (busy - quiet),
        "mean_length": sum(lengths) / len(lengths),
        "quiet_ms": {"median": 1e3 * at(alone, 0.5), "p99": 1e3 * at(alone, 0.99), "tokens": len(alone)},
        "busy_ms": {"median": 1e3 * at(beside, 0.5), "p99": 1e3 * at(beside, 0.99), "max": 1e3 * beside[-1], "tokens": len(beside)},
        "first_token_of_arrivals_s": [round(arrival.times[0] - arrival.sent, 3) for arrival in arrivals],
        "first_token_of_clients_s": round(at(sorted(client.times[0] - client.sent for client in clients), 0.5), 3),
    }


def serving(path):
    command = [args.moac, "serve", path, "--random-weights", "--device", args.device, "--port", "0", "--lanes", str(LANES)]
    return command + ["--chunk", str(args.chunk)] + (["--artifact", args.artifact] if args.artifact != "-" else [])


def offer(path):
    """What would be served, as the server itself tells before it reads weights."""
    told = subprocess.run([*serving(path), "--dry-run", "--json"], stdout=subprocess.PIPE, text=True)
    return json.loads(told.stdout) if told.returncode == 0 else None


def served(path):
    command = serving(path)
    start = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    seen = []
    for line in process.stderr:
        seen.append(line)
        if found := re.search(r"serving .* on http://127\.0\.0\.1:(\d+)/", line):
            break
    else:
        raise SystemExit(f"the server did not start: {''.join(seen)}")
    print(f"the server listens after {time.perf_counter() - start:.1f} s", flush=True)
    try:
        gc.disable()
        return asyncio.run(load(int(found.group(1))))
    finally:
        gc.enable()
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def engine(context):
    """The engine alone, with as many requests of about that length."""
    command = [args.moac, "bench", args.artifact, "--model", os.path.join(args.config, "config.json"), "--random-weights"]
    command += ["--batch", str(args.clients), "--context", str(context), "--rows", str(LANES + args.chunk), "--json"]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return found, found["points"][0]


def record(name, what, ours, peer, ratio, **more):
    arguments = ["llama3-8b", "half.moac", "OUT", *sys.argv[5:]]
    content = {"what": what, "gpu": device, "command": " ".join(["benches/gpu/serve_throughput.py moac", *arguments])}
    content |= {"commit": args.commit, "ours": ours, "peer": peer, "ratio": ratio, **more}
    with open(os.path.join(args.out, name + ".json"), "w") as file:
        json.dump(content, file, indent=1)
        file.write("\n")
    print(f"{name}: {ratio}", flush=True)


os.makedirs(args.out, exist_ok=True)
random.seed(1)
path = folder()
told = offer(path)
found = served(path)
shutil.rmtree(path)
print(json.dumps(found, indent=1), flush=True)
device, point = "none", {"tokens_per_s": float("nan")}
if args.device == "gpu":
    bench, point = engine(round(found["mean_length"]))
    device = bench["device"]
rates, busy = [found["tokens_per_s"], point["tokens_per_s"]], found["busy_ms"]
what = f"tokens/s of {args.clients} streaming clients over the engine's own at that batch, {round(found['mean_length'])} tokens of context"
record("serve-throughput", what, *rates, round(rates[0] / rates[1], 4), engine=point, served=found, offer=told)
what = f"time between tokens of {args.clients} streaming clients while prompts of {args.long} tokens arrive: p99 over the median"
over_quiet = round(busy["p99"] / found["quiet_ms"]["median"], 4)
record("serve-latency", what, busy["p99"], busy["median"], round(busy["p99"] / busy["median"], 4), over_the_median_before=over_quiet, served=found)
