"""The compiled engine: each toy net is trained from start to end inside one core's cache.

A net is one float32 vector ``[W1 (2, H), b1 (H), W2 (H, H), b2 (H), w3 (H), b3 (1)]``, weights as (input, output), with
H padded to a multiple of `LANES` by neurons that stay zero. Every thread trains one whole model at a time, without
Python's lock: its result is the same, bit for bit, for any number of threads and any company. It is also the same
whether this process compiled the code or found it in Numba's cache, since all of it is inlined in one function: one
that is called could be bound to the caller's copy or to its own, which add in another order.

Nearly all time goes into the middle layer, three products with W2 a step. Rows of the batch are taken `BLOCK` at a
time, so that a weight once loaded serves five rows; the forward pass adds four terms of the sum for each visit of the
accumulator; the backward pass updates a weight while it is at hand for the dot products.

All compiled code of this engine is in this one file: Numba renews its cache when the file of a function changes, but
not when a file that it calls into does. `lib.toy.stack_kernel` is another kernel for the variants, which need a whole
gradient before the step; it stays apart, since it adds in another order and neither gives the other's bits.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

LANES = 8  # floats of one AVX2 register
BLOCK = 5  # the paper's batch size
REAL, PHANTOM, FIXED, CONSTANT = 0, 1, 2, 3  # which head a factor of the gradient is evaluated at
ANCHOR_EASY, ANCHOR_HARD, ANCHOR_NORM = 0, 1, 2  # what of the real head is held where the ratio is fixed
EASY, HARD = 0, 1
UNBIASED, SCALED, BIASED = 0, 1, 2  # what is made of the mean of the ascents so far
ONLY_EASY, ONLY_HARD = 1, 2  # the one entry of the head that is displaced
MATH = {"reassoc", "contract", "nsz", "arcp"}  # sums may be reordered, but NaN and infinity keep their meaning

NUMBERS = "rho", "learning_rate", "ratio", "memory", "smoothing", "decoupling"
RATES = "rate_easy", "rate_hard"
COUNTS = "batch_size", "epochs", "phantom_points", "phantom_shift"
WINDOW = "first", "last"  # steps from the first to before the last in which heads other than the real one are taken
CODES = "importance", "effective", "head_importance", "anchor", "average", "displaced"
CONFIG = np.dtype(
    [(name, "f8") for name in (*NUMBERS, *RATES)] + [(name, "i4") for name in (*COUNTS, *WINDOW, *CODES, "with_bias")]
)


def padded(width: int) -> int:
    """The width that the kernel works at."""
    return -(-width // LANES) * LANES


@njit(cache=True, fastmath=MATH, forceinline=True)
def _split(rows):
    """Rows of a batch taken in blocks (the last one filled up with empty rows from three on) and one by one."""
    left = rows % BLOCK
    return (rows + BLOCK - left, 0) if left > 2 else (rows - left, left)


@njit(cache=True, fastmath=MATH, forceinline=True)
def _forward(net, width, x, rows, h1, h2, f):
    """f_i of equation (4) for `rows` inputs x (rows, 2); leaves both layers of activations in h1, h2."""
    zero = np.float32(0)
    W1, b1 = net[: 2 * width].reshape(2, width), net[2 * width : 3 * width]
    W2 = net[3 * width : (3 + width) * width].reshape(width, width)
    b2, w3 = net[(3 + width) * width : (4 + width) * width], net[(4 + width) * width : (5 + width) * width]
    blocked, single = _split(rows)
    for b in range(blocked + single):
        x0, x1 = x[b, 0], x[b, 1]
        for j in range(width):
            h1[b, j] = max(x0 * W1[0, j] + x1 * W1[1, j] + b1[j], zero)
            h2[b, j] = b2[j]
    for r in range(0, blocked, BLOCK):
        z0, z1, z2, z3, z4 = h2[r], h2[r + 1], h2[r + 2], h2[r + 3], h2[r + 4]
        for i in range(0, width, 4):
            p, q, s, t = W2[i], W2[i + 1], W2[i + 2], W2[i + 3]
            p0, q0, s0, t0 = h1[r, i], h1[r, i + 1], h1[r, i + 2], h1[r, i + 3]
            p1, q1, s1, t1 = h1[r + 1, i], h1[r + 1, i + 1], h1[r + 1, i + 2], h1[r + 1, i + 3]
            p2, q2, s2, t2 = h1[r + 2, i], h1[r + 2, i + 1], h1[r + 2, i + 2], h1[r + 2, i + 3]
            p3, q3, s3, t3 = h1[r + 3, i], h1[r + 3, i + 1], h1[r + 3, i + 2], h1[r + 3, i + 3]
            p4, q4, s4, t4 = h1[r + 4, i], h1[r + 4, i + 1], h1[r + 4, i + 2], h1[r + 4, i + 3]
            for j in range(width):
                pj, qj, sj, tj = p[j], q[j], s[j], t[j]
                z0[j] += p0 * pj + q0 * qj + s0 * sj + t0 * tj
                z1[j] += p1 * pj + q1 * qj + s1 * sj + t1 * tj
                z2[j] += p2 * pj + q2 * qj + s2 * sj + t2 * tj
                z3[j] += p3 * pj + q3 * qj + s3 * sj + t3 * tj
                z4[j] += p4 * pj + q4 * qj + s4 * sj + t4 * tj
    for b in range(blocked, blocked + single):
        for i in range(0, width, 4):
            pb, qb, sb, tb = h1[b, i], h1[b, i + 1], h1[b, i + 2], h1[b, i + 3]
            for j in range(width):
                h2[b, j] += pb * W2[i, j] + qb * W2[i + 1, j] + sb * W2[i + 2, j] + tb * W2[i + 3, j]
    for b in range(blocked + single):
        total = zero
        for j in range(width):
            active = max(h2[b, j], zero)
            h2[b, j] = active
            total += active * w3[j]
        f[b] = total + net[(5 + width) * width]


@njit(cache=True, fastmath=MATH, forceinline=True)
def _descend(net, width, x, rows, h1, h2, delta, d2, d1, bias):
    """net -= sum over rows of delta[b] * grad f(x_b), in place: delta is the learning rate times the loss's slope in
    f. bias: 1, or 0 for layers whose biases stay as they are."""
    zero = np.float32(0)
    W1, b1 = net[: 2 * width].reshape(2, width), net[2 * width : 3 * width]
    W2 = net[3 * width : (3 + width) * width].reshape(width, width)
    b2, w3 = net[(3 + width) * width : (4 + width) * width], net[(4 + width) * width : (5 + width) * width]
    blocked, single = _split(rows)
    used = blocked + single
    for b in range(used):
        slope = delta[b]
        for j in range(width):
            d2[b, j] = slope * w3[j] if h2[b, j] > zero else zero
        net[(5 + width) * width] -= bias * slope
    for b in range(used):
        slope = delta[b]
        for j in range(width):
            w3[j] -= slope * h2[b, j]
            b2[j] -= bias * d2[b, j]
    if single == 0 and blocked == BLOCK:
        for i in range(width):
            a0, a1, a2, a3, a4 = h1[0, i], h1[1, i], h1[2, i], h1[3, i], h1[4, i]
            s0, s1, s2, s3, s4 = zero, zero, zero, zero, zero
            for j in range(width):
                v, y0, y1, y2, y3, y4 = W2[i, j], d2[0, j], d2[1, j], d2[2, j], d2[3, j], d2[4, j]
                s0 += y0 * v
                s1 += y1 * v
                s2 += y2 * v
                s3 += y3 * v
                s4 += y4 * v
                W2[i, j] = v - (a0 * y0 + a1 * y1 + a2 * y2 + a3 * y3 + a4 * y4)
            d1[0, i] = s0 if a0 > zero else zero
            d1[1, i] = s1 if a1 > zero else zero
            d1[2, i] = s2 if a2 > zero else zero
            d1[3, i] = s3 if a3 > zero else zero
            d1[4, i] = s4 if a4 > zero else zero
    else:
        last = len(d1) - 1  # no point's: it holds a row of W2 as it was
        for i in range(width):
            for j in range(width):
                d1[last, j] = W2[i, j]
            for r in range(0, blocked, BLOCK):
                a0, a1, a2, a3, a4 = h1[r, i], h1[r + 1, i], h1[r + 2, i], h1[r + 3, i], h1[r + 4, i]
                s0, s1, s2, s3, s4 = zero, zero, zero, zero, zero
                for j in range(width):
                    v = d1[last, j]
                    y0, y1, y2, y3, y4 = d2[r, j], d2[r + 1, j], d2[r + 2, j], d2[r + 3, j], d2[r + 4, j]
                    s0 += y0 * v
                    s1 += y1 * v
                    s2 += y2 * v
                    s3 += y3 * v
                    s4 += y4 * v
                    W2[i, j] -= a0 * y0 + a1 * y1 + a2 * y2 + a3 * y3 + a4 * y4
                d1[r, i] = s0 if a0 > zero else zero
                d1[r + 1, i] = s1 if a1 > zero else zero
                d1[r + 2, i] = s2 if a2 > zero else zero
                d1[r + 3, i] = s3 if a3 > zero else zero
                d1[r + 4, i] = s4 if a4 > zero else zero
            for b in range(blocked, used):
                a0, s0 = h1[b, i], zero
                if a0 > zero:  # a silent unit passes nothing back and learns nothing
                    for j in range(width):
                        s0 += d2[b, j] * d1[last, j]
                        W2[i, j] -= a0 * d2[b, j]
                d1[b, i] = s0
    for b in range(used):
        x0, x1 = x[b, 0], x[b, 1]
        for j in range(width):
            slope = d1[b, j]
            W1[0, j] -= slope * x0
            W1[1, j] -= slope * x1
            b1[j] -= bias * slope


@njit(cache=True, forceinline=True)
def _weight(margin, smoothing, decoupling):
    """The importance weight: the size of the loss's slope in the logit."""
    e = math.exp(-abs(margin))  # without overflow
    weight = (e if margin > 0 else 1.0) / (1.0 + e)
    if decoupling > 0:  # an infinite margin times zero would be NaN
        weight -= decoupling * margin
    return weight - smoothing / 2


@njit(cache=True, forceinline=True)
def _choose(source, config, w_easy, w_hard, phantom_easy, phantom_hard):
    """The head that a factor of the gradient is evaluated at: real, phantom, of fixed ratio (equation (7)), or at
    constant rates."""
    if source == PHANTOM:
        return phantom_easy, phantom_hard
    if source == CONSTANT:
        return config.rate_easy * w_easy, config.rate_hard * w_hard
    if source == FIXED:
        ratio = config.ratio
        if config.anchor == ANCHOR_EASY:
            return w_easy, ratio * w_easy
        if config.anchor == ANCHOR_HARD:
            return w_hard / ratio, w_hard
        scale = math.sqrt((w_easy * w_easy + w_hard * w_hard) / (1.0 + ratio * ratio))
        return scale, ratio * scale
    return w_easy, w_hard


@njit(cache=True, fastmath=MATH, forceinline=True)
def _errors(nets, width, head, X, Y, x, h1, h2, f, out):
    """Error of sign(w_e f_e), sign(w_h f_h) and sign(F) on the points (X, Y); a margin of zero is an error."""
    n, rows = X.shape[0], x.shape[1] - BLOCK
    wrong_easy, wrong_hard, wrong = 0, 0, 0
    for start in range(0, n, rows):
        count = min(rows, n - start)
        for b in range(count):
            for feature in range(2):
                x[feature, b, 0] = X[start + b, 2 * feature]
                x[feature, b, 1] = X[start + b, 2 * feature + 1]
        for feature in range(2):
            _forward(nets[feature], width, x[feature], count, h1[feature], h2[feature], f[feature])
        for b in range(count):
            easy = Y[start + b] * head[EASY] * f[EASY, b]
            hard = Y[start + b] * head[HARD] * f[HARD, b]
            wrong_easy += not easy > 0
            wrong_hard += not hard > 0
            wrong += not easy + hard > 0
    out[0], out[1], out[2] = wrong_easy / n, wrong_hard / n, wrong / n


@njit(cache=True, fastmath=MATH, nogil=True)
def train(nets, width, head, config, points, record, trace_every):
    """Train one model in place: nets (2, size), head (2) float64, `config` of CONFIG's fields.

    points: X (n, 4), Y (n,), evaluation (2, points, 5), x and y in columns, and order (epochs, n). record, filled: at
    the steps stops (c,) errors (c, 3 splits, 3), head_record (c, 2) and snapshots (c or 0, 2, size); every
    `trace_every` steps (0: never) trace (t, 4).

    Equation (6): the slope in f_i is -y * lambda * g_i, with importance weight lambda and feature factors g each taken
    at the real, the phantom or the fixed-ratio head; SGD is (real, real), LSAM (phantom, phantom).
    """
    X, Y, evaluation, order = points
    stops, errors, head_record, snapshots, trace = record
    n, batch_size = X.shape[0], min(config.batch_size, X.shape[0])
    apart = config.phantom_points > 0  # of other points than the batch's own
    room = max(batch_size, config.phantom_points, 8 * BLOCK) + BLOCK  # the last block may be filled up
    x, f = np.zeros((2, room, 2), np.float32), np.zeros((2, room), np.float32)
    h1, h2 = np.zeros((2, room, width), np.float32), np.zeros((2, room, width), np.float32)
    d1, d2 = np.zeros((room, width), np.float32), np.zeros((room, width), np.float32)
    y, slope, delta = np.zeros(room), np.zeros(room), np.zeros((2, room), np.float32)
    rate, rho, memory = config.learning_rate, config.rho, config.memory
    smoothing, decoupling = config.smoothing, config.decoupling
    step, stop, bias = 0, 0, np.float32(config.with_bias)
    mean_easy, mean_hard, missing = 0.0, 0.0, 1.0  # of the ascents so far, and what the mean's weights lack to one
    for epoch in range(config.epochs + 1):
        for start in range(0, n, batch_size):
            while stop < len(stops) and stops[stop] == step:
                _errors(nets, width, head, X, Y, x, h1, h2, f, errors[stop, 0])
                for split in range(len(evaluation)):
                    clean = evaluation[split]
                    _errors(nets, width, head, clean[:, :4], clean[:, 4], x, h1, h2, f, errors[stop, 1 + split])
                head_record[stop, EASY], head_record[stop, HARD] = head[EASY], head[HARD]
                if len(snapshots) > 0:
                    snapshots[stop] = nets
                stop += 1
            if epoch == config.epochs:
                return
            rows = min(batch_size, n - start)
            w_easy, w_hard = head[EASY], head[HARD]
            ascending = config.first <= step < config.last
            ascent_easy, ascent_hard = 0.0, 0.0
            for own in range(0 if apart and ascending else 1, 2):
                begin, count = (start + config.phantom_shift * batch_size) % n, config.phantom_points
                if own:
                    begin, count = start, rows
                for b in range(count):  # in the epoch's order, from its end on to its beginning
                    at = begin + b
                    point = order[epoch, at if at < n else at - n]
                    for feature in range(2):
                        x[feature, b, 0] = X[point, 2 * feature]
                        x[feature, b, 1] = X[point, 2 * feature + 1]
                    y[b] = Y[point]
                for feature in range(2):
                    _forward(nets[feature], width, x[feature], count, h1[feature], h2[feature], f[feature])
                if ascending and rho > 0 and own != apart:  # w~ - w of equation (5)
                    for b in range(count):
                        margin = y[b] * (w_easy * f[EASY, b] + w_hard * f[HARD, b])
                        weight = y[b] * _weight(margin, smoothing, decoupling)
                        ascent_easy -= weight * f[EASY, b]
                        ascent_hard -= weight * f[HARD, b]
                    norm = math.sqrt(ascent_easy * ascent_easy + ascent_hard * ascent_hard)
                    if norm > 0:
                        ascent_easy *= rho / norm
                        ascent_hard *= rho / norm
            if ascending and memory > 1:
                mean_easy = (1 - 1 / memory) * mean_easy + ascent_easy / memory
                mean_hard = (1 - 1 / memory) * mean_hard + ascent_hard / memory
                missing *= 1 - 1 / memory
                scale = 1.0
                if config.average == UNBIASED:
                    scale = 1 / (1 - missing)
                elif config.average == SCALED:
                    norm = math.sqrt(mean_easy * mean_easy + mean_hard * mean_hard)
                    scale = rho / norm if norm > 0 else 0.0
                ascent_easy, ascent_hard = scale * mean_easy, scale * mean_hard
            tilde_easy = w_easy if config.displaced == ONLY_HARD else w_easy + ascent_easy
            tilde_hard = w_hard if config.displaced == ONLY_EASY else w_hard + ascent_hard
            if trace_every > 0 and step % trace_every == 0:
                at = step // trace_every
                trace[at, 0], trace[at, 1], trace[at, 2], trace[at, 3] = (w_easy, w_hard, tilde_easy, tilde_hard)
            held = config, w_easy, w_hard, tilde_easy, tilde_hard
            importance, head_importance = config.importance * ascending, config.head_importance * ascending
            u_easy, u_hard = _choose(importance, *held)
            g_easy, g_hard = _choose(config.effective * ascending, *held)
            v_easy, v_hard = _choose(head_importance, *held)
            for b in range(rows):
                weight = _weight(y[b] * (u_easy * f[EASY, b] + u_hard * f[HARD, b]), smoothing, decoupling)
                slope[b] = -rate * y[b] * weight / rows
                delta[EASY, b], delta[HARD, b] = slope[b] * g_easy, slope[b] * g_hard
                if head_importance != importance:
                    weight = _weight(y[b] * (v_easy * f[EASY, b] + v_hard * f[HARD, b]), smoothing, decoupling)
                    slope[b] = -rate * y[b] * weight / rows
            for b in range(rows, rows + BLOCK):
                delta[EASY, b], delta[HARD, b] = 0, 0  # rows that fill up the last block teach nothing
            for b in range(rows):
                head[EASY] -= slope[b] * f[EASY, b]
                head[HARD] -= slope[b] * f[HARD, b]
            for feature in range(2):
                _descend(nets[feature], width, x[feature], rows, h1[feature], h2[feature], delta[feature], d2, d1, bias)
            step += 1
