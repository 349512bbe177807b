/* What can be set in the laboratory, the presets, and how a link carries both. */

const toySettings = (() => {
"use strict";

const span = (low, high, step) =>
  Array.from({ length: Math.floor((high - low) / step + 1e-6) + 1 }, (_, k) => +(low + k * step).toFixed(6));
const LONGEST = 200; // epochs
const LOST = "Varied in the paper; its values are lost.";

// Name, and what it does.
const METHODS = {
  sgd: ["SGD", "Equation (2). ρ only measures a phantom."],
  lsam: ["LSAM", "Equation (5): the gradient at the phantom head."],
  "lsam-importance": ["LSAM, weights alone", "Importance weights at the phantom head, learning rates at the real one."],
  "lsam-rates": ["LSAM, rates alone", "Learning rates at the phantom head, importance weights at the real one."],
  "lsam-easy": ["LSAM, only w_e displaced", "w_h stays real. Not in the paper."],
  "lsam-hard": ["LSAM, only w_h displaced", "w_e stays real. Not in the paper."],
  "ratio-importance": ["fixed ratio, weights", "Equation (8): importance weights at (w_e, c w_e)."],
  "ratio-rates": ["fixed ratio, rates", "Equation (9): learning rates w_e and c w_e."],
  "ratio-both": ["fixed ratio, both", "Equation (10)."],
  "easy-rate": ["constant easy rate", "SGD with easy learning rate r w_e. Not in the paper."],
  sam: ["full SAM", "Equation (3): ρ is shared by all layers."],
};
const NOISES = { gaussian: "Gaussian", label: "flipped", dropout: "dropped", uniform: "uniform, on the spiral" };
const usesRatio = (method) => method.startsWith("ratio") || method === "easy-rate";

// For both runs, and for each. A note says what the paper gives and what its text lost.
const SHARED = {
  complexity: { label: "complexity κ", unit: "°", values: span(15, 540, 15), value: 360, note: LOST },
  rate: {
    label: "learning rate",
    values: [0.005, 0.01, 0.02, 0.05, 0.1, 0.2],
    value: 0.05,
    note: "Constant in the paper; its value is lost.",
  },
  batch: {
    label: "batch size",
    values: [1, 2, 3, 5, 10, 20, 50, 100, 300],
    value: 5,
    note: "5 of 300 points in the paper; Figure 10 varies it.",
  },
  width: {
    label: "width",
    values: [8, 16, 32, 64, 96, 128],
    value: 64,
    note: "Three layers in the paper; their width is lost.",
  },
  epochs: { label: "epochs", values: [5, 10, 20, 40, 60, 100, LONGEST], value: 60, note: "Lost in the text." },
  noise: {
    label: "kind of noise",
    choices: NOISES,
    value: "gaussian",
    note: "Some uniform noise on the spiral in the paper, its size lost: none here.",
  },
  level: {
    label: "noise",
    values: [0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1],
    value: 0,
    note: "Figure 9: Gaussian to 1, flipped to 0.1, dropped to 0.4.",
  },
  seed: { label: "seed", whole: 99999, value: 1, note: "0 to 99999: data, nets and batches of both runs." },
};
const OWN = {
  method: {
    label: "method",
    choices: Object.fromEntries(Object.entries(METHODS).map(([key, [name]]) => [key, name])),
    value: "sgd",
  },
  rho: { label: "radius ρ", values: span(0, 3, 0.1), value: 1.4, note: LOST },
  ratio: {
    label: "ratio c",
    values: [0.05, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 4, 8],
    value: 1,
    note: "Constant in the paper; its range is lost.",
  },
  from: {
    label: "from epoch",
    values: [0, 1, 2, 3, 5, 10, 20, 40],
    value: 0,
    note: "SGD before. Not in the paper.",
  },
  to: {
    label: "to epoch",
    values: [1, 2, 3, 5, 10, 20, 40, 60, 100, LONGEST],
    value: LONGEST,
    note: "SGD after. Not in the paper.",
  },
};
const SEEDS = { label: "seeds", values: [1, 2, 4, 8, 20], note: "Every point is a mean over so many trainings." };

// A line of a sweep is a list of trainings; x is the setting that they differ in, or a measure, as y is.
const RHOS = [0, 0.4, 0.8, 1.2, 1.6, 2];
const radii = (shared) => RHOS.map((rho) => ({ method: "lsam", rho, ...shared }));
const byRadius = [180, 270, 360].map((complexity) => ({
  name: `κ = ${complexity}°`,
  x: "rho",
  trainings: radii({ complexity }),
}));
const fixed = (method) => [0.25, 0.5, 1, 2, 4, 8].map((ratio) => ({ method, ratio }));
const SWEEPS = {
  "figure-2": {
    varies: ["complexity"],
    xlabel: "radius ρ (0: SGD)",
    panels: [
      { title: "Hard probing error", y: "hard", lines: byRadius },
      { title: "Ratio of mean weights", y: "meanPhantom", dashed: "meanReal", lines: byRadius },
    ],
  },
  "figure-6": {
    varies: [],
    logarithmic: true,
    xlabel: "c, or LSAM's mean ratio",
    panels: ["ratio-importance", "ratio-rates", "ratio-both"].map((method) => ({
      title: `Hard probing error, ${METHODS[method][0]}`,
      y: "hard",
      lines: [
        { name: "fixed c", x: "ratio", trainings: fixed(method) },
        { name: "LSAM, ρ from 0 to 2", x: "meanPhantom", trainings: radii() },
      ],
    })),
  },
};

const PRESETS = {
  "figure-1": {
    title: "Figure 1: what each method has learned",
    focus: "contours",
    see: "The black line is where a feature changes its mind. Does it follow the arms of the spiral?",
  },
  "figure-2": {
    title: "Figure 2: error and ratio against ρ",
    see: "Does the hard probing error fall as ρ grows? Does the ratio grow at the phantom only?",
  },
  "figure-3": {
    title: "Figure 3: Lorenz curves",
    focus: "lorenz",
    see: "Nearer to the diagonal: the points share the gradient more evenly. At the phantom, or at the real head?",
  },
  "figure-5": {
    title: "Figure 5: weights by contribution",
    focus: "plane",
    see: "Each training point at its two contributions. Which side gains weight at the phantom?",
  },
  "figure-6": {
    title: "Figure 6: each effect at a fixed ratio",
    see: "Each effect alone, then both, against the fixed ratio; LSAM stands at the mean ratio that it had.",
  },
  effects: {
    title: "LSAM's two effects, one at a time",
    focus: "errors",
    see: "Which of the two carries LSAM's gain?",
    runs: [{ method: "lsam-importance" }, { method: "lsam-rates" }],
  },
  "early-late": {
    title: "LSAM early, or late",
    focus: "errors",
    see: "One run has LSAM in the first epochs only, the other in all but the very first. When does LSAM act?",
    runs: [{ method: "lsam", to: 10 }, { method: "lsam", from: 1 }],
  },
  parts: {
    title: "Only w_e displaced, or only w_h",
    focus: "errors",
    see: "Is the easy feature held back, or the hard one pushed?",
    runs: [{ method: "lsam-easy" }, { method: "lsam-hard" }],
  },
  "easy-rate": {
    title: "LSAM, or a constant easy rate",
    focus: "errors",
    see: "To slow the easy feature down needs no phantom. What does it cost that feature?",
    runs: [{ method: "lsam" }, { method: "easy-rate", ratio: 0.1 }],
  },
};

const defaults = (controls) => Object.fromEntries(Object.entries(controls).map(([name, { value }]) => [name, value]));

/** A preset as it stands before the reader changes anything. */
function withPreset(preset) {
  const runs = PRESETS[preset].runs || [{}, { method: "lsam" }];
  return { preset, seeds: 4, shared: defaults(SHARED), runs: runs.map((own) => ({ ...defaults(OWN), ...own })) };
}

/** The value that a text stands for, undefined where it is not allowed. */
function allowed({ values, choices, whole }, text) {
  if (choices) return Object.hasOwn(choices, text) ? text : undefined;
  if (!/^\d+(\.\d+)?$/.test(text)) return undefined;
  return (values ? values.includes(+text) : Number.isInteger(+text) && +text <= whole) ? +text : undefined;
}

/** [name in the link, control, the object that holds the value, its key] of all that can be set. */
const places = (state) => [
  ["seeds", SEEDS, state, "seeds"],
  ...Object.keys(SHARED).map((key) => [key, SHARED[key], state.shared, key]),
  ...state.runs.flatMap((own, i) => Object.keys(OWN).map((key) => [`${"ab"[i]}.${key}`, OWN[key], own, key])),
];

/** The preset, and what differs from it. */
function toLink(state) {
  const words = new URLSearchParams({ preset: state.preset }), base = places(withPreset(state.preset));
  places(state).forEach(([name, , held, key], k) => {
    if (held[key] !== base[k][2][key]) words.set(name, held[key]);
  });
  return `#${words}`;
}

/** The state that a link asks for, and what of the link is not understood. */
function fromLink(link) {
  const words = link.includes("=") ? [...new URLSearchParams(link.slice(1))] : [], refused = [];
  const preset = words.map(([name, text]) => name === "preset" && text).find((text) => Object.hasOwn(PRESETS, text));
  const state = withPreset(preset || "figure-1"), known = places(state);
  for (const [name, text] of words) {
    const [, control, held, key] = known.find(([place]) => place === name) || [];
    const value = control && allowed(control, text);
    if (value !== undefined) held[key] = value;
    else if (name !== "preset" || text !== preset) refused.push(`${name}=${text}`);
  }
  return [state, refused];
}

const tables = { METHODS, OWN, PRESETS, SEEDS, SHARED, SWEEPS };
return { ...tables, allowed, defaults, fromLink, span, toLink, usesRatio, withPreset };
})();
