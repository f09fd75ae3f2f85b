// Runs beside the page of `moac inspect --html` and lists what is wrong with how it is laid out, in <pre id="found">.
addEventListener("load", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
  const found = layoutFaults();
  // A cell is at most 72 pixels wide, so only a model of many layers fills the room.
  const map = document.getElementById("map"), room = map.closest(".scroll").clientWidth;
  const layers = new Set([...map.querySelectorAll("rect")].map(cell => cell.dataset.l)).size;
  if (map.getBoundingClientRect().width < 0.8 * Math.min(room, 72 * layers))
    found.push(`the map is ${map.getBoundingClientRect().width} of ${room} wide`);
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  parent.document.getElementById("found").textContent =
    JSON.stringify({ width: innerWidth, dark, cells: document.querySelectorAll("#map rect").length, found });
});
