// Worker that reads the table: rows that meet all conditions, and values of columns in them.

import {columns, groups, open} from "./parquet.js";

const files = new Map();

function fileOf(entry) {
  if (!files.has(entry.file)) files.set(entry.file, open(`../data/table/${entry.file}`, entry.bytes));
  return files.get(entry.file);
}

// Whether a group of rows can hold one that meets the conditions, by its smallest and largest values.
function possible(group, conditions) {
  return conditions.every(({column, low, high}) => {
    const limit = group.limits[column];
    if (!limit) return true;
    return !(low !== null && limit[1] < low) && !(high !== null && limit[0] > high);
  });
}

function test(condition, values, kept) {
  const {low, high, words, text} = condition;
  if (words) {
    const allowed = new Set(words);
    for (let i = 0; i < values.length; i++) if (kept[i] && !allowed.has(values[i])) kept[i] = 0;
  } else if (text !== undefined) {
    for (let i = 0; i < values.length; i++) if (kept[i] && !String(values[i]).includes(text)) kept[i] = 0;
  } else {
    const least = low === null ? -Infinity : low, most = high === null ? Infinity : high;
    for (let i = 0; i < values.length; i++) {
      const value = Number(values[i]);
      if (!(value >= least && value <= most)) kept[i] = 0;
    }
  }
}

// Groups of rows that begin in the k-th of n equal parts of the table: {f, file, start, end, limits}.
async function groupsOf(entries, [k, n]) {
  const total = entries.reduce((sum, one) => sum + one.rows, 0), low = Math.floor(total * k / n), high = Math.floor(total * (k + 1) / n);
  let before = 0;
  const begins = entries.map(one => { before += one.rows; return before - one.rows; });
  const inside = entries.map((_, f) => f).filter(f => begins[f] < high && begins[f] + entries[f].rows > low);
  const files = await Promise.all(inside.map(f => fileOf(entries[f])));
  return inside.flatMap((f, i) => groups(files[i]).map(group => ({f, file: files[i], ...group})))
    .filter(group => begins[group.f] + group.start >= low && begins[group.f] + group.start < high);
}

// Count the rows that meet the conditions; `want`: values of columns in at most `most` of them, from groups evenly
// over the table; `places`: [file, row] of the first of them; `share`: [k, n], in the k-th of n parts of the table.
async function scan({id, entries, conditions, want, most, places, share}) {
  const listed = await groupsOf(entries, share);
  const names = [...new Set(conditions.map(one => one.column))], found = [];
  const values = Object.fromEntries(want.map(name => [name, []]));
  let rows = 0, read = 0, taken = 0, matched = 0, done = 0;
  const total = entries.reduce((sum, one) => sum + one.rows, 0);
  const stride = Math.max(1, Math.ceil(total / most));
  const one = async (group, number) => {
    const size = group.end - group.start;
    if (possible(group, conditions)) {
      const got = names.length ? await columns(group.file, names, group.start, group.end, false) : {};
      const kept = new Uint8Array(size).fill(1);
      for (const condition of conditions) test(condition, got[condition.column], kept);
      let inside = 0;
      for (let i = 0; i < size; i++) inside += kept[i];
      matched += inside;
      if (places && inside && found.length < places) {
        for (let i = 0; i < size && found.length < places; i++) if (kept[i]) found.push([group.f, group.start + i]);
      }
      if (want.length && inside && number % stride === 0) {
        const more = await columns(group.file, want.filter(name => !got[name]), group.start, group.end, false);
        for (const name of want) {
          const all = got[name] || more[name], chosen = new Array(inside);
          for (let i = 0, k = 0; i < size; i++) if (kept[i]) chosen[k++] = all[i];
          values[name].push(chosen);
        }
        taken += inside;
      }
    }
    rows += size;
    if (want.length && number % stride === 0) read += size;
    if (++done % 4 === 0) postMessage({id, progress: rows / total, matched});
  };
  // Two groups at a time: one is decoded while the other is on its way. Places keep their order within each pair.
  for (let k = 0; k < listed.length; k += 2) await Promise.all(listed.slice(k, k + 2).map((group, i) => one(group, k + i)));
  return {matched, total, places: found, taken, read,
    values: Object.fromEntries(want.map(name => [name, values[name].flat()]))};
}

// Values of columns in some rows, [file, row] each.
async function pick({entries, want, places}) {
  const near = new Map();
  places.forEach(([f, row], i) => {
    const key = `${f}:${Math.floor(row / 1000)}`;
    if (!near.has(key)) near.set(key, []);
    near.get(key).push([f, row, i]);
  });
  const made = places.map(() => ({}));
  for (const group of near.values()) {
    const rows = group.map(([, row]) => row), start = Math.min(...rows), end = Math.max(...rows) + 1;
    const got = await columns(await fileOf(entries[group[0][0]]), want, start, end);
    for (const [, row, i] of group) for (const name of want) made[i][name] = got[name][row - start];
  }
  return made;
}

onmessage = async ({data}) => {
  try {
    postMessage({id: data.id, result: await (data.kind === "pick" ? pick(data) : scan(data))});
  } catch (problem) {
    postMessage({id: data.id, error: problem.message});
  }
};
