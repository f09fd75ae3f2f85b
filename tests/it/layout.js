// Lists what is wrong with how a page is laid out: what runs out of it, is cut off, lies on something else or cannot be read.
function layoutFaults() {
  const found = [];
  const name = element => element.tagName.toLowerCase() + (element.id ? "#" + element.id : "") +
    ` "${element.textContent.trim().slice(0, 30)}"`;
  if (document.documentElement.scrollWidth > innerWidth)
    found.push(`the page is ${document.documentElement.scrollWidth} wide`);
  for (const element of document.querySelectorAll("body *")) {
    const box = element.getBoundingClientRect();
    if (box.width === 0) continue;
    // What is wider than a box that scrolls can be reached there.
    const scrolls = element.parentElement.closest(".scroll");
    if (!scrolls && (box.right > innerWidth + 1 || box.left < -1))
      found.push(`${name(element)} ends at ${box.right}`);
    const style = getComputedStyle(element);
    if (!(element instanceof SVGElement) && style.overflowX !== "visible" && !element.matches(".scroll, .unseen") &&
      element.scrollWidth > element.clientWidth + 1)
      found.push(`${name(element)} is cut off`);
  }
  for (const text of document.querySelectorAll("svg text")) {
    const box = text.getBoundingClientRect(), drawn = text.ownerSVGElement.getBoundingClientRect();
    if (box.left < drawn.left - 1 || box.right > drawn.right + 1 || box.top < drawn.top - 1 || box.bottom > drawn.bottom + 1)
      found.push(`${name(text)} leaves its picture`);
  }
  // Labels of one row, or of one column, stand apart.
  for (const svg of document.querySelectorAll("svg")) {
    const boxes = [...svg.querySelectorAll("text")].map(text => [text, text.getBoundingClientRect()]);
    boxes.forEach(([text, a], at) => boxes.slice(at + 1).forEach(([other, b]) => {
      if (a.left < b.right && b.left < a.right && a.top + 1 < b.bottom && b.top + 1 < a.bottom)
        found.push(`${name(text)} lies on ${name(other)}`);
    }));
  }
  // Text against what it stands on, by WCAG's ratio.
  const light = colour => {
    const part = colour.match(/[\d.]+/g).slice(0, 3).map(Number).map(value => value / 255);
    const [r, g, b] = part.map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!/, 0\)$/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  for (const element of document.querySelectorAll("h1, h2, p, span, b, td, th, button, summary, code, svg text")) {
    if (!element.textContent.trim()) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(element instanceof SVGElement ? style.fill : style.color), light(ground(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push(`${name(element)} has a contrast of ${ratio.toFixed(1)}`);
  }
  return found;
}
