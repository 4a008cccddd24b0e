// Records of objects: found by key or by position, each read with the block of its neighbours on the sky.

import {columns, json, openWhole} from "./parquet.js";
import {distance, pixelsAround} from "./healpix.js";

const MOST_BLOCKS = 8;
const blocks = new Map(), firsts = new Map();

// A block by partition and number: {rows, value(column, row), names}.
async function readBlock(release, partition, number) {
  const url = `data/objects/${release.partitions[partition][0]}/${String(number).padStart(5, "0")}.parquet`;
  if (!blocks.has(url)) {
    blocks.set(url, openWhole(url).then(async file => {
      const names = file.metadata.schema.filter(one => one.name !== "schema").map(one => one.name);
      const rows = Number(file.metadata.num_rows), all = names.filter(name => !["list", "element"].includes(name));
      return {rows, read: await columns(file, all, 0, rows)};
    }));
    if (blocks.size > 24) blocks.delete(blocks.keys().next().value);
  }
  return blocks.get(url);
}

function record(block, row) {
  const found = {};
  for (const [name, values] of Object.entries(block.read)) found[name] = values[row] === undefined ? null : values[row];
  return found;
}

// Index of the last of some ascending BigInts that is not above a value; -1 where all are.
function below(sorted, value) {
  let low = 0, high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (BigInt(sorted[middle]) <= value) low = middle + 1; else high = middle;
  }
  return low - 1;
}

// The object of a key (BigInt); null where there is none.
export async function byKey(release, key) {
  const number = below(release.ids.first, key);
  if (number < 0) return null;
  const file = await openWhole(`data/ids/${String(number).padStart(5, "0")}.parquet`);
  const read = await columns(file, ["object_id", "partition", "block"], 0, Number(file.metadata.num_rows));
  const at = below(read.object_id, key);
  if (at < 0 || read.object_id[at] !== key) return null;
  const block = await readBlock(release, read.partition[at], read.block[at]);
  for (let row = 0; row < block.rows; row++) if (block.read.object_id[row] === key) return record(block, row);
  return null;
}

function ranges(release, {order, pixels}) {
  const shift = BigInt(2 * (release.order - order));
  return pixels.map(pixel => [BigInt(pixel) << shift, BigInt(pixel + 1) << shift]);
}

// Objects within a radius [arcsec] of a position [deg], the nearest first, as {record, distance}; whole tells whether
// all blocks that can hold one were read.
export async function around(release, ra, dec, radius) {
  const wanted = ranges(release, pixelsAround(ra, dec, radius));
  const jobs = [];
  for (let partition = 0; partition < release.partitions.length; partition++) {
    const [name, number] = release.partitions[partition];
    const [order, pixel] = name.split("-").map(Number);
    const shift = BigInt(2 * (release.order - order)), begin = BigInt(pixel) << shift, end = BigInt(pixel + 1) << shift;
    const hit = wanted.filter(([low, high]) => low < end && high > begin);
    if (!hit.length || !number) continue;
    if (!firsts.has(name)) firsts.set(name, json(`data/objects/${name}/blocks.json`).then(list => list.map(BigInt)));
    const first = await firsts.get(name), chosen = new Set();
    for (const [low, high] of hit) {
      const last = below(first, high - 1n);
      for (let k = Math.max(0, below(first, low)); k <= last; k++) chosen.add(k);
      // Rows of one pixel of the finest order may begin in the block before.
      const before = below(first, low) - 1;
      if (before >= 0 && first[before + 1] === low) chosen.add(before);
    }
    for (const block of chosen) jobs.push([partition, block]);
  }
  const read = await Promise.all(jobs.slice(0, MOST_BLOCKS).map(([partition, block]) => readBlock(release, partition, block)));
  const found = [];
  for (const block of read) {
    for (let row = 0; row < block.rows; row++) {
      const away = distance(ra, dec, block.read.ra[row], block.read.dec[row]);
      if (away <= radius) found.push({block, row, distance: away});
    }
  }
  found.sort((a, b) => a.distance - b.distance);
  return {
    objects: found.slice(0, 100).map(one => ({record: record(one.block, one.row), distance: one.distance})),
    whole: jobs.length <= MOST_BLOCKS,
  };
}
