// Page of an object: all that the release knows of it.

import {chart, key} from "./chart.js";
import {count, h, number, s, shownValue, status, unit} from "./dom.js";
import {around, byKey} from "./objects.js";

const COLOURS = {GALAXY: "var(--blue)", STAR: "var(--orange)", QSO: "var(--purple)"};
const NEAR = 30, OPTICAL = 12000;
const finite = v => v !== null && v !== undefined && Number.isFinite(Number(v));

export async function showObject(release, main, word) {
  if (!/^\d{1,19}$/.test(word)) throw new Error(`${word} is no key of an object: keys are whole numbers`);
  status("Reading the object …");
  const record = await byKey(release, BigInt(word));
  if (!record) throw new Error(`The release has no object ${word}`);
  const near = await around(release, record.ra, record.dec, NEAR);
  document.title = `${word} · ${release.title}`;
  main.replaceChildren(
    head(release, record), ...photometry(release, record), ...spectrum(release, record),
    h("div", {class: "two"}, h("div", {}, ...classes(release, record)), h("div", {}, ...pdfs(release, record))),
    ...properties(release, record), ...neighbours(release, record, near), ...provenance(release));
  status("");
}

function head(release, record) {
  const ra = record.ra, dec = record.dec, place = `${ra.toFixed(6)}, ${dec.toFixed(6)}`;
  const away = (text, url) => h("a", {href: url, target: "_blank", rel: "noopener noreferrer"}, text);
  const links = [
    away("SIMBAD", `https://simbad.cds.unistra.fr/simbad/sim-coo?Coord=${ra}%20${dec}&CooFrame=ICRS&Radius=10&Radius.unit=arcsec`), " · ",
    away("Legacy Survey viewer", `https://www.legacysurvey.org/viewer?ra=${ra}&dec=${dec}&mark=${ra},${dec}&layer=ls-dr10&zoom=16`), " · ",
    h("a", {href: `#sky/${ra.toFixed(6)},${dec.toFixed(6)}`}, "on the map"),
  ];
  return h("div", {class: "object-head"},
    h("div", {}, h("h2", {}, `Object ${record.object_id}`), h("p", {class: "lead"}, `RA ${place.split(", ")[0]}°, Dec ${place.split(", ")[1].replace("-", "−")}° (ICRS)`), h("p", {}, ...links), flags(release, record)),
    picture(release, record));
}

function picture(release, record) {
  const bytes = record.picture;
  if (!bytes) return null;
  const raw = typeof bytes === "string" ? Uint8Array.from(bytes, c => c.charCodeAt(0)) : bytes;
  const image = h("img", {src: URL.createObjectURL(new Blob([raw], {type: "image/jpeg"})), alt: `Cut-out in z, r and g around the object, ${release.picture} arcsec on a side, north up`});
  return h("figure", {style: {margin: 0}}, image, h("figcaption", {}, `z, r, g; ${release.picture}″, north up`));
}

function flags(release, record) {
  return release.products.filter(one => one.flags).map(product => {
    const mask = Number(record[product.flags] ?? 0), set = product.bits.filter(([bit]) => mask & bit);
    if (record[product.flags] === null) return h("p", {class: "note"}, `${product.title}: the object has no row.`);
    if (!set.length) return h("p", {class: "note good"}, `${product.title}: no flag is set.`);
    return [h("h4", {}, `Flags of ${product.title}`), h("ul", {class: "flags"}, set.map(([, name, text]) => h("li", {}, h("code", {}, name), `: ${text}`)))];
  });
}

function photometry(release, record) {
  const points = release.bands.map(band => ({
    ...band, y: record[band.flux], e: record[band.error],
    p: band.predicted ? record[band.predicted] : null, q: band.predicted_error ? record[band.predicted_error] : null,
  })).filter(one => finite(one.y) || finite(one.p));
  if (!points.length) return [];
  const all = points, infrared = points.some(one => one.pivot > OPTICAL), box = h("div", {});
  const predictions = points.some(one => finite(one.p));
  const paint = (log, wide) => {
    const points = all.filter(one => wide || one.pivot <= OPTICAL);
    const measured = points.filter(one => finite(one.y)), predicted = points.filter(one => finite(one.p));
    const inside = points.flatMap(one => [one.y, one.p]).filter(v => finite(v) && (!log || v > 0));
    if (!inside.length) { box.replaceChildren(h("p", {class: "note"}, "No flux density is above zero.")); return; }
    const low = log ? Math.min(...inside) * 0.75 : Math.min(0, ...inside) * 1.08, high = Math.max(...inside) * (log ? 1.35 : 1.08);
    const hidden = log ? measured.filter(one => one.y <= 0).length : 0;
    box.replaceChildren(chart({
      x: {low: 3300, high: Math.max(...points.map(one => one.pivot)) * (wide ? 1.06 : 1.02), log: wide, label: "wavelength [Å]"},
      y: {low, high: high > low ? high : low + 1, log, label: "flux density f_ν [µJy]"}, height: 340,
      alt: `Flux densities in ${measured.length} measured bands${predicted.length ? ` and ${predicted.length} predicted ones` : ""}`,
      caption: `Flux density and standard error, Galactic extinction included.${hidden ? ` ${hidden} bands at or below zero are not on the logarithmic scale.` : ""}${predicted.length ? " Each band is predicted from others, without its own measurement; see the data model." : ""}`,
      draw: (to, svg) => {
        const bar = (x, v, e, colour, width) => {
          if (!finite(e) || !(e > 0)) return;
          const bottom = Math.max(v - e, log ? low : -Infinity);
          svg.append(s("line", {x1: x, x2: x, y1: to.y(Math.min(v + e, high)), y2: to.y(Math.max(bottom, low)), stroke: colour, "stroke-width": width}));
        };
        for (const one of predicted) {
          if (log && one.p <= 0) continue;
          const x = to.x(one.pivot);
          bar(x, one.p, one.q, "var(--orange)", 1.2);
          svg.append(s("rect", {x: x - 3.5, y: to.y(one.p) - 3.5, width: 7, height: 7, fill: "none", stroke: "var(--orange)", "stroke-width": 1.6}, s("title", {}, `${one.name} predicted: ${number(one.p, one.q)} ± ${number(one.q)} µJy`)));
        }
        for (const one of measured) {
          if (log && one.y <= 0) continue;
          const x = to.x(one.pivot);
          bar(x, one.y, one.e, "var(--blue)", 1.4);
          svg.append(s("circle", {cx: x, cy: to.y(one.y), r: 3.2, fill: "var(--blue)"}, s("title", {}, `${one.name}: ${number(one.y, one.e)} ± ${number(one.e)} µJy`)));
        }
      },
    }));
  };
  const measured = all.filter(one => finite(one.y)), again = () => paint(choice.value === "log", wide.checked);
  const choice = h("select", {onchange: again}, h("option", {value: "log"}, "logarithmic"), h("option", {value: "linear"}, "linear"));
  const wide = h("input", {type: "checkbox", onchange: again});
  choice.value = measured.filter(one => one.y > 0).length >= 0.9 * measured.length ? "log" : "linear";
  wide.checked = infrared && all.every(one => one.pivot > OPTICAL);
  again();
  const rows = points.map(one => h("tr", {}, h("td", {class: "word"}, one.name), h("td", {class: "word"}, one.system), h("td", {}, number(one.pivot)), h("td", {}, number(one.y, one.e)), h("td", {}, number(one.e)), predictions ? [h("td", {}, number(one.p, one.q)), h("td", {}, number(one.q))] : null));
  return [
    h("h2", {}, "Photometry"), h("div", {class: "line"}, h("label", {}, "Flux scale ", choice), infrared ? h("label", {}, wide, " with infrared bands") : null, key(["var(--blue)", "measured"], ...(predictions ? [["var(--orange)", "predicted from other bands", true]] : []))), box,
    h("details", {}, h("summary", {}, "Values in all bands"), h("div", {class: "wide"}, h("table", {}, h("thead", {}, h("tr", {}, h("th", {class: "word"}, "band"), h("th", {class: "word"}, "survey"), h("th", {}, "pivot [Å]"), h("th", {}, "flux [µJy]"), h("th", {}, "error"), predictions ? [h("th", {}, "predicted [µJy]"), h("th", {}, "error")] : null)), h("tbody", {}, rows)))),
  ];
}

function spectrum(release, record) {
  const flux = record.spectrum;
  if (!flux) return [];
  const first = record.spectrum_first, last = record.spectrum_last, step = (last - first) / flux.length;
  const known = [...flux].filter(finite).sort((a, b) => a - b);
  const low = Math.min(0, known[Math.floor(0.002 * (known.length - 1))]), high = known[Math.ceil(0.998 * (known.length - 1))];
  let path = "", drawing = false;
  return [h("h2", {}, "Spectrum"), chart({
    x: {low: first, high: last, label: "vacuum wavelength [Å]"}, y: {low: low - 0.05 * (high - low), high: high + 0.05 * (high - low), label: "flux density f_λ"},
    alt: `Spectrum from ${Math.round(first)} to ${Math.round(last)} Angstrom`, caption: `Mean in ${flux.length} bins, weighted by inverse variance; 10⁻¹⁷ erg s⁻¹ cm⁻² Å⁻¹, or the survey's own scale.`,
    draw: (to, svg) => {
      [...flux].forEach((v, i) => {
        if (!finite(v)) { drawing = false; return; }
        path += `${drawing ? "L" : "M"}${to.x(first + (i + 0.5) * step).toFixed(1)},${to.y(Math.max(low, Math.min(high, v))).toFixed(1)}`;
        drawing = true;
      });
      svg.append(s("path", {d: path, fill: "none", stroke: "var(--blue)", "stroke-width": 1.2}));
    },
  })];
}

function classes(release, record) {
  const entries = Object.entries(release.probabilities);
  if (!entries.length) return [];
  const named = release.class ? record[release.class] : null;
  return [h("h2", {}, "Class"), h("p", {}, named && named !== release.none ? ["Most probable class: ", h("b", {}, named)] : "No class is predicted."),
    h("div", {class: "probability"}, entries.flatMap(([name, column]) => {
      const p = record[column];
      return [h("span", {}, name), h("span", {class: "bar", "aria-hidden": "true"}, h("div", {style: {width: `${100 * (finite(p) ? p : 0)}%`, background: COLOURS[name]}})), h("span", {}, finite(p) ? `${(100 * p).toFixed(1)} %` : "–")];
    }))];
}

function pdfs(release, record) {
  if (!release.pdfs) return [];
  const step = release.pdfs.step, curves = [];
  for (const [name, column] of Object.entries(release.pdfs.columns)) {
    const bins = record[`${column}_bin`], p = record[column];
    if (!bins || !bins.length) continue;
    const sum = [...p].reduce((a, b) => a + Number(b), 0);
    curves.push({name, points: [...bins].map((k, i) => [Math.expm1(step * k), Math.expm1(step * (k + 1)), Number(p[i]) / sum / (Math.expm1(step * (k + 1)) - Math.expm1(step * k))])});
  }
  if (!curves.length) return [h("h2", {}, "Redshift"), h("p", {class: "note"}, "No redshift PDF: neither a galaxy nor a quasar with a probability of 0.01.")];
  const peak = Math.max(...curves.flatMap(one => one.points).map(one => one[2]));
  const all = curves.flatMap(one => one.points).filter(one => one[2] > 0.002 * peak), least = Math.min(...all.map(one => one[0])), most = Math.max(...all.map(one => one[1]));
  const room = 0.04 * (most - least) + 0.005, x0 = Math.max(0, least - room), x1 = most + room, top = Math.max(...all.map(one => one[2])) * 1.06;
  return [h("h2", {}, "Redshift"), key(...curves.map(one => [COLOURS[one.name], `p(z | ${one.name})`])), chart({
    x: {low: x0, high: x1, label: "redshift z"}, y: {low: 0, high: top, label: "density p(z)"}, height: 240, width: Math.min(560, Math.max(320, innerWidth - 48)),
    alt: `Redshift PDF under ${curves.length === 1 ? "one class" : "two classes"}`, caption: "PDF if the object is of that class, each of integral 1; shown where it is above 0.2 % of the peak.",
    draw: (to, svg) => {
      for (const {name, points} of curves) {
        let path = "", end = null;
        for (const [a, b, v] of points.filter(one => one[1] > x0 && one[0] < x1)) {
          if (end === null || a - end > 1e-6) path += `${end === null ? "" : `L${to.x(end)},${to.y(0)}`}M${to.x(a)},${to.y(0)}`;
          path += `L${to.x(a).toFixed(2)},${to.y(v).toFixed(2)}L${to.x(b).toFixed(2)},${to.y(v).toFixed(2)}`;
          end = b;
        }
        path += `L${to.x(end)},${to.y(0)}`;
        svg.append(s("path", {d: path, fill: COLOURS[name], "fill-opacity": 0.25, stroke: COLOURS[name], "stroke-width": 1.4}));
      }
    },
  })];
}

function properties(release, record) {
  const bands = new Set(release.bands.flatMap(one => [one.flux, one.error, one.predicted, one.predicted_error]));
  const parts = [];
  for (const product of release.products) {
    const columns = product.columns.filter(one => !bands.has(one.name) && one.name !== product.flags && !(record[one.name] instanceof Array || ArrayBuffer.isView(record[one.name])) && !one.name.match(/_pdf(_bin)?$/));
    const errors = new Map(columns.filter(one => one.name.endsWith("_err")).map(one => [one.name.slice(0, -4), one]));
    const given = [], missing = [];
    for (const one of columns) {
      if (one.name.endsWith("_err") && columns.some(other => other.name === one.name.slice(0, -4))) continue;
      const value = record[one.name], error = errors.has(one.name) ? record[`${one.name}_err`] : null;
      if (value === null || value === undefined || value === release.none || Number.isNaN(value)) { missing.push(one.label); continue; }
      const shown = shownValue(one, value, error);
      given.push(h("tr", {}, h("td", {class: "word"}, h("code", {}, one.label)), h("td", {}, shown), h("td", {}, finite(error) ? `± ${number(error, error)}` : ""), h("td", {class: "word"}, unit(one.unit)), h("td", {class: "say"}, one.description)));
    }
    if (!given.length && !missing.length) continue;
    const table = given.length ? h("div", {class: "wide"}, h("table", {class: "properties"}, h("thead", {}, h("tr", {}, h("th", {class: "word"}, "column"), h("th", {}, "value"), h("th", {}, "error"), h("th", {class: "word"}, "unit"), h("th", {class: "word"}, "meaning"))), h("tbody", {}, given))) : h("p", {class: "note"}, "No value.");
    const rest = missing.length ? h("p", {class: "note"}, `Without a value: ${missing.join(", ")}.`) : null;
    parts.push(h("details", {open: product.name === release.main}, h("summary", {}, `${product.title}: ${count(given.length)} values`), table, rest));
  }
  return [h("h2", {}, "Properties"), ...parts];
}

function neighbours(release, record, near) {
  const parts = [];
  const ids = record["similar.object_id"];
  if (ids && ids.length) {
    parts.push(h("h2", {}, "Similar objects"), h("p", {class: "note"}, `The nearest embeddings (${release.similar}); cosine similarity.`),
      h("ul", {}, [...ids].map((id, i) => h("li", {}, h("a", {href: `#object/${id}`}, String(id)), ` ${Number(record["similar.similarity"][i]).toFixed(4)}`))));
  }
  const others = near.objects.filter(one => one.record.object_id !== record.object_id);
  parts.push(h("h2", {}, "Neighbours on the sky"));
  if (!near.whole) parts.push(h("p", {class: "note"}, "The field is crowded: not all neighbours are shown."));
  if (others.length) parts.push(h("ul", {}, others.slice(0, 20).map(one => h("li", {}, h("a", {href: `#object/${one.record.object_id}`}, String(one.record.object_id)), ` ${one.distance.toFixed(2)}″${release.class && one.record[release.class] ? `, ${one.record[release.class]}` : ""}`))));
  else parts.push(h("p", {class: "note"}, `None within ${NEAR} arcsec.`));
  return parts;
}

function provenance(release) {
  return [h("h2", {}, "Provenance"), ...release.products.map(product => h("details", {}, h("summary", {}, product.title), h("p", {class: "note"}, product.description),
    h("dl", {class: "facts"}, Object.entries(product.provenance).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, String(value))]))))];
}
