// Line and point charts as SVG, readable at phone width, with a text for those who cannot see them.

import {h, s} from "./dom.js";

export function ticks(low, high, most = 6, log = false) {
  if (log) {
    const all = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) for (const m of [1, 2, 5]) all.push(m * 10 ** e);
    const inside = all.filter(v => v >= low * 0.999 && v <= high * 1.001);
    return inside.length > most ? inside.filter(v => Number(v.toExponential()[0]) === 1) : inside;
  }
  const raw = (high - low) / most, size = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(m => m * size).find(one => one >= raw);
  const found = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-6; v += step) found.push(Number(v.toPrecision(10)));
  return found;
}

const label = v => v !== 0 && (Math.abs(v) >= 1e5 || Math.abs(v) < 1e-3) ? v.toExponential(0).replace("e+", "e") : String(Number(v.toPrecision(6))).replace("-", "−");

// A figure; x and y: {low, high, log, label}; draw(to, svg): adds marks, to.x and to.y convert values to pixels.
export function chart({x, y, alt, caption, height = 300, width = Math.min(1100, Math.max(320, innerWidth - 48)), draw}) {
  const edge = {left: 58, right: 12, top: 10, bottom: 42};
  const scale = (axis, from, to) => {
    const f = axis.log ? Math.log10 : v => v, low = f(axis.low), high = f(axis.high);
    return v => from + (f(v) - low) / (high - low || 1) * (to - from);
  };
  const to = {x: scale(x, edge.left, width - edge.right), y: scale(y, height - edge.bottom, edge.top)};
  const svg = s("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": alt});
  for (const v of ticks(y.low, y.high, 5, y.log)) {
    svg.append(s("line", {x1: edge.left, x2: width - edge.right, y1: to.y(v), y2: to.y(v), stroke: "var(--faint)"}),
      s("text", {x: edge.left - 7, y: to.y(v) + 4, "text-anchor": "end", class: "quiet"}, label(v)));
  }
  for (const v of ticks(x.low, x.high, width < 500 ? 5 : 9, x.log)) {
    svg.append(s("line", {x1: to.x(v), x2: to.x(v), y1: height - edge.bottom, y2: height - edge.bottom + 5, stroke: "var(--quiet)"}),
      s("text", {x: to.x(v), y: height - edge.bottom + 18, "text-anchor": "middle", class: "quiet"}, label(v)));
  }
  svg.append(s("text", {x: (edge.left + width - edge.right) / 2, y: height - 6, "text-anchor": "middle"}, x.label),
    s("text", {transform: `translate(13 ${(height - edge.bottom) / 2}) rotate(-90)`, "text-anchor": "middle"}, y.label));
  draw(to, svg);
  return h("figure", {class: "chart"}, svg, caption ? h("figcaption", {}, caption) : null);
}

export function key(...items) {
  return h("div", {class: "legend"}, items.map(([colour, text, hollow]) =>
    h("span", {}, h("i", {style: hollow ? {border: `2px solid ${colour}`} : {background: colour}}), text)));
}
