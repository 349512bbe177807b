"""Chapter 04: the rules of C2 and C5, and the phantom head beside the real one (Figures 2B and 4)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from book import style, toy
from book.claims import Check, Outcome, compared, weakest
from lib.stats import estimate, rank_correlation

HARDLY = 1 / 3  # of the phantom ratio's change: a real ratio that changes by less hardly moves
FEATURES = {"easy": (style.EASY, "s"), "hard": (style.HARD, "o")}
REAL = {"linestyle": (0, (4, 2)), "linewidth": 1.1}  # the real head is dashed, the phantom solid
RADIUS = r"LSAM radius $\rho$ (0: SGD)"
OUTER = 0.1  # share of the steps at either end that a shaded range leaves out


def allowance_used(phantom: np.ndarray, real: np.ndarray) -> np.ndarray:
    """What part of the change that a steady real ratio is allowed it uses up in the mean over seeds, (...,), by the
    changes (..., seed) of both; C2 has to be below 1."""
    return np.abs(real.mean(axis=-1)) / (HARDLY * phantom.mean(axis=-1))


def checks_c2(rhos: Sequence[float], chosen: int | np.ndarray, phantom: np.ndarray, real: np.ndarray) -> list[Check]:
    """C2 from the phantom and the real ratio of mean weights, (complexity, rho, seed), the first radius 0; the
    complexities are those where the spiral is the hard feature, `chosen` as for `toy.at_radius`."""
    if not len(phantom):
        return []
    larger, moved = (toy.at_radius(ratio, chosen) - ratio[:, 0] for ratio in (phantom, real))
    room = np.stack([HARDLY * larger - moved, HARDLY * larger + moved])  # upwards and downwards
    trends = np.stack([rank_correlation(rhos, ratio) for ratio in phantom])
    return [
        weakest("rank correlation of ρ with the phantom ratio above 0", trends, +1, main=True),
        weakest(f"phantom ratio at {toy.radius(rhos, chosen)} minus that of SGD above 0", larger, +1),
        weakest("a third of the phantom ratio's change minus the real ratio's above 0", room, +1),
    ]


def readings(head: np.ndarray, sgd: np.ndarray) -> dict[str, np.ndarray]:
    """Four readings of the easy and the hard feature's effective rate at the phantom, each (..., 2), by the heads
    (..., record, 4) of w_e, w_h, w~_e, w~_h under LSAM and under SGD from the same seed; the first is Figure 4's.

    Means over steps, but for the share of the sum, which a step whose sum is near 0 would decide: that is of mean
    weights.
    """
    real, phantom = head[..., :2], head[..., 2:]
    means = [weights.mean(axis=-2) for weights in (phantom, real)]
    shares = [mean / mean.sum(axis=-1, keepdims=True) for mean in means]
    lengths = [np.linalg.norm(weights, axis=-1, keepdims=True) for weights in (phantom, real)]
    return {
        "over the net's own weight": (phantom / real).mean(axis=-2),
        "over SGD's weight at the same step": (phantom / sgd[..., :2]).mean(axis=-2),
        "share of the sum, less the real one": shares[0] - shares[1],
        "over the own weight, heads of length 1": (phantom / real / (lengths[0] / lengths[1])).mean(axis=-2),
    }


def checks_c5(rhos: Sequence[float], chosen: int | np.ndarray, easy: np.ndarray, hard: np.ndarray) -> list[Check]:
    """C5 from the means over training of w~_e / w_e and w~_h / w_h, each (complexity, rho, seed), of the complexities
    where the spiral is the hard feature; `chosen` as for `toy.at_radius`. The easy half holds whatever the constants
    (chapter 13), and counts only where it does not."""
    if not len(easy):
        return []
    rate = f"feature: mean of w̃/w at {toy.radius(rhos, chosen)}"
    lowered, raised = (list(map(estimate, toy.at_radius(values, chosen))) for values in (easy, hard))
    below = compared(f"easy {rate} below 1", lowered, high=1)
    return [
        compared(f"hard {rate} above 1", raised, low=1, main=True),
        replace(below, trivial=below.outcome is Outcome.HOLDS),
    ]


def phantom_ratio(
    rhos: Sequence[float],
    complexities: Sequence[float],
    ratios: np.ndarray,
    real: np.ndarray,
    summaries: Mapping[str, np.ndarray],
    small: np.ndarray,
    threshold: float,
    trace: np.ndarray,
    epochs: int,
    rho: float,
) -> Figure:
    """Figure 2B, and what the mean stands for.

    ratios, real: phantom and real ratio, (complexity, rho, seed). Of the largest complexity: summaries,
    each (rho, seed); trace (seed, record, 4) of w_e, w_h, w~_e, w~_h at `rho`. small (complexity, rho): the
    share of steps with w~_e below `threshold`.
    """
    fig, ((means, others), (weights, counts)) = plt.subplots(2, 2, figsize=(style.PAGE_WIDTH, 5.7))
    for k, colour in enumerate(style.sequence(len(complexities))):
        marker = "osD^vPX"[k % 7]
        means.plot(rhos, real[k].mean(axis=-1), color=colour, **REAL)
        style.line(means, rhos, ratios[k], colour, marker, label=f"{complexities[k]:g}°")
        counts.plot(rhos, small[k], color=colour, marker=marker, markersize=4)
    means.set(title="ratio of mean weights", xlabel=RADIUS, ylabel=r"$\tilde w_h\, /\, \tilde w_e$")
    means.set_ylim(top=1.25 * means.get_ylim()[1])
    means.legend(title=r"complexity $\kappa$; dashed: real", loc="upper left", ncols=3, columnspacing=1)

    for (name, values), colour, marker in zip(summaries.items(), (style.LSAM, style.SAM, style.GREY), "o^X"):
        style.line(others, rhos, values, colour, marker, label=name)
    others.set(title=rf"three summaries, $\kappa$ = {complexities[-1]:g}°", xlabel=RADIUS)
    others.legend(loc="upper left")

    _heads_over_training(weights, trace, epochs)
    weights.set_title(rf"over training, $\rho$ = {rho:g}, $\kappa$ = {complexities[-1]:g}°")
    counts.set(title=rf"steps with $\tilde w_e$ below {threshold:g}", xlabel=RADIUS, ylabel="share of steps")
    counts.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    counts.set_ylim(bottom=0)
    return fig


def _heads_over_training(axes: Axes, trace: np.ndarray, epochs: int) -> None:
    """The phantom weights, mean and middle range over steps and seeds, and the real ones, dashed."""
    edges, time = windows(trace.shape[1], epochs)
    for i, (feature, (colour, _)) in enumerate(FEATURES.items()):
        real, phantom = trace[..., i], trace[..., 2 + i]
        parts = np.split(phantom, edges[1:-1], axis=1)
        style.band(axes, time, *np.transpose([np.quantile(part, [OUTER, 1 - OUTER]) for part in parts]), colour, 0.2)
        axes.plot(time, in_windows(phantom, edges).mean(axis=0), color=colour, label=rf"$\tilde w_{feature[0]}$")
        axes.plot(time, in_windows(real, edges).mean(axis=0), color=colour, label=rf"$w_{feature[0]}$", **REAL)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.legend(loc="upper left", ncols=2, columnspacing=1, handlelength=1.8)
    axes.set(xscale="log", xlabel="epoch", ylabel="weight")


def effective_rates(
    rhos: Sequence[float], rates: np.ndarray, against_sgd: np.ndarray, trace: np.ndarray, epochs: int, rho: float
) -> Figure:
    """Figure 4: w~_i / w_i over training at `rho`, its mean against rho, and w~_i over the w_i of SGD.

    rates, against_sgd: (feature, rho, seed), of whole trainings; trace: (seed, record, 4) at `rho`.
    """
    fig, axes = plt.subplots(1, 3, figsize=(style.PAGE_WIDTH, 2.9), width_ratios=[1.15, 1, 1])
    edges, time = windows(trace.shape[1], epochs)
    for i, (feature, (colour, marker)) in enumerate(FEATURES.items()):
        style.line(axes[0], time, in_windows(trace[..., 2 + i] / trace[..., i], edges).T, colour)
        style.line(axes[1], rhos, rates[i], colour, marker, label=feature)
        style.line(axes[2], rhos, against_sgd[i], colour, marker)
    for panel in axes:
        panel.axhline(1, color="black", linewidth=0.6)
    own = r"$\tilde w_i\, /\, w_i$"
    axes[0].set(xscale="log", xlabel="epoch", ylabel=own, title=rf"over training, $\rho$ = {rho:g}")
    axes[1].set(xlabel=r"radius $\rho$", ylabel=own, title="mean over training")
    axes[2].set(xlabel=r"radius $\rho$", ylabel=r"$\tilde w_i$ / $w_i$ of SGD", title="against SGD")
    axes[1].legend(title="feature", loc="lower left")
    return fig


def windows(records: int, epochs: int, count: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """At most `count` windows over `records`, one epoch, then longer by the same factor: their edges, and their
    middles in epochs."""
    edges = np.unique([0, *np.geomspace(max(1.0, records / epochs), records, count).round().astype(int)])
    return edges, (edges[:-1] + edges[1:]) / 2 * epochs / records


def in_windows(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Means of `values` (..., records) within windows, (..., windows)."""
    return np.stack([part.mean(axis=-1) for part in np.split(values, edges[1:-1], axis=-1)], axis=-1)
