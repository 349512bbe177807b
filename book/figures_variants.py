"""Chapter 12: the methods in order of what they gain, every radius, and where the ascent goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from book import style
from book.style import line
from book.variants import Reach
from book.variants_cost import Passes
from lib.stats import Estimate

KINDS = {  # colour and marker of a row
    "SAM and its variants": (style.SAM, "o"),
    "LSAM": (style.LSAM, "D"),
    "another base, or decay": (style.HARD, "^"),
    "re-weighting": (style.EASY, "s"),
    "SGD": (style.SGD, "v"),
}
LEAST_RANGE = 0.01  # a panel reaches at least so far to either side: rounding is no effect
MARKERS = "Dosp^vPX<>*"
COLOURS = (
    style.LSAM,
    style.SAM,
    style.SGD,
    style.HARD,
    style.EASY,
    style.GREY,
    "#CC79A7",
    "#56B4E9",
    "#22272E",
    "#8C6D31",
    "#117733",
)
NAMES = {  # of `lib.optim.variants.VARIANTS`, as the rows are called
    "sgd": "SGD",
    "sam": "SAM",
    "lsam": "LSAM",
    "asam": "ASAM",
    "gsam": "GSAM",
    "esam": "ESAM",
    "looksam": "LookSAM",
    "friendly": "Friendly SAM",
    "sam_decay_inside": "SAM, decay inside",
    "adam": "Adam",
    "sam_adam": "SAM around Adam",
}


@dataclass(frozen=True)
class Row:
    """One method of a ranking: its estimates, one a panel, or None where it was not run."""

    name: str
    kind: str  # of `KINDS`
    effects: tuple[Estimate, ...] | None


def kind(name: str) -> str:
    """The kind of the row of this name, of `KINDS`."""
    if name in ("SGD", "LSAM"):
        return name
    if name.startswith(("Just", "Group")):
        return "re-weighting"
    return "another base, or decay" if "decay" in name or "Adam" in name else "SAM and its variants"


def ranking(rows: Sequence[Row], titles: Sequence[str], labels: Sequence[str]) -> Figure:
    """One line a row, the largest effect of the first panel on top; rows that were not run come last.

    titles, labels: one a panel.
    """
    rows = sorted(rows, key=lambda row: -row.effects[0].mean if row.effects else np.inf)
    size = style.PAGE_WIDTH, 1.15 + 0.27 * len(rows)
    widths = [1.5] + [1] * (len(titles) - 1)
    fig, axes = plt.subplots(1, len(titles), figsize=size, sharey=True, width_ratios=widths, squeeze=False)
    for number, (panel, title, label) in enumerate(zip(axes[0], titles, labels)):
        _whiskers(panel, rows, number)
        panel.axvline(0, color="black", linewidth=0.6)
        panel.set(title=title, xlabel=label)
        panel.tick_params(axis="y", length=0)
        panel.spines["left"].set_visible(False)
        panel.margins(x=0.08)
        low, high = panel.get_xlim()
        panel.set_xlim(min(low, -LEAST_RANGE), max(high, LEAST_RANGE))
        panel.xaxis.set_major_locator(MaxNLocator(6 if number == 0 else 3))
    axes[0, 0].set(yticks=range(len(rows)), yticklabels=[row.name for row in rows], ylim=(len(rows) - 0.4, -0.6))
    handles, names = axes[0, 0].get_legend_handles_labels()
    if len(names) > 1:
        fig.legend(
            handles,
            names,
            loc="outside upper center",
            ncols=len(names),
            fontsize=8.5,
            columnspacing=1.2,
            handletextpad=0.4,
        )
    return fig


def _whiskers(axes: Axes, rows: Sequence[Row], panel: int) -> None:
    """Means with their 95 % intervals, a colour and a marker for each kind."""
    for place, row in enumerate(rows):
        if place % 2 == 0:
            axes.axhspan(place - 0.5, place + 0.5, color="black", alpha=0.04, linewidth=0)
        if row.effects is None:
            axes.text(
                0.02,
                place,
                "not run here",
                transform=axes.get_yaxis_transform(),
                va="center",
                color=style.GREY,
                style="italic",
                fontsize=8.5,
            )
    for kind, (colour, marker) in KINDS.items():
        places = [place for place, row in enumerate(rows) if row.effects and row.kind == kind]
        if places:
            effects = [rows[place].effects[panel] for place in places]
            means = np.array([effect.mean for effect in effects])
            ends = np.array([[effect.low, effect.high] for effect in effects])
            axes.errorbar(
                means,
                places,
                xerr=np.abs(ends - means[:, None]).T,
                fmt=marker,
                color=colour,
                markersize=4.5,
                linewidth=1.2,
                label=kind,
            )


def every_radius(
    curves: Mapping[str, tuple[Sequence[float], np.ndarray, np.ndarray]], sgd: float, columns: int = 4
) -> Figure:
    """One panel a method: its radii, and the hard and the easy probing error at each, (radius, seed).

    sgd: its mean hard probing error, dotted.
    """
    count = -(-len(curves) // columns)
    fig, axes = plt.subplots(count, columns, figsize=(style.PAGE_WIDTH, 0.5 + 1.75 * count), sharey=True, squeeze=False)
    for panel, (name, (radii, hard, easy)) in zip(axes.flat, curves.items()):
        panel.axhline(sgd, color=style.SGD, linestyle=":", linewidth=1.1, label="hard, SGD")
        line(panel, radii, hard, style.HARD, "o", label="hard")
        line(panel, radii, easy, style.EASY, "s", label="easy")
        panel.set(title=name, ylim=(-0.02, 0.56), xlim=(0, None))
        panel.tick_params(labelsize=8)
    for panel in list(axes.flat)[len(curves) :]:
        panel.set_visible(False)
    for panel in axes[-1]:
        panel.set_xlabel(r"radius $\rho$")
    for panel in axes[:, 0]:
        panel.set_ylabel("probing error")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return fig


def where_the_ascent_goes(methods: Mapping[str, Reach], sgd: float) -> Figure:
    """Each point one setting of a method, in the order of its radii: hard probing error against the length of
    the ascent on the head (left) and against the phantom head's ratio (right), 1 being balanced.

    sgd: its hard probing error, dotted.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(style.PAGE_WIDTH, 3.6), sharey=True)
    for (name, found), colour, marker in zip(methods.items(), COLOURS, MARKERS):
        for panel, values in ((left, found.head_length), (right, found.phantom)):
            panel.plot(values, found.hard, color=colour, marker=marker, markersize=5, linewidth=0.8, label=name)
    for panel in (left, right):
        panel.axhline(sgd, color="black", linestyle=":", linewidth=0.9)
    left.set_xscale("log")
    left.set(
        xlabel=r"length of $\varepsilon$ on the head",
        ylabel="hard probing error",
        title="how far the ascent moves the head",
        ylim=(-0.015, None),
    )
    right.set(xlabel=r"$\tilde w_h / \tilde w_e$", title="the phantom's head", xlim=(0, None))
    right.axvline(1, color="black", linewidth=0.6)
    fig.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=5, fontsize=8.5)
    return fig


def cost(methods: Mapping[str, tuple[Passes, tuple[float, float, float]]]) -> Figure:
    """One row a method, in units of SGD's step: passes as bars, a backward one counted as two forward ones,
    and the measured time (median, ends of its interval) as dots."""
    fig, axes = plt.subplots(figsize=(style.PAGE_WIDTH, 0.9 + 0.26 * len(methods)))
    places = range(len(methods))
    bars = [(one.forward + 2 * one.backward) / 3 for one, _ in methods.values()]
    axes.barh(places, bars, height=0.62, color=[KINDS[kind(name)][0] for name in methods], alpha=0.35)
    middle, low, high = np.array([times for _, times in methods.values()]).T
    axes.errorbar(
        middle,
        places,
        xerr=[middle - low, high - middle],
        fmt="o",
        color="black",
        markersize=3.5,
        linewidth=1,
        label="measured time",
    )
    axes.axvline(1, color="black", linewidth=0.6)
    axes.set(
        yticks=places,
        yticklabels=list(methods),
        ylim=(len(methods) - 0.4, -0.6),
        xlim=(0, None),
        xlabel="one step, over SGD's",
    )
    axes.tick_params(axis="y", length=0)
    fig.legend(*axes.get_legend_handles_labels(), loc="outside upper center", fontsize=8.5)
    return fig
