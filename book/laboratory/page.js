/* The laboratory's elements, and the loop that asks the worker for steps. */

(() => {
"use strict";

const root = document.getElementById("laboratory");
const { METHODS, OWN, PRESETS, SEEDS, SHARED, SWEEPS, span } = toySettings;
const { axes, curve, look, quantile, ticks } = toyDrawing;
const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
let [state, refused] = toySettings.fromLink(location.hash);
root.replaceChildren();

// The worker is made from the engine's text: a page opened from a file may not start one from another file.

const text = new Blob([`(${toyEngine})(self)`], { type: "text/javascript" });
const worker = new Worker(URL.createObjectURL(text)), waiting = [];
worker.onmessage = ({ data }) => waiting.shift()(data); // answers come in the order of the questions
worker.onerror = ({ message }) => (status.textContent = `The computation stopped: ${message}`);
const ask = (question) => {
  worker.postMessage(question);
  return new Promise((resolve) => waiting.push(resolve));
};

// Elements.

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes))
    if (typeof value === "function") made.addEventListener(name, value);
    else made.setAttribute(name, value);
  made.append(...children);
  return made;
}
const number = (value, digits = 3) => (Number.isFinite(value) ? value.toFixed(digits) : "–");
const options = (choices) => Object.entries(choices).map(([value, name]) => element("option", { value }, name));
const button = (name, click) => element("button", { type: "button", click }, name);
const colourOf = (kind) => `--lab-colour: var(--lab-${kind})`;
const key = (kind, name = "") => element("span", { class: `lab-key ${kind}`, style: colourOf(kind) }, name);

const bringing = []; // what brings the inputs in line with the state

/** A control with its label, value and note. held() has the value under `name`; tell() is what the control says now. */
function field(id, name, control, held, tell = () => ({})) {
  const { values, choices, whole } = control, input = element(choices ? "select" : "input");
  const label = element("label", { for: id }), note = element("small", { id: `${id}-note` });
  const made = element("div", { class: "lab-field" }, label, input, note);
  const kind = choices ? {} : values ? { type: "range", max: values.length - 1 } : { type: "number", max: whole };
  for (const [key, value] of Object.entries({ id, min: 0, "aria-describedby": note.id, ...kind }))
    input.setAttribute(key, value);
  if (choices) input.append(...options(choices));
  input.addEventListener("input", () => {
    const value = values ? values[input.value] : toySettings.allowed(control, input.value);
    input.setAttribute("aria-invalid", value === undefined);
    if (value !== undefined) held()[name] = value;
    bring();
  });
  input.addEventListener("change", changed);
  function bring() {
    const value = held()[name], told = { ...control, text: `${value}${control.unit || ""}`, ...tell() };
    if (input.getAttribute("aria-invalid") !== "true") input.value = values ? values.indexOf(value) : value;
    label.replaceChildren(told.label);
    if (values) {
      label.append(" ", element("span", {}, told.text));
      input.setAttribute("aria-valuetext", told.text);
    }
    note.textContent = told.note || "";
    made.hidden = Boolean(told.hidden);
    input.disabled = Boolean(told.disabled);
  }
  bringing.push(bring);
  return made;
}

/** What a control of run i says, which depends on its method. */
function ofRun(i, name) {
  const { method, to } = state.runs[i];
  if (name === "method") return { note: METHODS[method][1] };
  if (name === "ratio" && method === "easy-rate") return { label: "easy rate r", note: "Times w_e." };
  if (name === "ratio") return { hidden: !toySettings.usesRatio(method) };
  if (name === "from" || name === "to") {
    const end = name === "to" && to >= state.shared.epochs;
    return { hidden: method === "sgd", ...(end ? { label: "to", text: "the end" } : {}) };
  }
  return {};
}

/** A run in words. */
function called({ method, rho, ratio, from, to }) {
  const words = [METHODS[method][0]], end = to < state.shared.epochs ? `epoch ${to}` : "the end";
  if (method === "easy-rate") words.push(`r = ${ratio}`);
  else if (toySettings.usesRatio(method)) words.push(`c = ${ratio}`);
  else if (method !== "sgd") words.push(`ρ = ${rho}`);
  if (method !== "sgd" && (from > 0 || end !== "the end")) words.push(`from epoch ${from} to ${end}`);
  return words.join(", ");
}
function titles() {
  const names = state.runs.map(called);
  return names[0] === names[1] ? names.map((name, i) => `${name} (${i + 1})`) : names;
}

const canvases = {};
function figure(name, size, ...caption) {
  canvases[name] = element("canvas", { role: "img" });
  const made = element("figure", { class: size }, canvases[name], element("figcaption", {}, ...caption));
  made.dataset.panel = name.split("-")[0];
  return made;
}
const legend = (...keys) => element("span", { class: "lab-legend" }, ...keys);
function chart(name, title, note, solid, dashed) {
  const keys = [key("run-a"), key("run-b"), key("", solid), key("dashed", dashed)];
  return figure(name, "lab-wide", element("strong", {}, title), note, legend(...keys));
}

const see = element("p"), alert = element("p", { role: "alert" });
const status = element("p", { role: "status" }), scale = element("small");
const progress = element("progress", { max: 1, value: 0, "aria-label": "Progress" });
const link = element("a", {}, "Link to these settings");
const start = button("Start", () => (running ? (running = false) : go()));
const oneStep = button("One step", () => once(1)), oneEpoch = button("One epoch", () => once(states[0].perEpoch));
const speeds = { 1: "1 a frame", 20: "20 a frame", 60: "60 a frame", 0: "at once" };
const speed = element("select", { id: "lab-speed" }, ...options(speeds));
speed.value = still ? 0 : 20;
const presets = element("select", { id: "lab-preset", change: () => choose(presets.value) });
for (const label of ["The paper's figures", "Which part of LSAM, and when"]) {
  const some = Object.entries(PRESETS).filter(([name]) => name.startsWith("figure") === label.startsWith("The"));
  const choices = Object.fromEntries(some.map(([name, { title }]) => [name, title]));
  presets.append(element("optgroup", { label }, ...options(choices)));
}
const colours = { ratio: "phantom weight over real weight", phantom: "phantom weight", real: "real weight" };
const colour = element("select", { id: "lab-colour", change: () => draw() }, ...options(colours));
const numbers = element("table"), swept = element("div");
const pair = element(
  "div",
  { class: "lab-figures" },
  ...[0, 1].flatMap((i) => ["easy", "hard"].map((feature) => figure(`contours-${i}-${feature}`, ""))),
  chart("errors", "Probing errors", " on fresh points", "hard", "easy"),
  chart("ratio", "Ratio of hard to easy weight", ", cut off at 6", "phantom, mean of an epoch", "real"),
  chart("lorenz", "Lorenz curves", ": share of all importance", "phantom", "real"),
  ...[0, 1].map((i) => figure(`plane-${i}`, "")),
  element("div", { class: "lab-wide" }, element("label", { for: colour.id }, "Points coloured by"), colour, scale),
  element("div", { class: "lab-wide" }, numbers)
);
const runs = state.runs.map((_, i) => {
  const fields = Object.keys(OWN).map((name) =>
    field(`lab-${"ab"[i]}-${name}`, name, OWN[name], () => state.runs[i], () => ofRun(i, name))
  );
  const title = element("legend", {}, ["First run", "Second run"][i]);
  return element("fieldset", { style: colourOf(`run-${"ab"[i]}`) }, title, ...fields);
});
const shared = Object.keys(SHARED).map((name) => {
  const tell = () => ({ disabled: sweep() && sweep().varies.includes(name) });
  return field(`lab-${name}`, name, SHARED[name], () => state.shared, tell);
});
const seeds = field("lab-seeds", "seeds", SEEDS, () => state);
const summary = element("summary");
const pace = element("label", {}, "Speed ", speed);
const details = element("details", {}, summary, element("div", { class: "lab-grid" }, ...shared));
root.append(
  element("label", { for: presets.id }, "Show"), presets, see, alert,
  element("div", { class: "lab-grid" }, ...runs, seeds), details,
  element("div", { class: "lab-bar" }, start, oneStep, oneEpoch, button("Reset", reset), pace, link),
  progress, status, pair, swept
);

// The loop. `round` tells the answers to an earlier start from those to this one.

let running = false, round = 0, loops = 0, states = [], history = [], jobs = [], results = new Map();
const sweep = () => SWEEPS[state.preset];
const done = () => (sweep() ? !jobs.length : states.length > 0 && states[0].step >= states[0].steps);
const frame = () => new Promise(requestAnimationFrame);

function bringAll() {
  for (const bring of bringing) bring();
  const { complexity, rate, batch, width, epochs, level, seed } = state.shared;
  const noise = level ? `noise ${level}` : "no noise", points = `κ = ${complexity}°, ${noise}, seed ${seed}`;
  const training = `width ${width}, learning rate ${rate}, batches of ${batch}, ${epochs} epochs`;
  summary.textContent = `Data, net and training: ${points}, ${training}`;
  presets.value = state.preset;
  see.textContent = PRESETS[state.preset].see;
  link.href = toySettings.toLink(state);
  alert.textContent = refused.length ? `Not understood in the link, and left out: ${refused.join(", ")}` : "";
  for (const part of [...runs, oneStep, oneEpoch, pair]) part.hidden = Boolean(sweep());
  for (const part of [seeds, swept]) part.hidden = !sweep();
  titles().forEach((name, i) => {
    for (const part of pair.querySelectorAll(`.run-${"ab"[i]}`)) part.textContent = name;
  });
  for (const part of pair.children)
    part.classList.toggle("lab-focus", part.dataset.panel === PRESETS[state.preset].focus);
}

function changed() {
  const again = running;
  refused = [];
  window.history.replaceState(null, "", toySettings.toLink(state));
  reset().then(() => again && go());
}

function choose(preset) {
  const { shared, seeds } = state; // what both runs share stays the reader's
  state = { ...toySettings.withPreset(preset), shared, seeds };
  changed();
}

async function reset() {
  const mine = ++round;
  running = false;
  bringAll();
  if (sweep()) plan();
  else {
    const begun = await ask({ ask: "start", settings: state.runs.map((own) => ({ ...state.shared, ...own })) });
    if (mine !== round) return;
    [states, history] = [[], []];
    accept(begun);
  }
  tell("Ready. ");
}

function accept(found) {
  states = found.map((one, i) => ({ ...one, picture: one.picture || states[i].picture }));
  history.push(found);
}

function tell(word) {
  start.textContent = running ? "Pause" : done() ? "Start again" : "Start";
  for (const one of [oneStep, oneEpoch]) one.disabled = running || done();
  if (!running) draw();
  status.textContent = running ? "Training." : word + inWords();
}

async function go() {
  if (done()) await reset();
  const mine = round, own = ++loops;
  running = true;
  tell();
  while (running && !done()) {
    const quick = speed.value === "0";
    if (sweep()) await trainNext();
    else {
      const { step, perEpoch } = states[0]; // all at once: a record an epoch, and less often later on
      await once(quick ? Math.max(perEpoch, Math.ceil(step / 4)) : +speed.value, !still);
    }
    if (mine !== round || own !== loops) return;
    if (!still) draw();
    if (!quick) await frame();
  }
  running = false;
  tell(done() ? "Done. " : "Paused. ");
}

async function once(steps, picture = true) {
  const mine = round, last = states[0].step + steps >= states[0].steps;
  const found = await ask({ ask: "advance", steps, picture: picture || last });
  if (mine !== round) return;
  accept(found);
  if (!running) tell("");
}

// Sweeps: one training after another, seed by seed, and each once however many lines show it.

const asText = (settings) => JSON.stringify(settings);
const training = (own, k) => ({ ...toySettings.defaults(OWN), ...state.shared, ...own, seed: state.shared.seed + k });
const trainings = () => sweep().panels.flatMap(({ lines }) => lines.flatMap((line) => line.trainings));
const mean = (found, measure) => found.reduce((sum, one) => sum + one[measure], 0) / found.length;

function plan() {
  const { panels } = sweep(), ofSeed = (k) => trainings().map((own) => training(own, k));
  const wanted = span(0, state.seeds - 1, 1).flatMap(ofSeed);
  results = new Map(wanted.map((settings) => [asText(settings), null]));
  jobs = [...results.keys()];
  swept.className = `lab-figures of-${panels.length}`;
  swept.replaceChildren(
    ...panels.map(({ title, dashed, lines }, i) => {
      const keys = lines.map(({ name }, k) => key(`line-${k}`, name));
      const kinds = dashed ? [key("", "phantom"), key("dashed", "real")] : [];
      return figure(`sweep-${i}`, "", element("strong", {}, title), legend(...keys, ...kinds));
    }),
    element("details", {}, element("summary", {}, "The numbers"), element("table"))
  );
}

async function trainNext() {
  const mine = round, found = await ask({ ask: "train", settings: JSON.parse(jobs[0]) });
  if (mine === round) results.set(jobs.shift(), found);
}

/** The results so far of one training of a line, one a seed; a diverged one is left out. */
const found = (own) =>
  span(0, state.seeds - 1, 1).map((k) => results.get(asText(training(own, k)))).filter((one) => one && one.finite);

// The state in words and numbers.

function inWords() {
  if (sweep()) return `${results.size - jobs.length} of ${results.size} trainings.`;
  const { step, steps, perEpoch } = states[0], names = titles();
  const parts = states.map((one, i) => {
    const { hard, easy, training, real, phantom } = one;
    const there = step ? `, at the phantom ${number(phantom, 2)}` : "";
    const ratio = `ratio of hard to easy weight ${number(real, 2)}${there}`;
    const errors = `hard probing error ${number(hard)}, easy ${number(easy)}, training error ${number(training)}`;
    return `${names[i]}: ${one.finite ? `${errors}, ${ratio}` : "diverged"}.`;
  });
  if (step) parts.push(`${states.map(({ microseconds }) => number(microseconds, 0)).join(" and ")} µs a step.`);
  return `Step ${step} of ${steps}, epoch ${+(step / perEpoch).toFixed(1)}. ${parts.join(" ")}`;
}

function fill(table, title, head, rows) {
  const one = (cell, k, scope) => (k && scope === "row" ? element("td", {}, cell) : element("th", { scope }, cell));
  const row = (cells, scope) => element("tr", {}, ...cells.map((cell, k) => one(cell, k, scope)));
  const body = element("tbody", {}, ...rows.map((cells) => row(cells, "row")));
  table.replaceChildren(element("caption", {}, title), element("thead", {}, row(head, "col")), body);
}

// Drawing.

const decimal = (place) => [place, String(place)];
const runColour = (i) => look(root, `run-${"ab"[i]}`);

function drawContours(names) {
  ["easy", "hard"].forEach((feature, index) => {
    const bound = quantile(states.flatMap(({ picture }) => Array.from(picture.surfaces[index], Math.abs)), 0.97) || 1;
    states.forEach((one, i) => {
      const canvas = canvases[`contours-${i}-${feature}`];
      toyDrawing.contour(canvas, one.picture, index, bound);
      canvas.nextSibling.textContent = `${names[i]}: ${feature} feature, error ${number(one[feature])}`;
    });
  });
}

function drawPlanes(names) {
  const factors = states.map(({ picture }, i) => {
    canvases[`plane-${i}`].nextSibling.textContent = `${names[i]}: points by both contributions`;
    return Math.round(toyDrawing.plane(canvases[`plane-${i}`], picture, colour.value) * 10) / 10;
  });
  const ratio = `Blue gains weight against the typical point, orange loses; full colour: ${factors.join(", ")} times.`;
  scale.textContent = colour.value === "ratio" ? ratio : "Dark: a millionth or less; yellow: 1.";
}

function drawPair() {
  const names = titles(), { step, steps, perEpoch } = states[0];
  drawContours(names);
  drawPlanes(names);
  const xs = history.map(([one]) => one.step / perEpoch), end = Math.max(1, step / perEpoch);
  const marks = [0, 1, 2, 5, 10, 20, 60, 200].filter((place) => place <= end).map(decimal);
  const time = { x: [0, end], xticks: marks, xlabel: "epochs (logarithmic)", mapX: Math.log1p };
  const errors = axes(canvases.errors, 0.6, { ...time, y: [0, 0.6], yticks: ticks(0, 0.6, 0.1) });
  const highest = Math.max(...history.flat().flatMap(({ real, phantom }) => [real || 0, phantom || 0]));
  const top = Math.min(6, Math.max(1, 1.1 * highest));
  const yticks = ticks(0, top, top > 3 ? 1 : top > 1.2 ? 0.5 : 0.2);
  const ratio = axes(canvases.ratio, 0.6, { ...time, y: [0, top], yticks });
  const quarters = ticks(0, 1, 0.25), share = { x: [0, 1], y: [0, 1], xticks: quarters, yticks: quarters };
  const shares = axes(canvases.lorenz, 0.6, { ...share, xlabel: "share of the points, heaviest first" });
  curve(shares, [0, 1], [0, 1], look(root, "muted"), { dashed: true, width: 1 });
  states.forEach(({ picture: { real, phantom } }, i) => {
    const of = (measure) => history.map((both) => both[i][measure]);
    const places = Array.from({ length: real.length + 1 }, (_, k) => k / real.length);
    const dashed = { dashed: true };
    curve(errors, xs, of("easy"), runColour(i), dashed);
    curve(errors, xs, of("hard"), runColour(i));
    curve(ratio, xs, of("real"), runColour(i), dashed);
    curve(ratio, xs, of("phantom").map((one) => (one < 0 ? NaN : Math.min(one, 6))), runColour(i));
    curve(shares, places, toyDrawing.lorenz(real), runColour(i), dashed);
    curve(shares, places, toyDrawing.lorenz(phantom), runColour(i));
  });
  const gini = (kind) => (one) => toyDrawing.gini(one.picture[kind]);
  const measures = {
    "hard probing error": (one) => one.hard,
    "easy probing error": (one) => one.easy,
    "test error": (one) => one.model,
    "training error": (one) => one.training,
    "ratio of weights, real": (one) => one.real,
    "the same, phantom": (one) => one.phantom,
    "Gini coefficient, real": gini("real"),
    "the same, phantom weights": gini("phantom"),
  };
  const rows = Object.entries(measures).map(([name, of]) => [name, ...states.map((one) => number(of(one)))]);
  fill(numbers, `After ${step} of ${steps} steps`, ["measure", ...names], rows);
  progress.value = step / steps;
}

function drawSweep() {
  const { panels, logarithmic, xlabel } = sweep();
  const across = logarithmic
    ? { x: [0.2, 10], xticks: [0.25, 0.5, 1, 2, 4, 8].map(decimal), mapX: Math.log }
    : { x: [0, 2], xticks: ticks(0, 2, 0.4) };
  panels.forEach(({ y, dashed, lines }, i) => {
    const known = (line) => line.trainings.map((own) => [own, found(own)]).filter(([, seeds]) => seeds.length);
    const points = lines.map((line) =>
      known(line)
        .map(([own, seeds]) => ({ x: line.x in own ? own[line.x] : mean(seeds, line.x), seeds }))
        .sort((one, other) => one.x - other.x)
    );
    const highest = Math.max(1.2, ...points.flat().map(({ seeds }) => 1.1 * mean(seeds, y)));
    const high = y === "hard" ? 0.6 : Math.min(6, highest);
    const yticks = ticks(0, high, high > 3 ? 1 : high > 1 ? 0.4 : 0.1);
    const plot = axes(canvases[`sweep-${i}`], 0.8, { ...across, y: [0, high], xlabel, yticks });
    points.forEach((line, k) => {
      const shade = look(root, `line-${k}`), xs = line.map(({ x }) => x);
      const of = (measure) => line.map(({ seeds }) => mean(seeds, measure));
      if (dashed) curve(plot, xs, of(dashed), shade, { dashed: true });
      curve(plot, xs, of(y), shade, { dots: true });
    });
  });
  const unique = [...new Map(trainings().map((own) => [asText(own), own])).values()];
  const rows = unique.map((own) => {
    const seeds = found(own), name = called({ ...training(own, 0), from: 0, to: Infinity });
    const values = ["hard", "meanPhantom", "meanReal"].map((measure) => number(mean(seeds, measure)));
    return [own.complexity ? `${name}, κ = ${own.complexity}°` : name, ...values, String(seeds.length)];
  });
  const head = ["training", "hard probing error", "phantom ratio", "real ratio", "seeds"];
  fill(swept.querySelector("table"), "Means over seeds", head, rows);
  progress.value = 1 - jobs.length / results.size;
}

function draw() {
  if (!sweep() && !states.length) return;
  (sweep() ? drawSweep : drawPair)();
  for (const figure of root.querySelectorAll("figure")) {
    const caption = figure.querySelector("strong") || figure.querySelector("figcaption");
    figure.firstChild.setAttribute("aria-label", `${caption.textContent}. ${inWords()}`);
  }
}

window.addEventListener("hashchange", () => {
  if (!location.hash.includes("=")) return;
  [state, refused] = toySettings.fromLink(location.hash);
  reset();
});
window.addEventListener("resize", draw);
new MutationObserver(draw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
reset();
})();
