"""Writes the binary and the longer seeds of `seeds/`.

    pip install gguf==0.19.0 numpy
    python seeds.py
"""

import json
import pathlib
import re
import struct

import gguf
import numpy as np

HERE = pathlib.Path(__file__).parent / "seeds"
TEMPLATE = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"


def write(name, data):
    path = HERE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def byte_character(byte):
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    if byte in printable:
        return chr(byte)
    return chr(256 + sum(1 for b in range(byte) if b not in printable))


SPECIAL = ["<s>", "</s>", "<|im_end|>"]
bytes_ = [byte_character(byte) for byte in range(256)]
merges = [("h", "e"), ("Ġ", "t"), ("Ġt", "he"), ("i", "n"), ("l", "l"), ("ð", "Ł")]
vocab = SPECIAL + bytes_ + [a + b for a, b in merges]
byte_level = {
    "version": "1.0",
    "added_tokens": [
        {"id": i, "content": t, "special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        for i, t in enumerate(SPECIAL)
    ],
    "normalizer": None,
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}| ?[^\\s\\p{N}]+|\\s+(?!\\S)|\\s+"}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]},
    "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}},
    "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    "model": {"type": "BPE", "vocab": {t: i for i, t in enumerate(vocab)}, "merges": [list(m) for m in merges]},
}
write("tokenizer/byte_level.json", json.dumps(byte_level, ensure_ascii=False))
pieces = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + ["▁", "a", "b", "h", "e", "l", "o", "he", "ll", "▁he", "▁▁"]
sentencepiece = {
    "version": "1.0",
    "added_tokens": [
        {"id": i, "content": t, "special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        for i, t in enumerate(pieces[:3])
    ],
    "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
    "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
        {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
    "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True, "vocab": {t: i for i, t in enumerate(pieces)},
        "merges": [["h", "e"], ["l", "l"], ["▁", "he"], ["▁", "▁"]]},
}
write("tokenizer/sentencepiece.json", json.dumps(sentencepiece, ensure_ascii=False))
small = {"a": 0, "b": 1, "Ġ": 2, "ab": 3}
model = {"type": "BPE", "vocab": small, "merges": [["a", "b"]]}
write("tokenizer/small.json", json.dumps({"version": "1.0", "added_tokens": byte_level["added_tokens"], "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False,
    "trim_offsets": True, "use_regex": False}, "decoder": byte_level["decoder"], "model": {**model, "vocab": {t: i for i, t in enumerate([*SPECIAL, *small])}}}, ensure_ascii=False))
for name, change in {
    "unigram": {"model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0], ["b", -2.0], ["ab", -2.5], ["▁", -3.0]], "byte_fallback": False},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True}, "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True}},
    "wordpiece": {"model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "a": 1, "##b": 2}},
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"}, "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}},
    "charsmap": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "BAAAAP////8A"}},
    "charsmap-long": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "/////w=="}},
    "fixed": {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
    "prefix": {"model": {**model, "continuing_subword_prefix": "abcdefghijk"}},
    "template": {"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "[X]", "type_id": 0}}], "pair": [], "special_tokens": {}}},
    "strips": {"added_tokens": [{"id": 0, "content": "a", "special": False, "single_word": True, "lstrip": True, "rstrip": True, "normalized": True},
        {"id": 3, "content": "ab", "special": False, "single_word": False, "lstrip": True, "rstrip": True, "normalized": False}]},
}.items():
    write(f"tokenizer/{name}.json", json.dumps({"version": "1.0", "added_tokens": [], "model": model, **change}, ensure_ascii=False))
write("tokenizer/surrogate.json", '{"decoder":"\\ud800"}')


def gguf_file(name, kind, tensors):
    path = HERE / "gguf" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    w = gguf.GGUFWriter(path, "llama")
    w.add_block_count(1), w.add_context_length(64), w.add_embedding_length(4), w.add_feed_forward_length(4)
    w.add_head_count(1), w.add_head_count_kv(1), w.add_key_length(4), w.add_value_length(4), w.add_rope_dimension_count(4)
    w.add_layer_norm_rms_eps(1e-5), w.add_rope_freq_base(10000.0), w.add_name("tiny")
    w.add_chat_template(TEMPLATE)
    w.add_eos_token_id(2), w.add_bos_token_id(1)
    if kind == "llama":
        tokens = ["<unk>", "<s>", "</s>", "<0x41>", "<0x0A>", "▁", "a", "b", "ab", "▁ab"]
        w.add_tokenizer_model("llama")
        w.add_token_scores([0.0, 0.0, 0.0, 0.0, 0.0, -3.0, -4.0, -5.0, -1.0, -2.0])
        w.add_token_types([2, 3, 3, 6, 6, 1, 1, 1, 1, 1])
    else:
        tokens = ["<s>", "</s>", "<|im_end|>", "a", "b", "Ġ", "ab"]
        w.add_tokenizer_model("gpt2"), w.add_tokenizer_pre(kind)
        w.add_token_merges(["a b"])
        w.add_token_types([3, 3, 3, 1, 1, 1, 1])
    w.add_token_list(tokens)
    w.add_vocab_size(len(tokens))
    if tensors:
        zeros = lambda *shape: np.zeros(shape, np.float32)
        w.add_tensor("token_embd.weight", zeros(len(tokens), 4)), w.add_tensor("output_norm.weight", zeros(4))
        for part in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]:
            w.add_tensor(f"blk.0.{part}.weight", zeros(4, 4))
        w.add_tensor("blk.0.attn_norm.weight", zeros(4)), w.add_tensor("blk.0.ffn_norm.weight", zeros(4))
    w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()


gguf_file("gpt2.gguf", "gpt-2", True)
gguf_file("smollm.gguf", "smollm", False)
gguf_file("llama.gguf", "llama", True)


def safetensors(tensors, metadata=None):
    header, data = ({"__metadata__": metadata} if metadata else {}), b""
    for name, (shape, values) in tensors.items():
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + 4 * len(values)]}
        data += struct.pack(f"<{len(values)}f", *values)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


config = {
    "model_type": "llama", "vocab_size": len(vocab), "hidden_size": 2, "intermediate_size": 2, "num_hidden_layers": 1, "num_attention_heads": 1,
    "num_key_value_heads": 1, "head_dim": 2, "rms_norm_eps": 1e-5, "max_position_embeddings": 128, "rope_theta": 10000.0, "rope_scaling": None,
    "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": [1, 2], "hidden_act": "silu",
}
write("folder/config.json", json.dumps(config))
parts = lambda files: "".join(f"\n=== {name}\n{text}" for name, text in files.items())
settings = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "add_bos_token": True, "chat_template": [{"name": "default", "template": TEMPLATE}]}
write("folder/all.txt", parts({"config.json": json.dumps(config), "generation_config.json": '{"eos_token_id": [1]}', "tokenizer_config.json": json.dumps(settings),
    "special_tokens_map.json": '{"unk_token": "<unk>"}', "model.safetensors.index.json": '{"weight_map": {"a": "model.safetensors"}}'}))
write("folder/llama3.txt", parts({"config.json": json.dumps({**config, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64}}), "chat_template.jinja": TEMPLATE}))
weights = {"model.embed_tokens.weight": ([len(vocab), 2], [0.5] * (2 * len(vocab))), "model.norm.weight": ([2], [1.0, 1.0])}
for part in ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]:
    weights[f"model.layers.0.{part}.weight"] = ([2, 2], [0.1, 0.2, 0.3, 0.4])
for part in ["input_layernorm", "post_attention_layernorm"]:
    weights[f"model.layers.0.{part}.weight"] = ([2], [1.0, 1.0])
write("safetensors/model.safetensors", safetensors(weights))
write("safetensors/one.safetensors", safetensors({"t": ([2], [1.0, 2.0])}))


def influence(model, lengths=(128,), **more):
    header = {"format": "moac.influence/1", "model": model, "lengths": [{"length": n, "items": 3} for n in lengths], "seed": 1, "absolute": False, **more}
    # Nothing stands above the causal mask, which halves the blocks of the diagonal.
    masked = lambda blocks, near: [0.25 * (key + near <= query) for _ in range(4) for query in range(blocks) for key in range(blocks)]
    tensors = {f"{kind}.{n}": ([2, 2, n // 64, n // 64], masked(n // 64, kind == "near")) for n in lengths for kind in ["far", "near"]}
    return safetensors(tensors, {"moac": json.dumps(header)})


shape = {"name": "tiny", "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "head_dim": 64, "rope_theta": 10000.0}
write("influence/good.safetensors", influence(shape))
write("influence/two.safetensors", influence(shape, (128, 256)))
write("influence/name.safetensors", influence({**shape, "name": "../x\n"}))
write("influence/theta.safetensors", influence({**shape, "rope_theta": -1e308}))

table = json.loads((HERE.parent.parent / "runtime/model/jinja/tests/constructs.json").read_text())
for at, case in enumerate(case for case in table["cases"] if len(case["template"]) > 300 and "variables" not in case):
    write(f"chat/construct-{at}.jinja", case["template"])
for name, template in {
    "format-width": "{{ '{:10000000000}'.format(1) }}", "format-precision": "{{ '{:.2000000000f}'.format(1.0) }}",
    "nested-list": "{% set ns=namespace(x=[]) %}{% for i in range(500) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
    "self-key": "{% set n=namespace() %}{% set n.x=n %}{{ {n:1} }}", "self-print": "{% set n=namespace() %}{% set n.x=n %}{{ n }}",
    "indent": "{{ [1,[2]]|tojson(indent=10000000000) }}", "not": "{{ " + "not " * 300 + "1 }}", "chatml": TEMPLATE,
    "macro-in-loop": "{% for a in b %}{% macro m() %}{% endfor %}",
}.items():
    write(f"chat/{name}.jinja", template)

write("ptx/registers.ptx", ".version 8.0\n.target sm_90\n.address_size 64\n.visible .entry k() {\n.reg .b32 %r<1048576>;\nret;\n}\n")
write("ptx/loops.ptx", ".version 8.0\n.target sm_90\n.address_size 64\n.visible .entry k() {\n.reg .pred %p<2>;\n" + "".join(f"$L{i}:\n@%p1 bra $L{i};\n" for i in range(40)) + "ret;\n}\n")
write("ptx/calls.ptx", ".version 8.0\n.target sm_90\n.address_size 64\n.func f0() { ret; }\n" + "".join(f".func f{i + 1}() {{ call f{i}; call f{i}; ret; }}\n" for i in range(30)) + ".visible .entry k() { call f30; ret; }\n")
write("request/mixed.txt", "Hello <s> wörld </s> 12345 ▁x <|im_end|> \r\n\t 🙂👩‍👩‍👧 שלום é 你好")
write("request/spaces.txt", "   a  b\u00a0c\u3000d   ")
REPOSITORY = HERE.parent.parent
for name in ["attention", "instructions"]:
    # One of each instruction, so that an input is read in microseconds.
    text = (REPOSITORY / f"runtime/emulator/tests/ptx/{name}.ptx").read_text()
    registers, code = {}, {}
    for kind, variable, count in re.findall(r"\.reg (\.\w+)\s+(%\w+)<(\d+)>;", text):
        registers[kind, variable] = max(int(count), registers.get((kind, variable), 0))
    for line in map(str.strip, text.split("\n")):
        words = line.split()
        opcode = words[words[0].startswith("@")] if len(words) > 1 else line
        if line.endswith(";") and opcode[0].isalpha() and not opcode.startswith("bra") and "_param_" not in line and "_ZZ" not in line:
            code.setdefault(opcode, line)
    body = [f".reg {kind} {variable}<{count}>;" for (kind, variable), count in registers.items()] + [".reg .pred p;", ".shared .align 16 .b8 smem[64];", *code.values()]
    write(f"ptx/{name}.ptx", ".version 9.0\n.target sm_90a\n.address_size 64\n.visible .entry k() {\n" + "\n".join(body) + "\n}\n")

tiny = {"name": "tiny", "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "head_dim": 64, "rope_theta": 10000.0, "context": 8192}
alphas, betas = [[0, -100.5, 2048, 64], [128, 1e3, 0.25, 0]], [[1, 0.5, 0, 0.125], [0, -0.01, 0.3333333333333333, 1]]
write("plan/reference.json", json.dumps({"alphas": alphas, "betas": betas}))
write("plan/whole.json", json.dumps({"format": "moac.plan/1", "model": tiny, "sink": 64, "min_span": 192, "alphas": alphas, "betas": betas,
    "provenance": {"origin": "synthetic", "lengths": [1024, 2048], "losses": {"dense": 1.5}}}))
write("plan/scale.json", json.dumps({"format": "moac.plan/1", "model": {**tiny, "softmax_scale": 0.1}, "alphas": alphas, "betas": betas}))

golden = (REPOSITORY / "tests/it/artifact/golden/format-3.moac").read_bytes()
header = json.loads(golden[8:8 + struct.unpack("<Q", golden[:8])[0]])
manifest = json.loads(header["__metadata__"]["moac"])["manifest"]
for name, arch in {"portable": "sm_80", "hopper": "sm_90a"}.items():
    places = [at for at, kernel in enumerate(manifest["kernels"]) if kernel["arch"] == arch]
    moved = lambda holder: {**holder, "kernels": {arch: {role: places.index(at) for role, at in holder["kernels"][arch].items()}}}
    write(f"open_sealed/{name}.json", json.dumps({**manifest, "kernels": [manifest["kernels"][at] for at in places], "archs": [arch], "tensors": {},
        "layers": [moved(layer) for layer in manifest["layers"]], "engine": moved(manifest["engine"])}))
