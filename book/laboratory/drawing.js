/* Drawings of the laboratory, on canvases whose colours are the variables of style.css. */

const toyDrawing = (() => {
"use strict";

const look = (canvas, name) => getComputedStyle(canvas).getPropertyValue(`--lab-${name}`).trim();
const channels = (hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16));
const mix = (from, to, part) => from.map((value, k) => Math.round(value + (to[k] - value) * part));
const sorted = (values) => Float64Array.from(values).sort();
const quantile = (values, part) => sorted(values)[Math.round(part * (values.length - 1))];
const ticks = (low, high, step) =>
  toySettings.span(Math.ceil(low / step - 1e-6) * step, high, step).map((place) => [place, String(place)]);

/** The context of a canvas whose height is `aspect` times its width, in CSS pixels. */
function paper(canvas, aspect) {
  const width = canvas.clientWidth, height = Math.round(width * aspect), scale = window.devicePixelRatio || 1;
  canvas.width = width * scale;
  canvas.height = height * scale;
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  context.font = `12px ${getComputedStyle(canvas).fontFamily}`;
  context.textAlign = "center";
  return { context, width, height };
}

/** Axes over the ranges x and y with ticks [place, text]; gives what `curve` and `plane` draw on. */
function axes(canvas, aspect, { x, y, xticks, yticks, xlabel, ylabel, mapX = (value) => value }) {
  const { context, width, height } = paper(canvas, aspect);
  const left = ylabel ? 42 : 30, top = 8, right = width - 8, bottom = height - 36;
  const X = (value) => left + ((mapX(value) - mapX(x[0])) / (mapX(x[1]) - mapX(x[0]) || 1)) * (right - left);
  const Y = (value) => bottom - ((value - y[0]) / (y[1] - y[0] || 1)) * (bottom - top);
  context.strokeStyle = look(canvas, "rule");
  context.fillStyle = look(canvas, "muted");
  context.beginPath();
  for (const [place, text] of xticks) {
    context.moveTo(X(place), top);
    context.lineTo(X(place), bottom);
    context.fillText(text, X(place), bottom + 14);
  }
  context.fillText(xlabel, (left + right) / 2, height - 6);
  context.textAlign = "right";
  for (const [place, text] of yticks) {
    context.moveTo(left, Y(place));
    context.lineTo(right, Y(place));
    context.fillText(text, left - 5, Y(place) + 4);
  }
  context.stroke();
  if (ylabel) {
    context.textAlign = "center";
    context.translate(11, (top + bottom) / 2);
    context.rotate(-Math.PI / 2);
    context.fillText(ylabel, 0, 0);
    context.setTransform(canvas.width / width, 0, 0, canvas.width / width, 0, 0);
  }
  context.beginPath();
  context.rect(left, top - 2, right - left + 4, bottom - top + 4);
  context.clip();
  return { context, X, Y };
}

function curve({ context, X, Y }, xs, ys, colour, { dashed = false, dots = false, width = dashed ? 1.5 : 2.5 } = {}) {
  const places = xs.map((x, k) => [X(x), Y(ys[k])]).filter(([u, v]) => Number.isFinite(u + v));
  context.strokeStyle = context.fillStyle = colour;
  context.lineWidth = width;
  context.setLineDash(dashed ? [5, 4] : []);
  context.beginPath();
  for (const [u, v] of places) context.lineTo(u, v);
  context.stroke();
  if (dots) for (const [u, v] of places) context.fillRect(u - 2.5, v - 2.5, 5, 5);
}

/** w_i f_i over the plane, the line where it is zero, and the training points by label (triangles: +1). */
function contour(canvas, { surfaces, nodes, limits, x, y }, feature, bound) {
  const surface = surfaces[feature], limit = limits[feature], colours = {};
  for (const name of ["minus", "middle", "plus"]) colours[name] = look(canvas, name);
  const { context, width } = paper(canvas, 1), cell = width / (nodes - 1);
  const small = document.createElement("canvas"), pixels = new ImageData(nodes, nodes);
  small.width = small.height = nodes;
  for (let k = 0; k < surface.length; k++) {
    const part = Math.max(-1, Math.min(1, surface[k] / bound)), row = nodes - 1 - Math.floor(k / nodes);
    const end = channels(colours[part < 0 ? "minus" : "plus"]);
    const rgb = mix(channels(colours.middle), end, 0.85 * Math.abs(part));
    pixels.data.set([...rgb, 255], 4 * (row * nodes + (k % nodes)));
  }
  small.getContext("2d").putImageData(pixels, 0, 0);
  context.drawImage(small, -cell / 2, -cell / 2, width + cell, width + cell);
  context.strokeStyle = look(canvas, "ink");
  context.lineWidth = 1.6;
  context.beginPath();
  const corners = [[0, 0], [1, 0], [1, 1], [0, 1]];
  for (let row = 0; row < nodes - 1; row++)
    for (let column = 0; column < nodes - 1; column++) {
      let cuts = 0; // of the cell's four sides; every second one ends a piece of the line
      corners.forEach(([p, q], k) => {
        const [r, s] = corners[(k + 1) % 4], value = (u, v) => surface[(row + v) * nodes + column + u];
        const a = value(p, q), b = value(r, s), part = a / (a - b);
        if (a > 0 === b > 0) return;
        const place = [(column + p + part * (r - p)) * cell, width - (row + q + part * (s - q)) * cell];
        context[cuts++ % 2 ? "lineTo" : "moveTo"](...place);
      });
    }
  context.stroke();
  const place = (value) => ((value / limit + 1) / 2) * width;
  context.lineWidth = 0.6;
  context.strokeStyle = look(canvas, "ground");
  for (let k = 0; k < y.length; k++) {
    const u = place(x[4 * k + 2 * feature]), v = width - place(x[4 * k + 2 * feature + 1]);
    context.fillStyle = colours[y[k] > 0 ? "plus" : "minus"];
    context.beginPath();
    if (y[k] > 0) for (const [a, b] of [[0, -3], [2.7, 1.8], [-2.7, 1.8]]) context.lineTo(u + a, v + b);
    else context.arc(u, v, 2.2, 0, 7);
    context.closePath();
    context.fill();
    context.stroke();
  }
}

const VIRIDIS = ["#440154", "#3b528b", "#21918c", "#5ec962", "#fde725"].map(channels);

/** The points at (y w_e f_e, y w_h f_h), coloured by a weight (logarithmic, from a millionth to 1), or by the ratio of
    both against the typical point's; gives the factor that has the full colour. */
function plane(canvas, { margins, real, phantom }, kind) {
  const n = real.length;
  const [x, y] = [0, 1].map((feature) => {
    const values = margins.slice(feature * n, (feature + 1) * n);
    const low = Math.min(0, quantile(values, 0)), high = Math.max(0, quantile(values, 1));
    return [low - 0.05 * (high - low), high + 0.05 * (high - low)];
  });
  const step = ([low, high]) => [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50].find((one) => (high - low) / one <= 4) || 100;
  const [xticks, yticks] = [x, y].map((range) => ticks(...range, step(range)));
  const labels = { xlabel: "easy contribution", ylabel: "hard contribution" };
  const { context, X, Y } = axes(canvas, 1.1, { x, y, xticks, yticks, ...labels });
  const weight = (k) => ({ real: real[k], phantom: phantom[k], ratio: phantom[k] / real[k] })[kind];
  const logs = Array.from(real, (_, k) => Math.log10(weight(k)));
  const typical = quantile(logs, 0.5), reach = quantile(logs.map((one) => Math.abs(one - typical)), 0.95) || 1;
  const [less, same, more] = ["minus", "faint", "plus"].map((name) => channels(look(canvas, name)));
  logs.forEach((one, k) => {
    const part = Math.max(-1, Math.min(1, (one - typical) / reach)), at = 4 * Math.max(0, Math.min(0.999, 1 + one / 6));
    const shade = () => mix(VIRIDIS[Math.floor(at)], VIRIDIS[Math.floor(at) + 1], at % 1);
    context.fillStyle = `rgb(${kind === "ratio" ? mix(same, part < 0 ? less : more, Math.abs(part)) : shade()})`;
    context.beginPath();
    context.arc(X(margins[k]), Y(margins[n + k]), 2.4, 0, 7);
    context.fill();
  });
  return 10 ** reach;
}

/** Shares of all importance that the heaviest points hold, (n + 1). */
function lorenz(weights) {
  const ordered = sorted(weights).reverse(), total = ordered.reduce((sum, one) => sum + one, 0);
  let held = 0;
  return [0, ...Array.from(ordered, (one) => (held += one / total))];
}

/** 1 where one point has everything, 0 where all are equal, as in lib/importance.py. */
function gini(weights) {
  const shares = lorenz(weights), n = weights.length;
  return (2 * shares.reduce((sum, one) => sum + one, 0) - n - 1) / n;
}

return { axes, contour, curve, gini, look, lorenz, plane, quantile, ticks };
})();
