"""Chapter 04: the phantom head beside the real one, over training and against rho (Figures 2B and 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from book import style
from lib.stats import bootstrap_band

FEATURES = ("easy", "hard")
COLOURS = (style.EASY, style.HARD)
MARKERS = "osD^vPX"
DASHED = (0, (4, 2))  # the real head; the phantom is solid
RADIUS = r"LSAM radius $\rho$ (0: SGD)"
OUTER = 0.1  # share of the steps at either end that a shaded range leaves out


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
    colours = style.sequence(len(complexities))
    for k, (complexity, colour) in enumerate(zip(complexities, colours)):
        marker = MARKERS[k % len(MARKERS)]
        means.plot(rhos, real[k].mean(axis=-1), color=colour, linestyle=DASHED, linewidth=1.1)
        line(means, rhos, ratios[k], colour, marker, f"{complexity:g}°")
        counts.plot(rhos, small[k], color=colour, marker=marker, markersize=4)
    means.set(title="ratio of mean weights", xlabel=RADIUS, ylabel=r"$\tilde w_h\, /\, \tilde w_e$")
    means.set_ylim(top=1.25 * means.get_ylim()[1])
    means.legend(title=r"complexity $\kappa$; dashed: real", loc="upper left", ncols=3, columnspacing=1)

    for (name, values), colour, marker in zip(summaries.items(), (style.LSAM, style.SAM, style.GREY), "o^X"):
        line(others, rhos, values, colour, marker, name)
    others.set(title=rf"three summaries, $\kappa$ = {complexities[-1]:g}°", xlabel=RADIUS)
    others.legend(loc="upper left")

    heads_over_training(weights, trace, epochs)
    weights.set_title(rf"over training, $\rho$ = {rho:g}, $\kappa$ = {complexities[-1]:g}°")
    counts.set(title=rf"steps with $\tilde w_e$ below {threshold:g}", xlabel=RADIUS, ylabel="share of steps")
    counts.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    counts.set_ylim(bottom=0)
    return fig


def heads_over_training(axes: Axes, trace: np.ndarray, epochs: int) -> None:
    """The phantom weights, mean and middle range over steps and seeds, and the real ones, dashed."""
    edges = windows(trace.shape[1], epochs)
    time = middles(edges, trace.shape[1], epochs)
    for i, (feature, colour) in enumerate(zip(FEATURES, COLOURS)):
        real, phantom = trace[..., i], trace[..., 2 + i]
        parts = [phantom[:, start:stop] for start, stop in zip(edges[:-1], edges[1:])]
        low, high = np.transpose([np.quantile(part, [OUTER, 1 - OUTER]) for part in parts])
        axes.fill_between(time, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(time, in_windows(phantom, edges).mean(axis=0), color=colour, label=rf"$\tilde w_{feature[0]}$")
        axes.plot(
            time,
            in_windows(real, edges).mean(axis=0),
            color=colour,
            linestyle=DASHED,
            linewidth=1.1,
            label=rf"$w_{feature[0]}$",
        )
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
    edges = windows(trace.shape[1], epochs)
    time = middles(edges, trace.shape[1], epochs)
    for i, (feature, colour) in enumerate(zip(FEATURES, COLOURS)):
        line(axes[0], time, in_windows(trace[..., 2 + i] / trace[..., i], edges).T, colour, "")
        line(axes[1], rhos, rates[i], colour, "so"[i], feature)
        line(axes[2], rhos, against_sgd[i], colour, "so"[i])
    for panel in axes:
        panel.axhline(1, color="black", linewidth=0.6)
    own = r"$\tilde w_i\, /\, w_i$"
    axes[0].set(xscale="log", xlabel="epoch", ylabel=own, title=rf"over training, $\rho$ = {rho:g}")
    axes[1].set(xlabel=r"radius $\rho$", ylabel=own, title="mean over training")
    axes[2].set(xlabel=r"radius $\rho$", ylabel=r"$\tilde w_i$ / $w_i$ of SGD", title="against SGD")
    axes[1].legend(title="feature", loc="lower left")
    return fig


def line(
    axes: Axes,
    places: Sequence[float],
    values: np.ndarray,
    colour: str,
    marker: str,
    label: str | None = None,
    linestyle: str | tuple = "-",
) -> None:
    """Mean over seeds of `values` (places, seeds), with its 95 % bootstrap band."""
    mean, low, high = bootstrap_band(values)
    axes.fill_between(places, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(places, mean, color=colour, marker=marker, markersize=4, linestyle=linestyle, label=label)


def windows(records: int, epochs: int, count: int = 24) -> np.ndarray:
    """Edges of at most `count` windows over `records`: one epoch, then longer by the same factor."""
    start = max(1.0, records / epochs)
    return np.unique([0, *np.geomspace(start, records, count).round().astype(int)])


def in_windows(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Means of `values` (..., records) within windows, (..., windows)."""
    parts = [values[..., start:stop].mean(axis=-1) for start, stop in zip(edges[:-1], edges[1:])]
    return np.stack(parts, axis=-1)


def middles(edges: np.ndarray, records: int, epochs: int) -> np.ndarray:
    """The windows' middles in epochs."""
    return (edges[:-1] + edges[1:]) / 2 * epochs / records
