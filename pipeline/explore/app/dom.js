// Elements of the page. Text of a catalogue only ever becomes text nodes and attributes, never markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(made.style, value);
    else if (name === "value" || name === "checked") made[name] = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(9).filter(child => child !== null && child !== undefined && child !== false));
  return made;
}

export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
export const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
export const element = id => document.getElementById(id);

export function status(text, bad = false) {
  element("status").textContent = text;
  element("status").className = bad ? "bad" : "";
}

export const count = value => Number(value).toLocaleString("en");

// A number with as many digits as single precision and its error justify.
export function number(value, error = null) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (typeof value === "bigint" || Number.isInteger(value)) return String(value).replace("-", "−");
  if (error !== null && Number.isFinite(error) && error > 0) {
    const digits = Math.min(12, Math.max(0, 1 - Math.floor(Math.log10(error))));
    const text = Math.abs(value) < 1e-4 || Math.abs(value) >= 1e6 ? value.toExponential(2) : value.toFixed(digits);
    return text.replace(/-/g, "−");
  }
  const size = Math.abs(value);
  const text = size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(3) : String(Number(value.toPrecision(5)));
  return text.replace(/-/g, "−");
}

const UNITS = {"Angstrom": "Å", "mW.m**-2": "erg s⁻¹ cm⁻²", "uJy": "µJy", "10**-20.W.m**-2.Angstrom**-1": "10⁻¹⁷ erg s⁻¹ cm⁻² Å⁻¹"};
export const unit = word => UNITS[word] || word;

// A value of a column as text; a probability has as many digits as its calibration can justify.
export function shownValue(column, value, error = null) {
  if (value === null || value === undefined || (typeof value === "number" && Number.isNaN(value))) return "–";
  if (typeof value === "string" || typeof value === "boolean") return String(value);
  return column.probability ? Number(value).toFixed(3) : number(value, error);
}
