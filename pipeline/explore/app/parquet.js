// Parquet files of the site, read by parts where the server serves ranges and whole where it does not.

import {parquetMetadataAsync, parquetRead} from "../vendor/hyparquet/index.js";
import {decompress} from "../vendor/fzstd/fzstd.js";

const FOOTER = 65536;
const compressors = {ZSTD: (input, length) => decompress(input, new Uint8Array(length))};

async function response(url, init) {
  const got = await fetch(url, init).catch(() => null);
  if (!got || !got.ok) throw new Error(`${url} cannot be read (${got ? got.status : "no answer"}): is the site complete?`);
  return got;
}

export const json = async url => (await response(url)).json();

// A file whose size is known, by ranges.
export async function open(url, byteLength) {
  let whole = null;
  const slice = async (start, end = byteLength) => {
    if (whole) return (await whole).slice(start, end);
    const got = await response(url, {headers: {Range: `bytes=${start}-${end - 1}`}});
    if (got.status === 206) return got.arrayBuffer();
    whole = got.arrayBuffer();
    return (await whole).slice(start, end);
  };
  const file = {byteLength, slice};
  return {file, metadata: await parquetMetadataAsync(file, {initialFetchSize: FOOTER})};
}

// A small file, whole.
export async function openWhole(url) {
  const content = await (await response(url)).arrayBuffer();
  const file = {byteLength: content.byteLength, slice: (start, end) => content.slice(start, end)};
  return {file, metadata: await parquetMetadataAsync(file)};
}

// Rows start to end of some columns, each as one array by its name; `pages`: read the pages that hold them alone, which
// takes one more request for each column and group.
export async function columns({file, metadata}, names, start, end, pages = true) {
  const parts = {};
  for (const name of names) parts[name] = [];
  await parquetRead({
    file, metadata, compressors, columns: names, rowStart: start, rowEnd: end, useOffsetIndex: pages,
    onChunk: chunk => parts[chunk.columnName].push(chunk),
  });
  const found = {};
  for (const name of names) found[name] = joined(parts[name], start, end);
  return found;
}

function joined(chunks, start, end) {
  const inside = chunks.filter(one => one.rowEnd > start && one.rowStart < end).sort((a, b) => a.rowStart - b.rowStart);
  const cut = inside.map(one => one.columnData.slice(Math.max(0, start - one.rowStart), Math.min(one.columnData.length, end - one.rowStart)));
  if (cut.length === 1) return cut[0];
  if (!cut.length || !cut.every(one => ArrayBuffer.isView(one) && one.constructor === cut[0].constructor)) return [].concat(...cut.map(one => Array.isArray(one) ? one : Array.from(one)));
  const made = new cut[0].constructor(end - start);
  let at = 0;
  for (const part of cut) { made.set(part, at); at += part.length; }
  return made;
}

// Groups of rows of a file: {start, end, smallest, largest by column}.
export function groups({metadata}) {
  let at = 0;
  return metadata.row_groups.map(group => {
    const start = at, limits = {};
    at += Number(group.num_rows);
    for (const {meta_data: chunk} of group.columns) {
      const known = chunk.statistics;
      if (known && typeof known.min_value === "number") limits[chunk.path_in_schema[0]] = [known.min_value, known.max_value];
    }
    return {start, end: at, limits};
  });
}
