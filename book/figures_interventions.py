"""Chapter 06: each effect alone, what LSAM does that they do not, and what it all depends on (Figure 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from book import style
from book.figures_rebalancing import line
from lib.stats import Estimate
from lib.toy.decomposition import Decomposition

NAMES = {"importance": "importance weighting", "learning_rate": "learning rate", "both": "both together"}
COLOURS = {"importance": style.SAM, "learning_rate": style.HARD, "both": "#22272E"}
MARKERS = {"importance": "o", "learning_rate": "s", "both": "^"}
ERROR = (-0.015, 0.53)  # limits of an axis of probing errors, which chance puts at 0.5


def error_against_ratio(
    ratios: Sequence[float],
    curves: Mapping[str, np.ndarray],
    lsam_ratio: np.ndarray,
    lsam: np.ndarray,
    rhos: Sequence[float],
    compared: int,
) -> Figure:
    """Figure 6: hard probing error of each intervention, (ratio, seed), against c, with LSAM laid over.

    lsam_ratio, lsam: measured ratio and hard probing error, (rho, seed), the first of SGD; `compared`: the
    index of the radius that is marked. Faint dots are single seeds.
    """
    fig, axes = plt.subplots(1, 3, figsize=(style.PAGE_WIDTH, 3.2), sharey=True)
    jitter = np.random.default_rng(0).uniform(0.95, 1.05, size=lsam.shape[1])
    places = lsam_ratio.mean(axis=1)
    stars = ((0, style.SGD, "SGD"), (compared, style.LSAM, rf"LSAM, $\rho$ = {rhos[compared]:g}"))
    for panel, (effect, values) in zip(axes, curves.items()):
        colour = COLOURS[effect]
        panel.plot(np.outer(ratios, jitter), values, ".", color=colour, alpha=0.3, markersize=3.5, mew=0)
        line(panel, ratios, values, colour, MARKERS[effect])
        line(panel, places, lsam, style.LSAM, "D", r"LSAM, other $\rho$")
        for at, shade, label in stars:
            panel.plot(places[at], lsam[at].mean(), "*", color=shade, markersize=12, mec="white", label=label)
        panel.set(title=NAMES[effect], xlabel=r"$c$, or mean ratio $\tilde w_h/\tilde w_e$ of LSAM")
        panel.xaxis.label.set_size(8.5)
        ratio_axis(panel, ratios)
    axes[0].set(ylabel="hard probing error", ylim=ERROR)
    axes[0].legend(loc="lower right", fontsize=8.5)
    return fig


def ratio_axis(axes: Axes, ratios: Sequence[float]) -> None:
    """A logarithmic axis labelled at powers of two."""
    low, high = np.floor(np.log2(min(ratios))), np.ceil(np.log2(max(ratios)))
    axes.set_xscale("log", base=2)
    axes.set_xticks(2.0 ** np.arange(low, high + 1))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def rates_by_fit(parts: Decomposition, head: np.ndarray) -> np.ndarray:
    """Mean w~_h / w_h over the points that the hard feature gets wrong, that it gets right, and over all.

    head (seeds, 2): the real one. The first two means are weighted by the importance weight, as the gradient
    weights points; the last is not. (3, seeds); NaN where there is no such point.
    """
    rate, wrong = parts.phantom_head[..., 1] / head[:, 1:], parts.hard <= 0
    with np.errstate(invalid="ignore"):
        chosen = [
            (parts.real * rate * points).sum(axis=1) / (parts.real * points).sum(axis=1) for points in (wrong, ~wrong)
        ]
    return np.stack([*chosen, rate.mean(axis=1)])


def reasons(
    rhos: Sequence[float],
    isolated: Mapping[str, np.ndarray],
    by_fit: np.ndarray,
    memories: Sequence[int],
    averaged: Mapping[str, np.ndarray],
) -> Figure:
    """Why a constant ratio is not LSAM.

    Left: hard probing error of LSAM and of each of its effects alone, name -> (rho, seed). Centre:
    `rates_by_fit`, (rho, 3, seed). Right: hard probing error, name -> (memory, seed), with phantoms averaged
    over `memories` batches.
    """
    fig, (effects, points, blur) = plt.subplots(1, 3, figsize=(style.PAGE_WIDTH, 3.2))
    shades = {"SGD": (style.SGD, "v"), "both (LSAM)": (style.LSAM, "D")}
    shades |= {NAMES[effect]: (COLOURS[effect], MARKERS[effect]) for effect in NAMES}
    for name, values in isolated.items():
        line(effects, rhos, values, *shades[name], name)
    effects.set(xlabel=r"radius $\rho$", ylabel="hard probing error", title="LSAM's effects", ylim=ERROR)
    effects.legend(loc="lower left", fontsize=8.5)

    kinds = (("wrong", style.HARD, "o"), ("right", style.EASY, "s"), ("all, unweighted", style.GREY, "X"))
    for i, (name, colour, marker) in enumerate(kinds):
        line(points, rhos, by_fit[:, i], colour, marker, name)
    points.axhline(1, color="black", linewidth=0.6)
    points.set(xlabel=r"radius $\rho$", ylabel=r"$\tilde w_h\, /\, w_h$", title="hard rate, by point")
    points.legend(title="hard feature is", loc="lower left", fontsize=8.5, title_fontsize=8.5)

    for name, values in averaged.items():
        line(blur, memories, values, *shades[name], name)
    blur.set(xscale="log", xlabel="batches averaged over", title="averaged phantom", ylim=ERROR)
    blur.set_xticks(memories, [f"{memory}" for memory in memories])
    blur.xaxis.set_minor_locator(NullLocator())
    blur.legend(loc="lower right", fontsize=8.5)
    return fig


def variations(
    names: Sequence[str], gains: Mapping[str, Sequence[Estimate]], distances: Sequence[Estimate], tolerance: float
) -> Figure:
    """One row a variation: the mean gain of each intervention, and how far both together are from LSAM."""
    size = style.PAGE_WIDTH, 1.0 + 0.37 * len(names)
    fig, (left, right) = plt.subplots(1, 2, figsize=size, sharey=True, width_ratios=[1.5, 1])
    rows = np.arange(len(names))
    for effect, shift in zip(gains, (-0.22, 0, 0.22)):
        whiskers(left, gains[effect], rows + shift, COLOURS[effect], MARKERS[effect], NAMES[effect])
    whiskers(right, distances, rows, COLOURS["both"], MARKERS["both"])
    left.axvline(0, color="black", linewidth=0.6)
    right.axvline(tolerance, color="black", linewidth=0.8, linestyle=":")
    for panel in (left, right):
        for row in rows[::2]:
            panel.axhspan(row - 0.5, row + 0.5, color="black", alpha=0.04, linewidth=0)
        panel.tick_params(axis="y", length=0)
        panel.spines["left"].set_visible(False)
    left.set(
        yticks=rows,
        yticklabels=names,
        ylim=(len(names) - 0.5, -0.5),
        title="mean gain over SGD",
        xlabel="fall of the hard probing error",
    )
    right.set(xlabel="hard probing error", xlim=(0, None), title="distance of both to LSAM")
    fig.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return fig


def whiskers(
    axes: Axes, effects: Sequence[Estimate], rows: np.ndarray, colour: str, marker: str, label: str | None = None
) -> None:
    """Means with their 95 % intervals, one below the other."""
    means = np.array([effect.mean for effect in effects])
    ends = np.array([[effect.low, effect.high] for effect in effects])
    axes.errorbar(
        means,
        rows,
        xerr=np.abs(ends - means[:, None]).T,
        fmt=marker,
        color=colour,
        markersize=4,
        linewidth=1.1,
        label=label,
    )
