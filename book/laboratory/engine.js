/* The two-feature toy, the same experiment as lib/toy, in typed arrays: data (Appendix E), nets (equation (4)), SGD
   (2), LSAM (5), SAM (3), the interventions (8) to (10), and what is measured on the way.

   A page opened from a file may start no worker from another file, so the page makes the worker out of this function's
   own text: nothing outside it may be used. Weights are float64, which needs no conversion at each use. Of a row of
   activations only those above zero are kept, with their places: half of all products with W2 are by zero. */

function toyEngine(scope) {
"use strict";

const POINTS = { train: 300, test: 2000 };
const INNER = 0.1, OUTER = 1, SCALES = [1, 3]; // a, b, gamma_e and gamma_h of lib/data/toy.py
const NODES = 36; // of a contour, on each side

// Which head gives the importance weight, and which the features' learning rates; "parts" of the phantom are displaced.
const METHODS = {
  sgd: ["real", "real"],
  lsam: ["phantom", "phantom"],
  "lsam-importance": ["phantom", "real"],
  "lsam-rates": ["real", "phantom"],
  "lsam-easy": ["phantom", "phantom", [1, 0]],
  "lsam-hard": ["phantom", "phantom", [0, 1]],
  "ratio-importance": ["ratio", "real"], // equation (8)
  "ratio-rates": ["real", "ratio"], // (9)
  "ratio-both": ["ratio", "ratio"], // (10)
  "easy-rate": ["real", "rate"],
  sam: ["phantom", "phantom"],
};

/** Uniform numbers in [0, 1) from sfc32; each use of a seed has a stream of its own, so that settings stay paired. */
function stream(seed, source) {
  let a = seed | 0, b = source | 0, c = 0x9e3779b9 | 0, counter = 1;
  const next = () => {
    const sum = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + sum | 0;
    return (sum >>> 0) / 4294967296;
  };
  for (let i = 0; i < 20; i++) next();
  return next;
}

/** Points of a split: x (4 n), y (n). Labels alternate; noise but the uniform one falls on training points only. */
function sample(s, split) {
  const n = POINTS[split], base = split === "train" ? 1 : 11;
  const [latent, uniform, gaussian, flips, drops] = [0, 1, 2, 3, 4].map((source) => stream(s.seed, base + source));
  const level = (kind) => (s.noise === kind && (split === "train" || kind === "uniform") ? s.level : 0);
  const normal = () => Math.sqrt(-2 * Math.log(1 - gaussian())) * Math.cos(2 * Math.PI * gaussian());
  const x = new Float64Array(4 * n), y = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    y[i] = i % 2 ? -1 : 1;
    for (const feature of [0, 1]) {
      let z = y[i] * (INNER + (OUTER - INNER) * latent());
      if (flips() < level("label")) z = -z;
      const angle = ((s.complexity * Math.PI) / 180) * (Math.abs(z) / OUTER);
      const place = feature ? [z * Math.cos(angle), z * Math.sin(angle)] : [z, z];
      const dropped = drops() < level("dropout");
      for (const axis of [0, 1]) {
        const moved = feature * level("uniform") * (2 * uniform() - 1) + level("gaussian") * normal();
        x[4 * i + 2 * feature + axis] = dropped ? 0 : SCALES[feature] * place[axis] + moved;
      }
    }
  }
  return { x, y };
}

/** Two flat nets as in lib/toy/nets.py: W1 (2, H), b1, W2 (H, H), b2, w3, b3; uniform within 1 / sqrt(inputs). */
function initial(s) {
  const draw = stream(s.seed, 21), size = s.width * (s.width + 5) + 1;
  return [0, 1].map(() =>
    Float64Array.from({ length: size }, (_, i) => (2 * draw() - 1) / Math.sqrt(i < 3 * s.width ? 2 : s.width))
  );
}

/** The training points in order of use: a permutation an epoch. */
function batchOrder(s) {
  const draw = stream(s.seed, 22), n = POINTS.train, order = new Int32Array(s.epochs * n);
  for (let i = 0; i < order.length; i++) {
    const start = i - (i % n), other = start + Math.floor(draw() * ((i % n) + 1));
    order[i] = order[other];
    order[other] = i % n;
  }
  return order;
}

const sigmoid = (margin) => 1 / (1 + Math.exp(-margin));

/** The passes through one feature's net, for up to `rows` inputs at once. */
class Passes {
  constructor(width, rows) {
    this.width = width;
    this.stride = width + 4; // rows are filled up to groups of four
    for (const name of ["count1", "count2"]) this[name] = new Int32Array(rows);
    for (const name of ["place1", "place2"]) this[name] = new Int32Array(rows * this.stride);
    for (const name of ["h1", "h2", "d1", "d2"]) this[name] = new Float64Array(rows * this.stride);
    this.z = new Float64Array(width);
  }

  /** f of the net `p` at (x0, x1); keeps the active units of both layers as row `b`. */
  forward(p, b, x0, x1) {
    const H = this.width, { place1, place2, h1, h2, z } = this;
    const start = b * this.stride, W2 = 3 * H, b2 = W2 + H * H, w3 = b2 + H;
    let end = start;
    for (let j = 0; j < H; j++) {
      const a = x0 * p[j] + x1 * p[H + j] + p[2 * H + j];
      if (a > 0) {
        place1[end] = W2 + j * H;
        h1[end++] = a;
      }
    }
    this.count1[b] = end - start;
    for (let k = end; k < end + 3; k++) {
      place1[k] = W2;
      h1[k] = 0;
    }
    for (let j = 0; j < H; j++) z[j] = p[b2 + j];
    for (let k = start; k < end; k += 4) {
      const i0 = place1[k], i1 = place1[k + 1], i2 = place1[k + 2], i3 = place1[k + 3];
      const a0 = h1[k], a1 = h1[k + 1], a2 = h1[k + 2], a3 = h1[k + 3];
      for (let j = 0; j < H; j++) z[j] += a0 * p[i0 + j] + a1 * p[i1 + j] + a2 * p[i2 + j] + a3 * p[i3 + j];
    }
    let f = p[w3 + H];
    end = start;
    for (let j = 0; j < H; j++) {
      const a = z[j];
      if (a > 0) {
        place2[end] = j;
        h2[end++] = a;
        f += a * p[w3 + j];
      }
    }
    this.count2[b] = end - start;
    return f;
  }

  /** q -= sum over rows of slope[b] * grad f(x_b) at p, with the activations of the last forward passes at p. q may be
      p: all that is needed of p is read first. The inputs are x[4 b + offset] and the next. */
  descend(p, q, rows, slope, x, offset) {
    const H = this.width, { stride, count1, count2, place1, place2, h1, h2, d1, d2 } = this;
    const W2 = 3 * H, b2 = W2 + H * H, w3 = b2 + H;
    for (let b = 0; b < rows; b++) {
      const start = b * stride, end1 = start + count1[b], end2 = start + count2[b], g = slope[b];
      for (let l = start; l < end2; l++) d2[l] = g * p[w3 + place2[l]];
      for (let k = start; k < end1; k += 4) {
        const i0 = place1[k], i1 = place1[k + 1], i2 = place1[k + 2], i3 = place1[k + 3];
        let s0 = 0, s1 = 0, s2 = 0, s3 = 0;
        for (let l = start; l < end2; l++) {
          const j = place2[l], d = d2[l];
          s0 += d * p[i0 + j];
          s1 += d * p[i1 + j];
          s2 += d * p[i2 + j];
          s3 += d * p[i3 + j];
        }
        d1[k] = s0;
        d1[k + 1] = s1;
        d1[k + 2] = s2;
        d1[k + 3] = s3;
      }
    }
    for (let b = 0; b < rows; b++) {
      const start = b * stride, end1 = start + count1[b], end2 = start + count2[b], g = slope[b];
      q[w3 + H] -= g;
      for (let l = start; l < end2; l++) {
        q[w3 + place2[l]] -= g * h2[l];
        q[b2 + place2[l]] -= d2[l];
      }
      for (let k = start; k < end1; k += 4) {
        const i0 = place1[k], i1 = place1[k + 1], i2 = place1[k + 2], i3 = place1[k + 3];
        const a0 = h1[k], a1 = h1[k + 1], a2 = h1[k + 2], a3 = h1[k + 3];
        for (let l = start; l < end2; l++) {
          const j = place2[l], d = d2[l];
          q[i0 + j] -= a0 * d;
          q[i1 + j] -= a1 * d;
          q[i2 + j] -= a2 * d;
          q[i3 + j] -= a3 * d;
        }
      }
      const x0 = x[4 * b + offset], x1 = x[4 * b + offset + 1];
      for (let k = start; k < end1; k++) {
        const i = (place1[k] - W2) / H, d = d1[k];
        q[i] -= d * x0;
        q[H + i] -= d * x1;
        q[2 * H + i] -= d;
      }
    }
  }
}

/** One training. `given` may hold training and test points, nets and order, instead of those of the seed. */
class Run {
  constructor(s, given = {}) {
    this.s = s;
    this.training = given.training || sample(s, "train");
    this.test = given.test || sample(s, "test");
    this.nets = (given.nets || initial(s)).map((net) => Float64Array.from(net));
    this.order = given.order || batchOrder(s);
    this.n = this.training.y.length;
    this.batch = Math.min(s.batch, this.n);
    this.perEpoch = Math.ceil(this.n / this.batch);
    this.steps = s.epochs * this.perEpoch;
    this.step = 0;
    this.head = [1, 1];
    this.tilde = [1, 1];
    [this.importance, this.effective, this.parts = [1, 1]] = METHODS[s.method];
    this.passes = [0, 1].map(() => new Passes(s.width, this.batch));
    this.x = new Float64Array(4 * this.batch);
    for (const name of ["y", "weight"]) this[name] = new Float64Array(this.batch);
    for (const name of ["f", "slope"]) this[name] = [0, 1].map(() => new Float64Array(this.batch));
    // SAM's ascent moves every layer.
    const layers = s.method === "sam" ? ["gradient", "phantom"] : [];
    for (const name of layers) this[name] = this.nets.map((net) => net.slice());
    this.recent = new Float64Array(2 * this.perEpoch); // phantom heads of the last epoch
    this.sums = [0, 0, 0, 0]; // of real and phantom heads over all steps
    this.spent = 0; // milliseconds
  }

  /** Take the batch that begins at `start` of the order, and f of both features at `nets`; its number of points. */
  load(start, rows, nets) {
    const { x, y, training, order } = this;
    for (let b = 0; b < rows; b++) {
      const point = order[start + b];
      for (let k = 0; k < 4; k++) x[4 * b + k] = training.x[4 * point + k];
      y[b] = training.y[point];
    }
    this.evaluate(nets, rows);
  }

  evaluate(nets, rows) {
    const { x, passes, f } = this;
    for (let i = 0; i < 2; i++)
      for (let b = 0; b < rows; b++) f[i][b] = passes[i].forward(nets[i], b, x[4 * b + 2 * i], x[4 * b + 2 * i + 1]);
  }

  /** The phantom of the batch at hand into `tilde`, and for SAM into `phantom`; f is left at the real parameters. */
  ascend(rows) {
    const { s, y, f, head, tilde, slope, weight } = this;
    const g = [0, 0];
    for (let b = 0; b < rows; b++) {
      weight[b] = (-y[b] * sigmoid(-y[b] * (head[0] * f[0][b] + head[1] * f[1][b]))) / rows;
      for (let i = 0; i < 2; i++) g[i] += weight[b] * f[i][b];
    }
    let square = g[0] * g[0] + g[1] * g[1];
    if (s.method === "sam") {
      for (let i = 0; i < 2; i++) {
        const gradient = this.gradient[i].fill(0);
        for (let b = 0; b < rows; b++) slope[i][b] = -weight[b] * head[i];
        this.passes[i].descend(this.nets[i], gradient, rows, slope[i], this.x, 2 * i);
        for (let k = 0; k < gradient.length; k++) square += gradient[k] * gradient[k];
      }
    }
    const scale = square > 0 ? s.rho / Math.sqrt(square) : 0;
    for (let i = 0; i < 2; i++) {
      tilde[i] = head[i] + this.parts[i] * scale * g[i];
      if (s.method !== "sam") continue;
      const net = this.nets[i], gradient = this.gradient[i], phantom = this.phantom[i];
      for (let k = 0; k < net.length; k++) phantom[k] = net[k] + scale * gradient[k];
    }
  }

  /** The head that a factor of the gradient is taken at; "ratio" is equation (7). */
  choose(source) {
    const { head, s } = this;
    if (source === "phantom") return this.tilde;
    if (source === "ratio") return [head[0], s.ratio * head[0]];
    return source === "rate" ? [s.ratio * head[0], head[1]] : head;
  }

  advance(count) {
    const { s, head, tilde, y, f, slope, nets } = this, began = performance.now();
    const last = Math.min(this.steps, this.step + count);
    for (; this.step < last; this.step++) {
      const within = this.step % this.perEpoch, epoch = (this.step - within) / this.perEpoch;
      const start = epoch * this.n + within * this.batch, rows = Math.min(this.batch, this.n - within * this.batch);
      this.load(start, rows, nets);
      this.ascend(rows);
      for (let i = 0; i < 2; i++) {
        this.recent[2 * within + i] = tilde[i];
        this.sums[i] += head[i];
        this.sums[2 + i] += tilde[i];
      }
      const acts = epoch >= s.from && epoch < s.to, everywhere = acts && s.method === "sam";
      if (everywhere) this.evaluate(this.phantom, rows);
      const u = this.choose(acts ? this.importance : "real"), g = this.choose(acts ? this.effective : "real");
      const [u0, u1] = u, [g0, g1] = g; // before the head moves
      for (let b = 0; b < rows; b++) {
        const part = (-s.rate * y[b] * sigmoid(-y[b] * (u0 * f[0][b] + u1 * f[1][b]))) / rows;
        slope[0][b] = part * g0;
        slope[1][b] = part * g1;
        head[0] -= part * f[0][b];
        head[1] -= part * f[1][b];
      }
      for (let i = 0; i < 2; i++)
        this.passes[i].descend(everywhere ? this.phantom[i] : nets[i], nets[i], rows, slope[i], this.x, 2 * i);
    }
    this.spent += performance.now() - began;
  }

  /** w_i f_i of both features on `points`, flat: all of the easy feature first. */
  contributions(points) {
    const n = points.y.length, out = new Float64Array(2 * n);
    for (let i = 0; i < 2; i++)
      for (let k = 0; k < n; k++) {
        const x0 = points.x[4 * k + 2 * i], x1 = points.x[4 * k + 2 * i + 1];
        out[i * n + k] = this.head[i] * this.passes[i].forward(this.nets[i], 0, x0, x1);
      }
    return out;
  }

  finite() {
    return this.nets.every((net) => Number.isFinite(net.reduce((sum, weight) => sum + weight, 0)));
  }

  /** Errors of sign(w_e f_e), sign(w_h f_h) and sign(F), NaN where diverged; a margin of zero is an error. */
  errors(points) {
    const n = points.y.length, values = this.contributions(points), wrong = [0, 0, 0];
    for (let k = 0; k < n; k++) {
      const easy = points.y[k] * values[k], hard = points.y[k] * values[n + k];
      wrong[0] += !(easy > 0);
      wrong[1] += !(hard > 0);
      wrong[2] += !(easy + hard > 0);
    }
    return wrong.map((count) => (this.finite() ? count / n : NaN));
  }

  /** Numbers of the state: errors, heads, ratio of the last epoch's mean phantom, and of the means over training. */
  record() {
    const held = Math.min(this.step, this.perEpoch), mean = [0, 0];
    for (let k = 0; k < 2 * held; k++) mean[k % 2] += this.recent[k];
    const [easy, hard, model] = this.errors(this.test);
    return {
      step: this.step, steps: this.steps, perEpoch: this.perEpoch, head: [...this.head],
      easy, hard, model, training: this.errors(this.training)[2],
      real: this.head[1] / this.head[0], phantom: held ? mean[1] / mean[0] : NaN,
      meanReal: this.sums[1] / this.sums[0], meanPhantom: this.sums[3] / this.sums[2],
      microseconds: (1000 * this.spent) / this.step, finite: this.finite(),
    };
  }

  /** Contours, and what drives the gradient of each training point, with the batches of the first epoch (Section 6). */
  picture() {
    const { n, training } = this, { x, y } = training, margins = this.contributions(training);
    for (let k = 0; k < 2 * n; k++) margins[k] *= y[k % n];
    const real = new Float64Array(n), phantom = new Float64Array(n);
    for (let k = 0; k < n; k++) real[k] = sigmoid(-(margins[k] + margins[n + k]));
    for (let start = 0; start < n; start += this.batch) {
      const rows = Math.min(this.batch, n - start);
      this.load(start, rows, this.nets);
      this.ascend(rows);
      if (this.s.method === "sam") this.evaluate(this.phantom, rows);
      for (let b = 0; b < rows; b++) {
        const F = this.tilde[0] * this.f[0][b] + this.tilde[1] * this.f[1][b];
        phantom[this.order[start + b]] = sigmoid(-this.y[b] * F);
      }
    }
    const limits = [0, 0];
    for (let k = 0; k < 4 * n; k++) limits[k % 4 < 2 ? 0 : 1] = Math.max(limits[k % 4 < 2 ? 0 : 1], Math.abs(x[k]));
    const surfaces = limits.map((limit, i) => {
      const out = new Float32Array(NODES * NODES), place = (k) => 1.15 * limit * ((2 * k) / (NODES - 1) - 1);
      for (let k = 0; k < out.length; k++) {
        const f = this.passes[i].forward(this.nets[i], 0, place(k % NODES), place(Math.floor(k / NODES)));
        out[k] = this.head[i] * f;
      }
      return out;
    });
    return { surfaces, nodes: NODES, limits: limits.map((limit) => 1.15 * limit), x, y, margins, real, phantom };
  }
}

let runs = [];
const answers = {
  start: ({ settings, given }) => {
    runs = settings.map((s, i) => new Run(s, given && given[i]));
    return answers.advance({ steps: 0, picture: true });
  },
  advance: ({ steps, picture }) => {
    for (const run of runs) run.advance(steps);
    return runs.map((run) => ({ ...run.record(), picture: picture ? run.picture() : null }));
  },
  train: ({ settings, given }) => {
    const run = new Run(settings, given);
    run.advance(run.steps);
    return run.record();
  },
};
scope.onmessage = ({ data }) => scope.postMessage(answers[data.ask](data));
}
