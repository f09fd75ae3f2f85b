"""`moac serve` as the official client sees it: python suite.py MOAC MODEL, with `openai` installed.

Starts the server on a free port and asks it everything that the protocol has and the server offers. MODEL is any model with a
chat template.
"""

import concurrent.futures
import os
import re
import subprocess
import sys
import time
import urllib.request

import openai

GREEDY = {"temperature": 0, "max_tokens": 24}
MESSAGES = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "in the 12"}]


def start(moac, model, *args, **env):
    command = [moac, "serve", model, "--port", "0", "--name", "served", *args]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **env})
    for line in process.stderr:
        if found := re.search(r"serving served on (http://\S+)/v1", line):
            return process, found.group(1)
    raise SystemExit(f"the server did not start: {process.wait()}")


def client(address, key="none", **more):
    return openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0, **more)


def metric(address, name):
    with urllib.request.urlopen(f"{address}/metrics") as reply:
        text = reply.read().decode()
    return float(re.search(rf"^{re.escape(name)}(?:{{.*}})? (\S+)$", text, re.M).group(1))


def all_given_back(address):
    for _ in range(500):
        if metric(address, "vllm:num_requests_running") == 0 and metric(address, "moac:kv_bytes_used") == 0:
            return
        time.sleep(0.02)
    raise AssertionError("somebody still holds a cache")


def models(ai, _):
    assert [model.id for model in ai.models.list()] == ["served"]
    assert ai.models.retrieve("served").id == "served"
    try:
        ai.models.retrieve("other")
        raise AssertionError("a model that is not there")
    except openai.NotFoundError as error:
        assert error.code == "model_not_found" and error.param == "model"


def completions(ai, _):
    whole = ai.completions.create(model="served", prompt="in the", **GREEDY)
    assert whole.object == "text_completion" and whole.choices[0].finish_reason in ("stop", "length")
    usage = whole.usage
    assert usage.prompt_tokens + usage.completion_tokens == usage.total_tokens and usage.completion_tokens <= 24
    pieces = list(ai.completions.create(model="served", prompt="in the", stream=True, **GREEDY))
    assert "".join(piece.choices[0].text for piece in pieces) == whole.choices[0].text
    assert pieces[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert len({piece.id for piece in pieces}) == 1
    told = ai.completions.create(model="served", prompt="in the", logprobs=3, **GREEDY).choices[0].logprobs
    assert len(told.tokens) == len(told.token_logprobs) == len(told.text_offset) == usage.completion_tokens
    for token, logprob, top in zip(told.tokens, told.token_logprobs, told.top_logprobs):
        assert logprob <= 0 and top[token] == logprob == max(top.values()), (token, logprob, top)
    many = ai.completions.create(model="served", prompt=["in", "he"], n=2, seed=3, temperature=1.5, max_tokens=8)
    assert [choice.index for choice in many.choices] == [0, 1, 2, 3]
    again = ai.completions.create(model="served", prompt=["in", "he"], n=2, seed=3, temperature=1.5, max_tokens=8)
    assert [choice.text for choice in many.choices] == [choice.text for choice in again.choices]
    echo = ai.completions.create(model="served", prompt="in the", echo=True, **GREEDY).choices[0].text
    assert echo == "in the" + whole.choices[0].text


def chat(ai, _):
    whole = ai.chat.completions.create(model="served", messages=MESSAGES, **GREEDY)
    answer = whole.choices[0].message
    assert answer.role == "assistant" and whole.object == "chat.completion"
    options = {"include_usage": True}
    pieces = list(
        ai.chat.completions.create(
            model="served", messages=MESSAGES, stream=True, stream_options=options, logprobs=True, top_logprobs=2, **GREEDY
        )
    )
    assert pieces[-1].choices == [] and pieces[-1].usage.total_tokens == whole.usage.total_tokens
    assert pieces[0].choices[0].delta.role == "assistant"
    said = [piece.choices[0] for piece in pieces[:-1]]
    assert "".join(piece.delta.content or "" for piece in said) == answer.content
    told = [token for piece in said if piece.logprobs for token in piece.logprobs.content]
    assert len(told) == whole.usage.completion_tokens
    assert all(len(token.top_logprobs) == 2 and token.logprob == token.top_logprobs[0].logprob for token in told)
    two = ai.chat.completions.create(model="served", messages=MESSAGES, n=2, seed=1, max_completion_tokens=8)
    assert [choice.index for choice in two.choices] == [0, 1]


def stops(ai, _):
    whole = ai.completions.create(model="served", prompt="in the", **GREEDY).choices[0].text
    for start in range(2, len(whole) - 3):
        stop = whole[start : start + 3]
        if "\ufffd" in stop:
            continue
        cut = ai.completions.create(model="served", prompt="in the", stop=["never there", stop], **GREEDY).choices[0]
        assert (cut.text, cut.finish_reason) == (whole[: whole.index(stop)], "stop"), stop
        pieces = ai.completions.create(model="served", prompt="in the", stop=stop, stream=True, **GREEDY)
        assert "".join(piece.choices[0].text for piece in pieces) == cut.text


def errors(ai, _):
    for wrong, param in [
        ({"temperature": -1}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"max_tokens": -5}, "max_tokens"),
        ({"max_tokens": 10**6}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"stop": [""]}, "stop"),
        ({"frequency_penalty": 1}, "frequency_penalty"),
        ({"logprobs": 1000}, "logprobs"),
    ]:
        try:
            ai.completions.create(**{"model": "served", "prompt": "in", **wrong})
            raise AssertionError(f"{wrong} was taken")
        except openai.BadRequestError as error:
            assert error.param == param and error.type == "invalid_request_error", (wrong, error.body)
    try:
        ai.chat.completions.create(model="other", messages=MESSAGES)
        raise AssertionError("a model that is not there")
    except openai.NotFoundError as error:
        assert error.code == "model_not_found"


def cancelling(ai, address):
    stream = ai.completions.create(model="served", prompt="in the", max_tokens=900, temperature=2, stream=True)
    for _ in zip(range(3), stream):
        pass
    stream.close()
    all_given_back(address)


def many_at_once(ai, address):
    def one(number):
        more = {"seed": number, "temperature": 1.2, "max_tokens": 12}
        if number % 3 == 0:
            pieces = ai.completions.create(model="served", prompt=f"in the {number % 7}", stream=True, **more)
            return "".join(piece.choices[0].text for piece in pieces)
        return ai.completions.create(model="served", prompt=f"in the {number % 7}", **more).choices[0].text

    alone = [one(number) for number in range(24)]
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        together = list(pool.map(one, range(24)))
    same = sum(a == b for a, b in zip(alone, together))
    # Rounding may move a border between two tokens, but hardly ever does.
    assert same >= 22, same
    all_given_back(address)


def keys(moac, model):
    process, address = start(moac, model, MOAC_API_KEY="secret")
    try:
        assert client(address, "secret").models.list().data
        try:
            client(address, "other").models.list()
            raise AssertionError("a wrong key")
        except openai.AuthenticationError as error:
            assert error.code == "invalid_api_key"
    finally:
        process.terminate()
        assert process.wait(60) == 0


def main():
    moac, model = sys.argv[1:]
    process, address = start(moac, model, "--lengths", "1024")
    try:
        for check in [models, completions, chat, stops, errors, cancelling, many_at_once]:
            began = time.time()
            check(client(address), address)
            print(f"{check.__name__}: ok, {time.time() - began:.1f} s", flush=True)
    finally:
        process.terminate()
        assert process.wait(60) == 0
    keys(moac, model)
    print("keys: ok")


main()
