// Table and plot: conditions on columns, the rows that meet them, and any two columns against each other.

import {ticks} from "./chart.js";
import {count, h, number, shownValue, status, unit} from "./dom.js";
import {pick, scan} from "./readers.js";

const PAGE = 25, PLACES = 2000, POINTS = 1000000, DOTS = 20000;
let state = null;

const named = column => `${column.label}${column.unit ? ` [${unit(column.unit)}]` : ""}`;

// Columns with labels that tell them apart.
function columnsOf(release) {
  const keys = [["object_id", "key of the object", ""], ["ra", "right ascension (ICRS)", "deg"], ["dec", "declination (ICRS)", "deg"]]
    .map(([name, description, one]) => ({name, label: name, description, unit: one, kind: name === "object_id" ? "key" : "number", words: []}));
  const all = [...keys, ...release.table.columns], labels = new Map();
  for (const one of all) labels.set(one.label, (labels.get(one.label) || 0) + 1);
  return all.map(one => labels.get(one.label) > 1 && one.product ? {...one, label: `${one.label} (${one.product})`} : one);
}

function condition(column, saved = {}) {
  if (column.kind === "word" && column.words.length <= 12) {
    const boxes = column.words.map(word => h("input", {type: "checkbox", value: word, checked: saved.words ? saved.words.includes(word) : true}));
    return {column, node: h("span", {class: "words"}, boxes.map((box, i) => h("label", {}, box, ` ${column.words[i]}`))), read: () => {
      const words = boxes.filter(box => box.checked).map(box => box.value);
      return words.length === boxes.length ? null : {column: column.name, words};
    }};
  }
  if (["word", "text"].includes(column.kind)) {
    const text = h("input", {type: "text", value: saved.text || "", "aria-label": `${column.label} contains`});
    return {column, node: h("label", {}, "contains ", text), read: () => text.value ? {column: column.name, text: text.value} : null};
  }
  const field = (value, name) => h("input", {type: "number", step: "any", value: value ?? "", "aria-label": `${name} ${column.label}`});
  const low = field(saved.low, "least"), high = field(saved.high, "largest");
  const value = input => input.value === "" ? null : Number(input.value);
  return {column, node: h("span", {class: "line"}, "from ", low, " to ", high, column.unit ? ` ${unit(column.unit)}` : ""), read: () =>
    value(low) === null && value(high) === null ? null : {column: column.name, low: value(low), high: value(high)}};
}

export async function showTable(release, main, saved) {
  const columns = columnsOf(release), byName = new Map(columns.map(one => [one.name, one]));
  if (!state || state.release !== release) {
    const wanted = [release.class, release.redshift].filter(name => byName.has(name));
    state = {release, conditions: wanted.map(name => [name, {}]), page: 0, x: release.redshift && byName.has(release.redshift) ? release.redshift : "ra", y: null};
    state.y = columns.find(one => one.name.startsWith("photometry.flux_") || one.label === "log_mass")?.name || "dec";
  }
  if (saved) {
    try { state.conditions = JSON.parse(saved).filter(([name]) => byName.has(name)).map(([name, how]) => [name, how || {}]); } catch { /* an address that was cut */ }
  }
  const fields = h("div", {class: "conditions"}), outcome = h("p", {class: "lead", id: "outcome", "aria-live": "polite"}), list = h("div", {class: "wide"}), pager = h("div", {class: "line"}), plot = h("div", {id: "plot"});
  let conditions = [];
  const keep = () => state.conditions = conditions.map(one => [one.column.name, one.read() || {}]);
  const paint = () => {
    conditions = state.conditions.map(([name, how]) => condition(byName.get(name), how));
    fields.replaceChildren(...conditions.map((one, i) => h("fieldset", {title: one.column.description}, h("legend", {}, named(one.column)), one.node, " ",
      h("button", {type: "button", "aria-label": `Remove the condition on ${one.column.label}`, class: "small", title: "Remove", onclick: () => { keep(); state.conditions.splice(i, 1); paint(); }}, "×"))));
  };
  const more = h("select", {id: "more", onchange: event => { keep(); state.conditions.push([event.target.value, {}]); event.target.value = ""; paint(); }}, h("option", {value: ""}, "choose a column"), columns.filter(one => one.kind !== "key").map(one => h("option", {value: one.name}, named(one))));
  const select = axis => h("select", {id: `axis-${axis}`, onchange: event => { state[axis] = event.target.value; draw(); }}, columns.filter(one => one.kind === "number").map(one => h("option", {value: one.name}, named(one))));
  const x = select("x"), y = select("y");
  [x.value, y.value] = [state.x, state.y];
  const logs = {x: h("input", {type: "checkbox", onchange: () => draw()}), y: h("input", {type: "checkbox", onchange: () => draw()})};
  let places = [], made = [];

  const shown = () => {
    const first = ["object_id", "ra", "dec", release.class, release.redshift].filter(name => name && byName.has(name));
    const rest = [...Object.values(release.probabilities), state.x, state.y, ...made.map(one => one.column)].filter(name => byName.has(name));
    return [...new Set([...first, ...rest])];
  };
  const rows = async () => {
    const names = shown(), part = places.slice(state.page * PAGE, (state.page + 1) * PAGE);
    const read = part.length ? await pick({entries: release.table.files, want: names, places: part}) : [];
    const open = row => { location.hash = `object/${row.object_id}`; };
    list.replaceChildren(h("table", {class: "rows"}, h("thead", {}, h("tr", {}, names.map(name => h("th", {class: byName.get(name).kind === "number" ? null : "word", title: byName.get(name).description}, named(byName.get(name)))))),
      h("tbody", {}, read.map(row => h("tr", {onclick: () => open(row)}, names.map((name, i) => i === 0
        ? h("td", {class: "word"}, h("a", {href: `#object/${row.object_id}`}, String(row.object_id)))
        : h("td", {class: ["word", "text"].includes(byName.get(name).kind) ? "text" : null}, name === "ra" || name === "dec" ? row[name].toFixed(5) : shownValue(byName.get(name), row[name]))))))));
    const pages = Math.ceil(places.length / PAGE);
    const go = step => async () => { state.page += step; await rows(); };
    pager.replaceChildren(h("button", {type: "button", disabled: state.page === 0, onclick: go(-1)}, "Previous"), h("button", {type: "button", disabled: state.page + 1 >= pages, onclick: go(1)}, "Next"), h("span", {class: "note"}, pages ? `page ${state.page + 1} of ${count(pages)}${places.length >= PLACES ? ` (the first ${count(PLACES)} rows)` : ""}` : ""));
  };
  const draw = async () => {
    const got = await scan({entries: release.table.files, conditions: made, want: [...new Set([state.x, state.y])], most: POINTS, places: 0});
    plot.replaceChildren(...scatter(byName.get(state.x), byName.get(state.y), got.values[state.x], got.values[state.y], got.part, logs.x.checked, logs.y.checked));
    plot.dataset.points = got.taken;
  };
  const run = async event => {
    event?.preventDefault();
    keep();
    made = conditions.map(one => one.read()).filter(Boolean);
    history.replaceState(null, "", `#table/${encodeURIComponent(JSON.stringify(state.conditions))}`);
    state.page = 0;
    outcome.textContent = "Reading …";
    const begin = performance.now();
    try {
      const got = await scan({entries: release.table.files, conditions: made, want: [], most: POINTS, places: PLACES}, part => { outcome.textContent = `Reading … ${Math.round(100 * part.progress)} %, ${count(part.matched)} objects so far`; });
      const seconds = (performance.now() - begin) / 1000;
      places = got.places;
      outcome.textContent = `${count(got.matched)} of ${count(got.total)} objects, in ${seconds.toFixed(2)} s`;
      outcome.dataset.matched = got.matched;
      outcome.dataset.seconds = seconds;
      await rows();
      await draw();
    } catch (problem) {
      outcome.textContent = "";
      status(problem.message, true);
    }
  };
  paint();
  main.replaceChildren(h("h2", {}, "Table"),
    h("form", {id: "filter", onsubmit: run}, fields, h("div", {class: "line"}, h("label", {for: "more"}, "Condition on another column"), more, h("button", {class: "first"}, "Show"))),
    outcome, list, pager, h("h2", {}, "Plot"),
    h("div", {class: "line"}, h("label", {}, "Horizontal ", x), h("label", {}, logs.x, " logarithmic"), h("label", {}, "Vertical ", y), h("label", {}, logs.y, " logarithmic")), plot);
  await run();
}

// Points, or their density where they are many, on a canvas.
function scatter(xColumn, yColumn, xs, ys, part, logX, logY) {
  const usable = (v, log) => Number.isFinite(v) && (!log || v > 0), px = [], py = [];
  for (let i = 0; i < xs.length; i++) {
    const a = Number(xs[i]), b = Number(ys[i]);
    if (xs[i] !== null && ys[i] !== null && usable(a, logX) && usable(b, logY)) { px.push(logX ? Math.log10(a) : a); py.push(logY ? Math.log10(b) : b); }
  }
  if (!px.length) return [h("p", {class: "note"}, "No object has both values.")];
  const limits = values => {
    const sorted = Float64Array.from(values).sort(), at = q => sorted[Math.round(q * (sorted.length - 1))];
    const cut = sorted.length > 200 ? 0.002 : 0, low = at(cut), high = at(1 - cut), room = 0.04 * (high - low) || 0.5;
    return [low - room, high + room];
  };
  const [xl, xh] = limits(px), [yl, yh] = limits(py), css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const width = Math.min(1100, Math.max(320, innerWidth - 48)), height = Math.round(Math.min(560, Math.max(300, width * 0.6))), dense = devicePixelRatio || 1;
  const canvas = h("canvas", {role: "img", width: width * dense, height: height * dense, "aria-label": `${yColumn.label} against ${xColumn.label} of ${count(px.length)} objects`});
  const pen = canvas.getContext("2d"), left = 64, right = 12, top = 12, bottom = 46;
  pen.scale(dense, dense);
  const toX = v => left + (v - xl) / (xh - xl) * (width - left - right), toY = v => height - bottom - (v - yl) / (yh - yl) * (height - top - bottom);
  pen.font = `12px ${css("--font")}`;
  pen.strokeStyle = css("--faint"); pen.fillStyle = css("--quiet");
  const write = (v, log) => number(log ? Number((10 ** v).toPrecision(3)) : v);
  for (const v of ticks(xl, xh, width < 500 ? 4 : 8)) { pen.beginPath(); pen.moveTo(toX(v), top); pen.lineTo(toX(v), height - bottom); pen.stroke(); pen.textAlign = "center"; pen.fillText(write(v, logX), toX(v), height - bottom + 17); }
  for (const v of ticks(yl, yh, 6)) { pen.beginPath(); pen.moveTo(left, toY(v)); pen.lineTo(width - right, toY(v)); pen.stroke(); pen.textAlign = "right"; pen.fillText(write(v, logY), left - 7, toY(v) + 4); }
  pen.save(); pen.beginPath(); pen.rect(left, top, width - left - right, height - top - bottom); pen.clip();
  if (px.length <= DOTS) {
    pen.fillStyle = css("--blue"); pen.globalAlpha = px.length > 2000 ? 0.35 : 0.7;
    for (let i = 0; i < px.length; i++) { pen.beginPath(); pen.arc(toX(px[i]), toY(py[i]), 2, 0, 7); pen.fill(); }
  } else {
    const cell = 3, across = Math.ceil(width / cell), counts = new Uint32Array(across * Math.ceil(height / cell));
    for (let i = 0; i < px.length; i++) {
      const a = toX(px[i]), b = toY(py[i]);
      if (a >= left && a < width - right && b >= top && b < height - bottom) counts[Math.floor(b / cell) * across + Math.floor(a / cell)]++;
    }
    const most = Math.log1p(counts.reduce((a, b) => Math.max(a, b), 1));
    pen.fillStyle = css("--blue");
    counts.forEach((n, k) => { if (n) { pen.globalAlpha = 0.12 + 0.88 * Math.log1p(n) / most; pen.fillRect(k % across * cell, Math.floor(k / across) * cell, cell, cell); } });
  }
  pen.restore();
  pen.fillStyle = css("--ink"); pen.textAlign = "center";
  pen.fillText(named(xColumn), (left + width - right) / 2, height - 8);
  pen.save(); pen.translate(13, (top + height - bottom) / 2); pen.rotate(-Math.PI / 2); pen.fillText(named(yColumn), 0, 0); pen.restore();
  const sample = part < 1 ? ` A part of the table (${Math.round(100 * part)} %) is drawn, evenly over the sky.` : "";
  return [h("figure", {class: "chart"}, canvas, h("figcaption", {}, `${count(px.length)} objects with both values; 0.2 % at either end of an axis may lie outside.${px.length > DOTS ? " Shade: number of objects, logarithmic." : ""}${sample}`))];
}
