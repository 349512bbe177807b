"""The compiled passes of a stack of toy nets: forward, and backward from the loss's slope at the logits.

A stack is as in `lib.toy.stack`. Rows of the batch are taken `BLOCK` at a time, so that a weight once loaded serves
five of them; the last block is filled up with rows of zeros.
"""

from __future__ import annotations

import numpy as np
from numba import njit

BLOCK = 5  # the paper's batch size
MATH = {"reassoc", "contract", "nsz", "arcp"}  # sums may be reordered; NaN and infinity keep their meaning


@njit(cache=True, fastmath=MATH)
def forward(theta, width, x, first, second, phi):
    """Fill both hidden layers (m, 2, rows, H) and phi = (f_e, f_h) (m, 2, rows) from x (m, rows, 4)."""
    zero = np.float32(0)
    for m in range(theta.shape[0]):
        for f in range(2):
            net, h1, h2 = theta[m, f], first[m, f], second[m, f]
            W1, b1 = net[: 2 * width].reshape(2, width), net[2 * width : 3 * width]
            W2 = net[3 * width : (3 + width) * width].reshape(width, width)
            b2 = net[(3 + width) * width : (4 + width) * width]
            w3 = net[(4 + width) * width : (5 + width) * width]
            for b in range(x.shape[1]):
                x0, x1 = x[m, b, 2 * f], x[m, b, 2 * f + 1]
                for j in range(width):
                    z = x0 * W1[0, j] + x1 * W1[1, j] + b1[j]
                    h1[b, j] = zero if z <= zero else z
                    h2[b, j] = b2[j]
            for r in range(0, x.shape[1], BLOCK):
                z0, z1, z2, z3, z4 = h2[r], h2[r + 1], h2[r + 2], h2[r + 3], h2[r + 4]
                for i in range(width):
                    w = W2[i]
                    a0, a1, a2, a3, a4 = h1[r, i], h1[r + 1, i], h1[r + 2, i], h1[r + 3, i], h1[r + 4, i]
                    for j in range(width):
                        v = w[j]
                        z0[j] += a0 * v
                        z1[j] += a1 * v
                        z2[j] += a2 * v
                        z3[j] += a3 * v
                        z4[j] += a4 * v
            for b in range(x.shape[1]):
                total = zero
                for j in range(width):
                    z = h2[b, j]
                    h2[b, j] = zero if z <= zero else z
                    total += h2[b, j] * w3[j]
                phi[m, f, b] = total + net[(5 + width) * width]


@njit(cache=True, fastmath=MATH)
def backward(theta, width, x, first, second, phi, slope, gradient):
    """Fill the gradient, shaped as theta, from the slope (m, rows) of the loss at the logits."""
    zero = np.float32(0)
    rows = x.shape[1]
    d1, d2 = np.empty((rows, width), np.float32), np.empty((rows, width), np.float32)
    for m in range(theta.shape[0]):
        for f in range(2):
            net, g, h1, h2 = theta[m, f], gradient[m, f], first[m, f], second[m, f]
            W2 = net[3 * width : (3 + width) * width].reshape(width, width)
            w3 = net[(4 + width) * width : (5 + width) * width]
            gW1, gb1 = g[: 2 * width].reshape(2, width), g[2 * width : 3 * width]
            gW2 = g[3 * width : (3 + width) * width].reshape(width, width)
            gb2, gw3 = (g[(3 + width) * width : (4 + width) * width], g[(4 + width) * width : (5 + width) * width])
            g[:] = zero
            for b in range(rows):
                g[(5 + width) * width + 1] += slope[m, b] * phi[m, f, b]
                delta = slope[m, b] * net[(5 + width) * width + 1]
                g[(5 + width) * width] += delta
                for j in range(width):
                    d2[b, j] = zero if h2[b, j] == zero else delta * w3[j]
                    gw3[j] += delta * h2[b, j]
                    gb2[j] += d2[b, j]
            for r in range(0, rows, BLOCK):
                for i in range(width):
                    w, gw = W2[i], gW2[i]
                    a0, a1, a2, a3, a4 = h1[r, i], h1[r + 1, i], h1[r + 2, i], h1[r + 3, i], h1[r + 4, i]
                    s0, s1, s2, s3, s4 = zero, zero, zero, zero, zero
                    for j in range(width):
                        v = w[j]
                        y0, y1, y2, y3, y4 = d2[r, j], d2[r + 1, j], d2[r + 2, j], d2[r + 3, j], d2[r + 4, j]
                        s0 += y0 * v
                        s1 += y1 * v
                        s2 += y2 * v
                        s3 += y3 * v
                        s4 += y4 * v
                        gw[j] += a0 * y0 + a1 * y1 + a2 * y2 + a3 * y3 + a4 * y4
                    d1[r, i] = zero if a0 == zero else s0
                    d1[r + 1, i] = zero if a1 == zero else s1
                    d1[r + 2, i] = zero if a2 == zero else s2
                    d1[r + 3, i] = zero if a3 == zero else s3
                    d1[r + 4, i] = zero if a4 == zero else s4
            for b in range(rows):
                x0, x1 = x[m, b, 2 * f], x[m, b, 2 * f + 1]
                for j in range(width):
                    gW1[0, j] += x0 * d1[b, j]
                    gW1[1, j] += x1 * d1[b, j]
                    gb1[j] += d1[b, j]


@njit(cache=True, fastmath=MATH)
def norms(vectors):
    """Of every row of vectors (m, p), in double precision: squares of a small gradient vanish in single."""
    found = np.empty(vectors.shape[0])
    for m in range(vectors.shape[0]):
        total = 0.0
        for j in range(vectors.shape[1]):
            value = np.float64(vectors[m, j])
            total += value * value
        found[m] = np.sqrt(total)
    return found
