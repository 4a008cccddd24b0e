// Workers that read the table: all share a scan, the first picks rows.

const MOST = 4;
let workers = null, asked = 0;
const waiting = new Map();

function start() {
  const worker = new Worker(new URL("./scan.js", import.meta.url), {type: "module"});
  worker.onmessage = ({data}) => {
    const one = waiting.get(data.id);
    if (!one) return;
    if (data.progress !== undefined) { one.progress(data); return; }
    waiting.delete(data.id);
    if (data.error) one.fail(new Error(data.error)); else one.done(data.result);
  };
  worker.onerror = problem => { for (const one of waiting.values()) one.fail(new Error(problem.message || "the reader of the table failed")); waiting.clear(); };
  return worker;
}

function all() {
  if (!workers) workers = Array.from({length: Math.min(MOST, navigator.hardwareConcurrency || 1)}, start);
  return workers;
}

function ask(worker, message, progress) {
  const id = ++asked;
  return new Promise((done, fail) => {
    waiting.set(id, {done, fail, progress});
    worker.postMessage({...message, id});
  });
}

// Values of the columns `want` in some rows, [file, row] each.
export const pick = request => ask(all()[0], {kind: "pick", ...request}, () => {});

// Rows of the whole table that meet conditions, as described at `scan` in scan.js.
export async function scan(request, progress = () => {}) {
  const sum = (parts, name) => parts.reduce((total, part) => total + part[name], 0);
  const sofar = all().map(() => ({progress: 0, matched: 0}));
  const parts = await Promise.all(all().map((worker, k) => ask(worker, {kind: "scan", ...request, share: [k, all().length]}, part => {
    sofar[k] = part;
    progress({progress: sum(sofar, "progress"), matched: sum(sofar, "matched")});
  })));
  const {total} = parts[0], places = parts.flatMap(part => part.places).sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  return {
    total, matched: sum(parts, "matched"), taken: sum(parts, "taken"), part: total ? sum(parts, "read") / total : 1,
    places: places.slice(0, request.places),
    values: Object.fromEntries(request.want.map(name => [name, parts.flatMap(part => part.values[name])])),
  };
}
