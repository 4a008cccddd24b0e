// Sky: coverage and density of the release in Aladin Lite, without tiles of any survey.

import {key} from "./chart.js";
import {count, h, status} from "./dom.js";
import {around} from "./objects.js";

const STEPS = ["#30476b", "#3f7f93", "#5cb68b", "#b5d860", "#fde725"];
let loaded = null;

const library = () => loaded ||= import("../vendor/aladin-lite/aladin.js").then(async module => { await module.default.init; return module.default; });

// Classes of density: limits of five parts of the pixels, each once.
export function classesOf(counts) {
  const sorted = [...counts].sort((a, b) => a - b);
  const limits = STEPS.map((_, i) => sorted[Math.min(sorted.length - 1, Math.ceil((i + 1) / STEPS.length * sorted.length) - 1)]);
  return [...new Set(limits)];
}


export async function showSky(release, main, place) {
  const box = h("div", {id: "sky", role: "application", "aria-label": "Map of the sky with the density of the release"});
  const limits = classesOf(release.sky.counts), area = 41252.96 / (12 * 4 ** release.sky.order);
  const shown = limits.map((limit, i) => [STEPS[Math.round(i * (STEPS.length - 1) / Math.max(1, limits.length - 1))], `≤ ${count(Math.round(limit / area))}`]);
  const list = h("div", {});
  main.replaceChildren(h("h2", {}, "Sky"), box, key(...shown), h("p", {class: "note"}, `Objects per square degree, by HEALPix pixels of order ${release.sky.order}. Click to find the object next to a place; the same is found by a position in the field above.`), list);
  try {
    const A = await library();
    const aladin = A.aladin(box, {
      survey: [], surveyUrl: null, fov: Math.min(180, release.centre.fov * Math.max(1, box.clientWidth / box.clientHeight)), target: `${release.centre.ra} ${release.centre.dec}`, projection: release.centre.fov > 100 ? "MOL" : "TAN", cooFrame: "ICRSd",
      showReticle: true, showCooGrid: true, showLayersControl: false, showGotoControl: false, showFrame: false, showShareControl: false, showSimbadPointerControl: false, showContextMenu: false, showSettingsControl: false, showStatusBar: false, showProjectionControl: false, showZoomControl: true, showFullscreenControl: false, showCooLocation: true, backgroundColor: "rgb(16, 20, 24)", log: false,
    });
    const parts = shown.map(() => []);
    release.sky.counts.forEach((value, i) => parts[limits.findIndex(limit => value <= limit)].push(release.sky.pixels[i]));
    parts.forEach((pixels, i) => {
      const moc = A.MOCFromJSON({[release.sky.order]: pixels}, {color: shown[i][0], fillColor: shown[i][0], fill: true, opacity: 0.75, lineWidth: 1, perimeter: false, edge: false});
      aladin.addMOC(moc);
    });
    const marks = A.catalog({name: "objects", sourceSize: 12, color: "#ffffff", shape: "circle"});
    aladin.addCatalog(marks);
    const find = async (ra, dec) => {
      const radius = Math.max(5, Math.min(300, aladin.getFov()[0] * 3600 / 60));
      status("Looking for the nearest object …");
      const found = await around(release, ra, dec, radius);
      marks.removeAll();
      marks.addSources(found.objects.slice(0, 50).map(one => A.source(one.record.ra, one.record.dec)));
      listed(release, list, found, radius);
      status("");
    };
    aladin.on("click", at => { if (at && Number.isFinite(at.ra)) find(at.ra, at.dec).catch(problem => status(problem.message, true)); });
    if (place) {
      aladin.gotoRaDec(place.ra, place.dec);
      aladin.setFov(0.25);
      await find(place.ra, place.dec);
    }
    box.dataset.ready = "true";
  } catch (problem) {
    box.replaceChildren(h("p", {style: {color: "#fff", padding: "1rem"}}, `The map cannot be drawn in this browser (${problem.message || problem}); objects are found by position all the same.`));
    if (place) listed(release, list, await around(release, place.ra, place.dec, 60), 60);
    box.dataset.ready = "none";
  }
}

function listed(release, list, found, radius) {
  if (!found.objects.length) {
    list.replaceChildren(h("p", {role: "status"}, `No object within ${radius < 10 ? radius.toFixed(1) : Math.round(radius)} arcsec.${found.whole ? "" : " The field is crowded: zoom in."}`));
    return;
  }
  list.replaceChildren(h("h3", {}, "Nearest objects"), h("ol", {}, found.objects.slice(0, 10).map(one => h("li", {},
    h("a", {href: `#object/${one.record.object_id}`}, String(one.record.object_id)), ` at ${one.distance.toFixed(2)}″`,
    release.class && one.record[release.class] ? `, ${one.record[release.class]}` : "", release.redshift && one.record[release.redshift] !== null && !Number.isNaN(one.record[release.redshift]) ? `, z = ${Number(one.record[release.redshift]).toFixed(3)}` : ""))));
}
