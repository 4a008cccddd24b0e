// Pages of the site, chosen by the part of the address after #.

import {count, element, h, status} from "./dom.js";
import {json} from "./parquet.js";
import {around} from "./objects.js";
import {showObject} from "./object.js";
import {showSky} from "./sky.js";
import {showTable} from "./table.js";

const PAGES = [["sky", "Sky"], ["table", "Table and plot"]];
const POSITION = /^([+-]?\d+(?:\.\d*)?)\s*[,\s]\s*([+-]?\d+(?:\.\d*)?)$/;
const NEAREST = 30;
let release = null;

async function show() {
  const [page, ...rest] = decodeURIComponent(location.hash.slice(1) || "sky").split("/");
  const main = element("main");
  for (const link of element("pages").children) {
    if (link.dataset.page === page) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  document.title = release.title;
  status("");
  main.dataset.page = "";
  try {
    if (page === "object") await showObject(release, main, rest.join("/"));
    else if (page === "table") await showTable(release, main, rest.join("/"));
    else if (page === "sky") await showSky(release, main, position(rest.join("/")));
    else throw new Error(`The site has no page ${page}`);
    main.dataset.page = page;
  } catch (problem) {
    main.replaceChildren();
    main.dataset.page = "error";
    status(problem.message, true);
  }
}

function position(text) {
  const match = POSITION.exec(text.trim());
  return match && Math.abs(Number(match[2])) <= 90 ? {ra: ((Number(match[1]) % 360) + 360) % 360, dec: Number(match[2])} : null;
}

async function find(event) {
  event.preventDefault();
  const text = element("query").value.trim(), place = position(text);
  if (/^\d{1,19}$/.test(text)) { location.hash = `object/${text}`; return; }
  if (!place) { status(`"${text}" is neither a key nor a position such as 245.5, 43.9`, true); return; }
  status("Looking for the nearest object …");
  try {
    const found = await around(release, place.ra, place.dec, NEAREST);
    if (!found.objects.length) status(`No object within ${NEAREST} arcsec of ${place.ra}, ${place.dec}`, true);
    else location.hash = `object/${found.objects[0].record.object_id}`;
  } catch (problem) {
    status(problem.message, true);
  }
}

async function begin() {
  try {
    release = await json("data/release.json");
  } catch (problem) {
    status(location.protocol === "file:" ? "Browsers read no data from files: serve the folder, for example with python -m http.server" : problem.message, true);
    return;
  }
  const objects = release.table.files.reduce((sum, one) => sum + one.rows, 0);
  element("title").textContent = release.title;
  element("lead").textContent = `Release ${release.release}: ${count(objects)} objects; ${release.products.map(one => one.name).filter(name => name !== release.source).join(", ")}.`;
  element("pages").replaceChildren(...PAGES.map(([name, text]) => h("a", {href: `#${name}`, "data-page": name}, text)),
    ...(release.atlas ? [h("a", {href: "atlas/atlas.html"}, "Atlas")] : []));
  element("find").addEventListener("submit", find);
  addEventListener("hashchange", async () => { await show(); element("main").focus({preventScroll: true}); });
  await show();
}

begin();
