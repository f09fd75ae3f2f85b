"""Writes hard_texts.json: small vocabularies, and what `tokenizers` and sentencepiece make of hard texts with them.

    pip install tokenizers==0.23.3 sentencepiece==0.2.3
    python hard_texts.py
"""

import io
import json
import pathlib

import sentencepiece
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

TEXTS = [
    "Hello, world!",
    "",
    " ",
    "  leading and trailing  ",
    "a  b   c    d     e",
    "tabs\tand\t\ttabs \t mixed",
    "line\nline\n\nline\n\n\n  indented\n",
    "CRLF\r\nand\r\rbare\r\n\r\n",
    "12345 1234567890 3.14159 1,000,000 0x1F 2024-07-26",
    "٣٤٥ १२३ Ⅷ ½ ²³ 𝟙𝟚𝟛",
    "I'm you're he'll THEY'VE It'S don't 'tis ’tis o'clock's",
    "CamelCaseWords snake_case_words SCREAMING_CASE kebab-case-words XMLHttpRequest iPhone15Pro",
    "你好，世界！今天天气很好。 日本語のテキスト、カタカナ。 한국어 텍스트입니다.",
    "emoji 🙂 👩‍👩‍👧‍👦 👍🏽 🇩🇪 🏳️‍🌈 ❤️ end",
    "combining e\u0301 n\u0303 A\u030a o\u0308\u0323 Z\u0351\u036b\u0343 \u0301start",
    "precomposed é ñ Å ǟ and ﬁ ligature ﷺ",
    "RTL: שלום עולם مرحبا بالعالم mixed abc שלום 123",
    "Ελληνικά Русский Українська ქართული Հայերեն ไทยไม่มีช่องว่าง हिन्दी বাংলা தமிழ்",
    "straße İstanbul ıı ΣΑΣ ǅ ſ K (Kelvin) 'ſ 'S",
    "spaces:\u00a0nbsp\u2003em\u3000ideographic\u200bzero\u2028line\u2029para\u0085nel\ufeffbom",
    "controls:\x01\x02\x07\x1b[0m\x7f\x1f\x1c end",
    "<s>special</s> <|im_start|>user<|im_end|> [INST] <unk> <0x41> <|endoftext|>",
    "▁underline▁▁blocks ▁ ▁x",
    "x" * 300,
    "supercalifragilisticexpialidocious" * 6,
    "!!!???...---___***&&&%%%$$$###@@@~~~```^^^|||\\\\\\///",
    "a.b,c;d:e!f?g(h)i[j]k{l}m<n>o\"p'q`r~s@t#u$v%w^x&y*z",
    "def f(x):\n    return x  # comment\n\tif x: {'a': [1, 2]}\n",
    "https://example.com/path?q=1&r=a%20b#frag user@example.org C:\\dir\\file.txt",
    "\U0001d54f\U0001d550 \U00020000\U0002a6d6 \U0010ffff \ue000 \ufffd \ufffe",
    "\n", "\n\n", "\t", "\r\n", " \n ", "   \n\n  x", "é", "🙂", "\u200d", "0", "a ",
    "mixed١2३4５6 abc123def 1a2b3c",
    "\ud7ff\ue000 edge of surrogates \u07ff\u0800 \uffff\U00010000",
    "No\u00adsoft\u00adhyphen\u2060joiner\u180emongolian",
    "ends with spaces   ",
    "word\u0300\u0301\u0302\u0303\u0304 x\u20dd",
]

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT4O = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def words(expression):
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(expression), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
DIGITS = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), GPT2])
# The name in the file, how text is split, and whether whole words come before merges.
SPLITS = {
    "": (GPT2, False),
    "default": (GPT2, False),
    "gpt-2": (GPT2, False),
    "smollm": (DIGITS, False),
    "llama-bpe": (words(LLAMA3), True),
    "qwen2": (words(QWEN2), False),
    "tekken": (words(TEKKEN), True),
    "gpt-4o": (words(GPT4O), False),
}

corpus = [text for text in TEXTS if len(text) < 250] * 3

trained = Tokenizer(models.BPE())
trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
trained.train_from_iterator(
    corpus,
    trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"], show_progress=False
    ),
)
model = json.loads(trained.to_str())["model"]
tokens = sorted(model["vocab"], key=model["vocab"].get)
byte_level = {"tokens": tokens, "merges": [" ".join(merge) for merge in model["merges"]], "ids": {}, "chat": {}}
for name, (split, ignore_merges) in SPLITS.items():
    bpe = models.BPE(vocab=model["vocab"], merges=[tuple(merge) for merge in model["merges"]], ignore_merges=ignore_merges)
    tokenizer = Tokenizer(bpe)
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    byte_level["ids"][name] = [tokenizer.encode(text).ids for text in TEXTS]
    assert all(tokenizer.decode(ids) == text for text, ids in zip(TEXTS, byte_level["ids"][name]))
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    byte_level["chat"][name] = [tokenizer.encode(text).ids for text in TEXTS]

file = io.BytesIO()
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(text for text in corpus if text.strip()),
    model_writer=file,
    model_type="bpe",
    vocab_size=800,
    byte_fallback=True,
    character_coverage=0.98,
    normalization_rule_name="identity",
    remove_extra_whitespaces=False,
    split_digits=True,
    allow_whitespace_only_pieces=True,
    minloglevel=2,
)
processor = sentencepiece.SentencePieceProcessor(model_proto=file.getvalue())
count = processor.vocab_size()
kinds = []
for id in range(count):
    if processor.is_unknown(id):
        kinds.append(2)
    elif processor.is_control(id):
        kinds.append(3)
    elif processor.is_unused(id):
        kinds.append(5)
    elif processor.is_byte(id):
        kinds.append(6)
    else:
        kinds.append(1)
# Text may hold what sentencepiece writes for a space, which it does not tell apart.
spm = {
    "tokens": [processor.id_to_piece(id) for id in range(count)],
    "scores": [processor.get_score(id) for id in range(count)],
    "kinds": kinds,
    "ids": [processor.encode(text) for text in TEXTS],
    "decoded": [processor.decode(processor.encode(text)) for text in TEXTS],
}

out = {"texts": TEXTS, "byte_level": byte_level, "spm": spm}
path = pathlib.Path(__file__).with_suffix(".json")
text = json.dumps(out, ensure_ascii=True, separators=(",", ":"))
path.write_text(text.replace('],[', '],\n[') + "\n", encoding="utf-8")
print(len(TEXTS), "texts,", len(tokens), "byte-level tokens,", count, "pieces,", len(text), "bytes")
