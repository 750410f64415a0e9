"use strict";
// Three things: pictures unpacked, with the values of their curves; a viewer to enlarge them; the grid of histograms.

const by = (id) => document.getElementById(id);
const short = (value) => {
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size >= 1e5 || size < 1e-3 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
  return text.replace("e+", "e").replace("-", "−");
};
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const make = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};

async function unpacked(script) {
  const bytes = Uint8Array.from(atob(script.textContent), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")));
}

// --- the tip beside the pointer

const tip = by("tip");
function showTip(text, x, y) {
  tip.textContent = text;
  tip.hidden = false;
  const dialog = by("viewer");
  (dialog.open ? dialog : document.body).append(tip); // a dialog lies above everything outside of it
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${clamp(x + 14, 4, innerWidth - width - 4)}px`;
  tip.style.top = `${y + 18 + height > innerHeight ? y - height - 10 : y + 18}px`;
}
const hideTip = () => { tip.hidden = true; };
document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
addEventListener("scroll", hideTip, { passive: true });

// --- pictures and the values of their curves

const UNIT = 10000;
const pictures = new Map(); // by name: {url, points}

function words(panel, line, place) {
  const where = [panel.title, line.name].filter(Boolean).join(" · ");
  const values = `${panel.x || "x"} ${short(line.x[place])}, ${panel.y || "y"} ${short(line.y[place])}`;
  return where ? `${where}\n${values}` : values;
}

function nearest(points, x, y) { // x and y in parts of the picture
  let best = null, least = (0.03 * UNIT) ** 2;
  const flat = points.height / points.width;
  for (const panel of points.panels) {
    const [left, top, right, bottom] = panel.box;
    if (x < left - 200 || x > right + 200 || y < top - 200 || y > bottom + 200) continue;
    for (const line of panel.lines) {
      for (let place = 0; place < line.x.length; place++) {
        const across = line.at[2 * place] - x, down = (line.at[2 * place + 1] - y) * flat;
        const far = across * across + down * down;
        if (far < least) { least = far; best = { panel, line, place }; }
      }
    }
  }
  return best;
}

function mark(box, found) {
  let dot = box.querySelector(".dot");
  if (!found) { dot?.remove(); return; }
  if (!dot) box.append(dot = make("span", { className: "dot" }));
  dot.style.left = `${found.line.at[2 * found.place] / UNIT * 100}%`;
  dot.style.top = `${found.line.at[2 * found.place + 1] / UNIT * 100}%`;
}

function tellsValues(box, points) {
  box.addEventListener("pointermove", (event) => {
    const image = box.querySelector("img").getBoundingClientRect();
    const x = (event.clientX - image.left) / image.width * UNIT, y = (event.clientY - image.top) / image.height * UNIT;
    const found = points() && nearest(points(), x, y);
    mark(box, found);
    if (found) showTip(words(found.panel, found.line, found.place), event.clientX, event.clientY);
    else hideTip();
  });
  box.addEventListener("pointerleave", () => { mark(box, null); hideTip(); });
}

async function unpack(box) {
  const [packed, points] = box.querySelectorAll("script");
  const bytes = await (await unpacked(packed)).arrayBuffer();
  const url = URL.createObjectURL(new Blob([bytes], { type: packed.dataset.type }));
  const known = await (await unpacked(points)).json();
  const image = box.querySelector("img");
  image.src = url;
  box.style.maxWidth = `${known.width * 4 / 3}px`; // its own width, so that letters are alike in all pictures
  await image.decode();
  pictures.set(box.dataset.picture, { url, points: known });
  tellsValues(box, () => known);
  const open = () => view(box.dataset.picture);
  image.addEventListener("click", open);
  box.closest("figure").querySelector(".enlarge").addEventListener("click", open);
}

// --- the viewer

const viewer = by("viewer"), stage = by("viewer-stage"), sheet = by("viewer-picture");
const lineChoice = by("viewer-line"), pointChoice = by("viewer-point");
const seen = { name: "", scale: 1, x: 0, y: 0, lines: [] };

function place() {
  sheet.style.transform = `translate(${seen.x}px, ${seen.y}px) scale(${seen.scale})`;
  sheet.style.setProperty("--scale", seen.scale); // for what keeps its own
}
function fit() {
  const { width, height } = pictures.get(seen.name).points;
  const across = stage.clientWidth, down = stage.clientHeight;
  const wide = Math.min(across, down * width / height) * 0.98;
  sheet.style.width = `${wide}px`;
  Object.assign(seen, { scale: 1, x: (across - wide) / 2, y: (down - wide * height / width) / 2 });
  place();
}
function zoom(factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
  const scale = clamp(seen.scale * factor, 0.5, 24);
  const ratio = scale / seen.scale;
  Object.assign(seen, { scale, x: x - (x - seen.x) * ratio, y: y - (y - seen.y) * ratio });
  place();
}
function move(across, down) {
  seen.x += across;
  seen.y += down;
  place();
}

function view(name) {
  const { url, points } = pictures.get(name);
  const image = sheet.querySelector("img");
  image.src = url;
  image.alt = document.querySelector(`[data-picture="${CSS.escape(name)}"] img`).alt;
  seen.name = name;
  seen.lines = points.panels.flatMap((panel) => panel.lines.map((line) => ({ panel, line })));
  by("viewer-title").textContent = name;
  by("viewer-values").hidden = !seen.lines.length;
  lineChoice.replaceChildren(...seen.lines.map(({ panel, line }, index) => {
    const told = [panel.title, panel.y, line.name].filter(Boolean).join(" · ");
    return make("option", { value: index, textContent: told || `curve ${index + 1}` });
  }));
  mark(sheet, null);
  hideTip();
  viewer.showModal();
  chooseLine(false);
  fit();
  stage.focus();
}
function chooseLine(shown) {
  const chosen = seen.lines[lineChoice.value];
  if (!chosen) return;
  pointChoice.max = chosen.line.x.length - 1;
  pointChoice.value = 0;
  choosePoint(shown);
}
function choosePoint(shown = true) {
  const { panel, line } = seen.lines[lineChoice.value];
  const found = { panel, line, place: Number(pointChoice.value) };
  const told = words(panel, line, found.place).replace("\n", ": ");
  pointChoice.setAttribute("aria-valuetext", told);
  by("viewer-readout").textContent = shown ? told : "";
  if (shown) mark(sheet, found);
}

lineChoice.addEventListener("change", () => chooseLine(true));
pointChoice.addEventListener("input", () => choosePoint());
const actions = { in: () => zoom(1.4), out: () => zoom(1 / 1.4), reset: fit, close: () => viewer.close() };
for (const button of viewer.querySelectorAll("[data-zoom]")) {
  button.addEventListener("click", actions[button.dataset.zoom]);
}
stage.addEventListener("keydown", (event) => {
  const step = 60;
  const keys = {
    "+": actions.in, "=": actions.in, "-": actions.out, "0": fit,
    ArrowLeft: () => move(step, 0), ArrowRight: () => move(-step, 0),
    ArrowUp: () => move(0, step), ArrowDown: () => move(0, -step),
  };
  if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  keys[event.key]();
});
stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  const box = stage.getBoundingClientRect();
  zoom(Math.exp(-event.deltaY / 400), event.clientX - box.left, event.clientY - box.top);
}, { passive: false });
const fingers = new Map();
stage.addEventListener("pointerdown", (event) => {
  event.preventDefault(); // no dragging of the image itself
  stage.focus();
  stage.setPointerCapture(event.pointerId);
  fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
});
stage.addEventListener("pointermove", (event) => {
  const before = fingers.get(event.pointerId);
  if (!before) return;
  const now = { x: event.clientX, y: event.clientY };
  const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
  move((now.x - before.x) / fingers.size, (now.y - before.y) / fingers.size);
  if (other) {
    const apart = (one) => Math.hypot(one.x - other.x, one.y - other.y) || 1;
    const box = stage.getBoundingClientRect();
    zoom(apart(now) / apart(before), (now.x + other.x) / 2 - box.left, (now.y + other.y) / 2 - box.top);
  }
  fingers.set(event.pointerId, now);
});
for (const end of ["pointerup", "pointercancel"]) {
  stage.addEventListener(end, (event) => fingers.delete(event.pointerId));
}
tellsValues(sheet, () => pictures.get(seen.name)?.points);
addEventListener("resize", () => { if (viewer.open) fit(); });

// --- the grid of histograms

const FEW = 12; // classes that lines tell apart; more of them are a map
const grid = by("grid"), stepChoice = by("grid-step"), runChoice = by("grid-run");
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const classColour = (place) => colour(`--class-${place % 6}`);
const dashes = (place) => (place >= 6 ? [4, 2] : []);
const grids = new Map();
let shown = null, panels = [], pointed = null;

function mixed(share) { // colour of a map at a share of its range
  const stops = [0, 1, 2].map((stop) => colour(`--map-${stop}`).match(/[0-9a-f]{2}/gi).map((part) => parseInt(part, 16)));
  const at = clamp(share, 0, 1) * 2, low = Math.min(1, Math.floor(at));
  return `rgb(${stops[low].map((from, part) => Math.round(from + (stops[low + 1][part] - from) * (at - low))).join(" ")})`;
}

function range(feature) { // of all densities above zero, at all steps
  let low = Infinity, high = 0;
  for (const classes of feature.density) for (const bins of classes) for (const value of bins) {
    if (value > 0) { low = Math.min(low, value); high = Math.max(high, value); }
  }
  return high ? [low / 1.5, high * 1.5] : [0.1, 1];
}

async function chooseRun() {
  const id = runChoice.value;
  if (!grids.has(id)) {
    const found = await (await unpacked(by(id))).json();
    for (const layer of found.layers) for (const feature of layer.features) feature.range = range(feature);
    grids.set(id, found);
  }
  const share = shown ? Number(stepChoice.value) / Number(stepChoice.max) : 1;
  shown = grids.get(id);
  stepChoice.max = shown.steps.length - 1;
  stepChoice.value = Math.round(share * (shown.steps.length - 1));
  panels = [];
  pointed = null;
  grid.replaceChildren(...shown.layers.map((layer) => {
    const cells = layer.features.map((feature) => {
      const canvas = make("canvas", { tabIndex: panels.length ? -1 : 0 });
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-describedby", "grid-hint");
      const panel = { canvas, layer, feature, told: make("span", { className: "told" }), place: panels.length, bin: 0 };
      panels.push(panel);
      listen(panel);
      return make("div", { className: "panel" }, panel.told, canvas);
    });
    const row = make("div", { className: "panels" }, ...cells);
    row.style.setProperty("--columns", cells.length);
    return make("div", { className: "layer" }, make("div", { className: "name", textContent: layer.name }), row);
  }));
  legend();
  draw();
}

function legend() {
  const list = by("grid-classes");
  const many = shown.classes.length > FEW;
  const entries = many ? [] : shown.classes.map((name, place) => {
    const sample = make("canvas", { width: 44, height: 16 }), pen = sample.getContext("2d");
    sample.style.width = "22px";
    sample.setAttribute("aria-hidden", "true");
    Object.assign(pen, { strokeStyle: classColour(place), lineWidth: 4 });
    pen.setLineDash(dashes(place).map((dash) => 2 * dash));
    pen.beginPath();
    pen.moveTo(0, 8);
    pen.lineTo(44, 8);
    pen.stroke();
    return make("li", {}, sample, `class ${name}`);
  });
  if (many) entries.push(make("li", { textContent: `${shown.classes.length} classes, from below to above in each panel; ` +
    "the colour is the density, none where it is zero" }));
  list.replaceChildren(...entries);
}

function draw() {
  if (!shown) return; // still unpacking
  const step = Number(stepChoice.value);
  const told = `iteration ${shown.steps[step]}`;
  stepChoice.setAttribute("aria-valuetext", told);
  by("grid-iteration").textContent = shown.steps[step];
  for (const panel of panels) paint(panel, step);
}

function paint(panel, step) {
  const { canvas, feature, layer } = panel;
  const density = feature.density[step], zero = feature.zero[step].filter((share) => share !== null);
  const shares = `P(0) ${Math.min(...zero).toFixed(2)}–${Math.max(...zero).toFixed(2)}`;
  panel.told.textContent = `feature ${feature.index}${feature.fixed ? "" : " · selective"}\n${shares}`;
  canvas.setAttribute("aria-label", `${layer.name}, feature ${feature.index}, iteration ${shown.steps[step]}, ${shares}`);
  const ratio = Math.max(2, devicePixelRatio || 1), wide = canvas.clientWidth || 110, tall = canvas.clientHeight || 102;
  canvas.width = wide * ratio;
  canvas.height = tall * ratio;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const [low, high] = feature.range.map(Math.log10), edges = feature.edges;
  const [first, last] = [edges[0], edges[edges.length - 1]];
  const box = panel.box = { left: 2, top: 3, wide: wide - 4, tall: tall - 18 };
  const across = (value) => box.left + (value - first) / (last - first) * box.wide;
  const down = (value) => box.top + (high - Math.log10(value)) / (high - low) * box.tall;
  if (density.length > FEW) {
    const each = box.tall / density.length;
    density.forEach((bins, place) => bins?.forEach((value, bin) => {
      if (!(value > 0)) return;
      pen.fillStyle = mixed((Math.log10(value) - low) / (high - low));
      pen.fillRect(across(edges[bin]), box.top + box.tall - (place + 1) * each,
        across(edges[bin + 1]) - across(edges[bin]) + 0.3, each + 0.3);
    }));
  } else {
    pen.strokeStyle = colour("--line");
    pen.beginPath();
    for (let power = Math.ceil(low); power <= high; power++) { // a line at each power of ten
      pen.moveTo(box.left, down(10 ** power));
      pen.lineTo(box.left + box.wide, down(10 ** power));
    }
    pen.stroke();
    pen.lineWidth = 1.3;
    pen.lineJoin = "round";
    density.forEach((bins, place) => {
      pen.strokeStyle = pen.fillStyle = classColour(place);
      pen.setLineDash(dashes(place));
      pen.beginPath();
      bins.forEach((value, bin) => {
        if (!(value > 0)) return;
        const x = across((edges[bin] + edges[bin + 1]) / 2), y = down(value);
        if (bins[bin - 1] > 0) pen.lineTo(x, y); else pen.moveTo(x, y);
        pen.rect(x - 0.6, y - 0.6, 1.2, 1.2); // a single point is seen too
        pen.moveTo(x, y);
      });
      pen.stroke();
    });
    pen.setLineDash([]);
  }
  pen.lineWidth = 1;
  pen.strokeStyle = pen.fillStyle = colour("--soft");
  pen.beginPath();
  pen.moveTo(box.left, box.top);
  pen.lineTo(box.left, box.top + box.tall);
  pen.lineTo(box.left + box.wide, box.top + box.tall);
  pen.stroke();
  pen.font = "9.5px system-ui, sans-serif";
  pen.textBaseline = "top";
  pen.fillText(short(Number(first.toPrecision(2))), box.left, box.top + box.tall + 3);
  pen.textAlign = "right";
  pen.fillText(short(Number(last.toPrecision(2))), box.left + box.wide, box.top + box.tall + 3);
  if (pointed === panel) {
    pen.strokeStyle = colour("--focus");
    pen.strokeRect(across(edges[panel.bin]), box.top, across(edges[panel.bin + 1]) - across(edges[panel.bin]), box.tall);
  }
}

function values(panel) {
  const step = Number(stepChoice.value), { feature, layer, bin } = panel;
  const there = feature.density[step]
    .map((bins, place) => ({ name: shown.classes[place], value: bins[bin] }))
    .filter(({ value }) => value > 0)
    .sort((one, two) => two.value - one.value);
  const most = there.slice(0, FEW).map(({ name, value }) => `class ${name}: ${short(value)}`);
  if (there.length > FEW) most.push(`and ${there.length - FEW} more`);
  return `${layer.name}, feature ${feature.index}, iteration ${shown.steps[step]}, activation ` +
    `${short(feature.edges[bin])} to ${short(feature.edges[bin + 1])}\n${most.join(", ") || "no sample of any class"}`;
}

function point(panel, bin) {
  const before = pointed;
  pointed = panel;
  panel.bin = clamp(bin, 0, panel.feature.edges.length - 2);
  if (before && before !== panel) paint(before, Number(stepChoice.value));
  paint(panel, Number(stepChoice.value));
}

function unpoint() {
  const before = pointed;
  pointed = null;
  if (before) paint(before, Number(stepChoice.value));
  hideTip();
}

function listen(panel) {
  const { canvas } = panel;
  canvas.addEventListener("pointermove", (event) => {
    const { left } = canvas.getBoundingClientRect(), { edges } = panel.feature;
    const share = (event.clientX - left - panel.box.left) / panel.box.wide;
    const value = edges[0] + clamp(share, 0, 1) * (edges[edges.length - 1] - edges[0]);
    point(panel, edges.findLastIndex((edge) => edge <= value));
    showTip(values(panel), event.clientX, event.clientY);
  });
  canvas.addEventListener("pointerleave", unpoint);
  canvas.addEventListener("focus", () => {
    for (const other of panels) other.canvas.tabIndex = other === panel ? 0 : -1;
    if (canvas.matches(":focus-visible")) tell(panel, panel.bin);
  });
  canvas.addEventListener("blur", () => { unpoint(); by("grid-readout").textContent = ""; });
  canvas.addEventListener("keydown", (event) => {
    const next = { ArrowUp: -1, ArrowDown: 1 }[event.key], over = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (next === undefined && over === undefined) return;
    event.preventDefault();
    if (over) tell(panel, panel.bin + over);
    else panels[(panel.place + next + panels.length) % panels.length].canvas.focus();
  });
}

function tell(panel, bin) {
  point(panel, bin);
  by("grid-readout").textContent = values(panel).replace("\n", ": ");
}

function startGrid() {
  const button = by("grid-play");
  let playing = 0;
  const stop = () => {
    clearInterval(playing);
    playing = 0;
    button.textContent = "Play";
  };
  const forward = () => {
    if (Number(stepChoice.value) === Number(stepChoice.max)) return stop();
    stepChoice.value = Number(stepChoice.value) + 1;
    draw();
  };
  button.addEventListener("click", () => {
    if (playing) return stop();
    if (Number(stepChoice.value) === Number(stepChoice.max)) stepChoice.value = -1;
    button.textContent = "Pause";
    playing = setInterval(forward, 600);
    forward();
  });
  stepChoice.addEventListener("input", () => { stop(); draw(); });
  runChoice.addEventListener("change", () => { stop(); chooseRun(); });
  by("grid-controls").addEventListener("submit", (event) => event.preventDefault());
  const again = () => { if (shown) legend(); draw(); };
  addEventListener("resize", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  matchMedia("print").addEventListener("change", again);
  return chooseRun();
}

async function start() {
  if (!window.DecompressionStream) {
    by("old").hidden = false;
    return;
  }
  if (grid) await startGrid();
  for (const box of document.querySelectorAll("[data-picture]")) await unpack(box);
  document.documentElement.dataset.ready = "true";
}
start();
