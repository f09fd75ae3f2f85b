// Recolours the span map and fills the cards for the bucket that is chosen. Without it, the page shows the largest.
const data = JSON.parse(document.getElementById("data").textContent);
const cells = [...document.querySelectorAll("#map rect[data-l]")];
const said = document.getElementById("said");

function describe(cell, bucket) {
  const layer = data.layers[cell.dataset.l], group = layer.groups[cell.dataset.g];
  const span = group.spans[bucket], length = data.lengths[bucket];
  const kv = layer.kv_spans[bucket][cell.dataset.k];
  return `layer ${cell.dataset.l}, head ${cell.dataset.h}: span ${span} of ${length} (${(100 * span / length).toFixed(1)}%), ` +
    `rule ${group.rule}; KV head ${+cell.dataset.k + data.first_kv_head}, KV span ${kv}`;
}

function show(bucket) {
  const length = data.lengths[bucket];
  for (const cell of cells) {
    const span = data.layers[cell.dataset.l].groups[cell.dataset.g].spans[bucket];
    cell.setAttribute("class", "d" + Math.round(span / length * data.steps));
    cell.firstElementChild.textContent = describe(cell, bucket);
  }
  for (const [id, texts] of Object.entries(data.cards)) document.getElementById(id).textContent = texts[bucket];
  document.querySelectorAll(".bar button").forEach((button, at) => button.setAttribute("aria-pressed", at === bucket));
  document.querySelectorAll("#buckets tr").forEach((row, at) => row.classList.toggle("now", at === bucket));
  said.textContent = "\u00a0";
  document.getElementById("map").onmouseover = event => {
    const cell = event.target.closest("rect[data-l]");
    said.textContent = cell ? describe(cell, bucket) : "\u00a0";
  };
}

const bar = document.querySelector(".bar");
data.lengths.forEach((length, bucket) => {
  const button = document.createElement("button");
  button.textContent = length;
  button.onclick = () => show(bucket);
  bar.append(button);
});
show(data.lengths.length - 1);
