// A chat over /v1/chat/completions, and what the plan saves of its cache. What a model says is only ever inserted as text.
"use strict";
const $ = id => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

let plan = null;        // the reply of /v1/moac/plan
let messages = [];      // the turns so far
let stopping = null;    // stops the answer that is being written

// --- The server, and the key where it asks for one -------------------------------------------------------------------

async function ask(path, more = {}) {
  const key = sessionStorage.getItem("moac-key");
  const headers = { ...more.headers, ...(key && { authorization: `Bearer ${key}` }) };
  const reply = await fetch(path, { ...more, headers });
  if (reply.ok) return reply;
  const body = await reply.json().catch(() => null);
  throw Object.assign(new Error(body?.error?.message ?? `the server says ${reply.status}`), { status: reply.status });
}

function fail(error) {
  $("key").hidden = error.status !== 401;
  if (error.status === 401) $("secret").focus();
  $("error").textContent = error.message;
}

$("key").addEventListener("submit", event => {
  event.preventDefault();
  sessionStorage.setItem("moac-key", $("secret").value);
  $("secret").value = "";
  start();
});

async function start() {
  try {
    plan = await (await ask("v1/moac/plan")).json();
  } catch (error) {
    return fail(error);
  }
  $("key").hidden = true;
  $("error").textContent = "";
  $("model").textContent = document.title = plan.model;
  $("shape").textContent = `${plan.layers} layers, ${plan.kv_heads} KV heads; contexts of up to ${plan.contexts.at(-1).tokens} tokens`;
  $("context").replaceChildren(...plan.contexts.map(({ tokens }) => new Option(tokens, tokens)));
  choose(plan.contexts.at(-1).tokens);
  $("question").focus();
}

// --- The chat --------------------------------------------------------------------------------------------------------

function turn(role, text) {
  const item = document.createElement("li"), who = document.createElement("h3"), said = document.createElement("div");
  item.className = role;
  who.textContent = role === "user" ? "You" : "Model";
  said.textContent = text;
  item.append(who, said);
  $("turns").append(item);
  $("turns").scrollTop = $("turns").scrollHeight;
  return said;
}

// The data of server-sent events, as JSON.
async function* events(body) {
  let rest = "";
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
      const event = JSON.parse(line.slice(6));
      if (event.error) throw new Error(event.error.message);
      yield event;
    }
  }
}

// Whole sentences for those who hear the page: single tokens would be noise.
function speaker() {
  let from = 0;
  $("live").textContent = "";
  return (text, over) => {
    const end = over ? text.length : Math.max(...[". ", "! ", "? ", "\n"].map(mark => text.lastIndexOf(mark) + 1));
    if (end > from) $("live").textContent = text.slice(from, end);
    from = Math.max(from, end);
  };
}

async function answer(messages) {
  const said = turn("assistant", ""), speak = speaker();
  let text = "", first = 0, begun = 0;
  stopping = new AbortController();
  busy(true);
  try {
    const reply = await ask("v1/chat/completions", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ messages, stream: true, stream_options: { include_usage: true, continuous_usage_stats: true } }),
      signal: stopping.signal,
    });
    const context = Number(reply.headers.get("moac-context"));
    choose(context);
    for await (const { choices, usage } of events(reply.body)) {
      text += choices[0]?.delta.content ?? "";
      const low = $("turns").scrollTop + $("turns").clientHeight > $("turns").scrollHeight - 40;
      said.textContent = text;
      if (low) $("turns").scrollTop = $("turns").scrollHeight;
      speak(text, false);
      if (!usage) continue;
      const now = performance.now();
      if (!first && usage.completion_tokens) [first, begun] = [now, usage.completion_tokens];
      show(usage, context, (usage.completion_tokens - begun) / (now - first) * 1000, choices.length === 0);
    }
  } catch (error) {
    if (error.name !== "AbortError") fail(error);
  }
  speak(text, true);
  // A turn without a word stays out of the next prompt.
  if (text) messages.push({ role: "assistant", content: text });
  else said.parentElement.remove();
  stopping = null;
  busy(false);
  return text !== "";
}

function busy(yes) {
  $("send").disabled = yes;
  $("stop").disabled = !yes;
}

$("ask").addEventListener("submit", async event => {
  event.preventDefault();
  const question = $("question").value.trim();
  if (!question || stopping || !plan) return;
  $("error").textContent = "";
  $("question").value = "";
  const turns = messages, asked = turn("user", question);
  turns.push({ role: "user", content: question });
  // Where nothing was said, the question can be asked again; unless another conversation was begun.
  if (await answer(turns) || turns !== messages) return;
  turns.pop();
  asked.parentElement.remove();
  $("question").value ||= question;
});

$("question").addEventListener("keydown", event => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("ask").requestSubmit();
});
const stop = () => stopping?.abort();
$("stop").addEventListener("click", stop);
document.addEventListener("keydown", event => { if (event.key === "Escape") stop(); });

$("new").addEventListener("click", () => {
  stop();
  messages = [];
  $("turns").replaceChildren();
  $("error").textContent = "";
  for (const id of ["held", "dense", "share", "speed", "tokens", "cached"]) $(id).textContent = "-";
  for (const bar of ["held-bar", "dense-bar"]) $(bar).setAttribute("width", 0);
  $("reserved").textContent = "\u00a0";
  $("question").focus();
});

// --- What the plan saves ---------------------------------------------------------------------------------------------

const of = context => plan.contexts.find(({ tokens }) => tokens === context);

function bytes(count) {
  let unit = 0;
  for (; count >= 1024 && unit < 4; unit++) count /= 1024;
  return `${count.toFixed(unit && 1)} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`;
}

// A ring holds as many tokens as there are, and at most its span.
function show({ prompt_tokens, completion_tokens, prompt_tokens_details }, context, speed, over) {
  const { slab_bytes, dense_bytes, kv_spans } = of(context), tokens = prompt_tokens + completion_tokens;
  const rows = kv_spans.flat().reduce((sum, span) => sum + Math.min(span, tokens), 0);
  const held = rows * plan.row_bytes, dense = tokens * plan.layers * plan.kv_heads * plan.row_bytes;
  $("held").textContent = bytes(held);
  $("dense").textContent = bytes(dense);
  $("share").textContent = `${(100 * held / dense).toFixed(1)}%`;
  $("tokens").textContent = tokens;
  if (Number.isFinite(speed)) $("speed").textContent = speed.toFixed(1);
  if (over) $("cached").textContent = prompt_tokens_details.cached_tokens;
  $("held-bar").setAttribute("width", `${100 * held / dense_bytes}%`);
  $("dense-bar").setAttribute("width", `${100 * dense / dense_bytes}%`);
  $("reserved").textContent = `Reserved for ${context} tokens: ${bytes(slab_bytes)}, ` +
    `${(100 * slab_bytes / dense_bytes).toFixed(1)}% of a dense cache's ${bytes(dense_bytes)}.`;
}

// --- The span map ----------------------------------------------------------------------------------------------------

const LEFT = 44, TOP = 20;

// Its place on the scale, whose colours the style sheet has.
function colour(share) {
  const at = Math.min(share * 4, 3.999), low = Math.floor(at);
  return `color-mix(in srgb, var(--span-${low}), var(--span-${low + 1}) ${(100 * (at - low)).toFixed(1)}%)`;
}

function draw() {
  const { tokens, kv_spans } = of(Number($("context").value)), map = $("map");
  const width = Math.min(Math.max(Math.floor((map.parentElement.clientWidth - LEFT) / plan.layers), 6), 72);
  const height = Math.min(Math.max(Math.floor(280 / plan.kv_heads), 8), 24);
  const put = (name, attributes, text) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    map.append(element);
    return element;
  };
  map.replaceChildren();
  map.setAttribute("width", LEFT + plan.layers * width);
  map.setAttribute("height", TOP + plan.kv_heads * height);
  const spans = kv_spans.flat();
  map.setAttribute("aria-label", `${plan.layers} layers by ${plan.kv_heads} KV heads, spans of ${Math.min(...spans)} to ` +
    `${Math.max(...spans)} tokens in a context of ${tokens}`);
  const every = size => [1, 2, 4, 8, 16].find(step => step * size >= 18) ?? 32;
  for (let layer = 0; layer < plan.layers; layer += every(width))
    put("text", { x: LEFT + layer * width + width / 2, y: TOP - 7, "text-anchor": "middle" }, layer);
  for (let head = 0; head < plan.kv_heads; head += every(height))
    put("text", { x: LEFT - 7, y: TOP + head * height + height / 2 + 3, "text-anchor": "end" }, `KV ${head}`);
  kv_spans.forEach((heads, layer) => heads.forEach((span, head) => {
    const cell = put("rect", { x: LEFT + layer * width, y: TOP + head * height, width: width - 1, height: height - 1 });
    cell.style.fill = colour(span / tokens);
    cell.dataset.said = `Layer ${layer}, KV head ${head}: ${span} of ${tokens} tokens (${(100 * span / tokens).toFixed(1)}%)`;
  }));
}

function choose(context) {
  $("context").value = context;
  draw();
}

$("map").addEventListener("mouseover", event => { $("said").textContent = event.target.dataset.said ?? "\u00a0"; });
$("context").addEventListener("change", draw);
addEventListener("resize", () => plan && draw());
for (let step = 0; step <= 32; step++) {
  const part = document.createElement("i");
  part.style.background = colour(step / 32);
  $("scale").append(part);
}
start();
