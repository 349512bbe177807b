"""Chapter 13: in what share of settings each claim holds, where it fails, and what each constant does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, PercentFormatter

from book import style
from book.open_choices import CHOICES, OURS
from book.open_choices_shares import Explanation, Share
from book.style import whiskers
from lib.stats import Estimate

SYMBOLS = {choice.name: choice.symbol for choice in CHOICES}
STRATA = {
    "all": ("all settings", style.GREY, "o"),
    "premise": ("the premise holds", style.SAM, "s"),
    "to gain": ("and there is something to gain", style.LSAM, "D"),
}


def shares(claims: Mapping[str, Mapping[str, Mapping[str, Share]]]) -> Figure:
    """Shares of settings with their 95 % intervals: claim -> part -> stratum -> share.

    The first part of a claim is the whole claim, named by the claim alone.
    """
    rows = [(claim, part, found) for claim, parts in claims.items() for part, found in parts.items()]
    fig, axes = plt.subplots(figsize=(style.PAGE_WIDTH, 0.8 + 0.33 * len(rows)))
    for (stratum, (label, colour, marker)), shift in zip(STRATA.items(), (-0.25, 0, 0.25)):
        found = [shares[stratum] for _, _, shares in rows]
        middle, ends = np.array([one.share for one in found]), np.array([one.interval for one in found])
        axes.errorbar(
            middle,
            np.arange(len(rows)) + shift,
            xerr=np.abs(ends - middle[:, None]).T,
            fmt=marker,
            color=colour,
            markersize=4,
            linewidth=1.1,
            label=label,
        )
    _table(axes, [part for _, part, _ in rows])
    for label, (claim, part, _) in zip(axes.get_yticklabels(), rows):
        label.set_fontweight("bold" if part == claim else "normal")
    axes.set(xlim=(-0.02, 1.02), xlabel="share of settings in which it holds")
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    fig.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=len(STRATA))
    return fig


def change(values: Mapping[str, float]) -> str:
    """What sets a point of the one-at-a-time study apart from our choice, in symbols."""
    changed = {name: value for name, value in values.items() if not np.isclose(value, OURS[name])}
    if not changed:
        return "our choice"
    return ", ".join(
        f"{SYMBOLS[name]} = {value:g}" + ("°" if name == "complexity" else "") for name, value in changed.items()
    )


def one_at_a_time(
    names: Sequence[str],
    gains: Sequence[Estimate],
    premise: Sequence[bool],
    claims: Mapping[str, Mapping[str, np.ndarray]],
) -> Figure:
    """One row a point, the first our choice: LSAM's gain over SGD, grey where the premise fails, and how many
    parts of each claim hold (claim -> part -> (n,))."""
    size = style.PAGE_WIDTH, 0.9 + 0.25 * len(names)
    fig, (left, right) = plt.subplots(1, 2, figsize=size, sharey=True, width_ratios=[1.7, 1])
    rows, premise = np.arange(len(names)), np.asarray(premise)
    left.axvspan(gains[0].low, gains[0].high, color=style.LSAM, alpha=0.12, linewidth=0)
    for chosen, colour, marker in ((premise, style.LSAM, "D"), (~premise, style.GREY, "x")):
        if chosen.any():
            whiskers(left, [gains[row] for row in rows[chosen]], rows[chosen], colour, marker)
    left.axvline(0, color="black", linewidth=0.6)
    for column, held in enumerate(np.stack(list(parts.values())) for parts in claims.values()):
        for row in rows:
            whole = held[:, row].all()
            right.text(
                column,
                row,
                f"{held[:, row].sum()}/{len(held)}",
                ha="center",
                va="center",
                fontsize=8,
                color=style.LSAM if whole else "black" if premise[row] else style.GREY,
                fontweight="bold" if whole else "normal",
            )
    _table(left, names)
    right.set(
        xlim=(-0.5, len(claims) - 0.5), xticks=range(len(claims)), xticklabels=list(claims), title="parts that hold"
    )
    right.tick_params(length=0)
    right.spines[:].set_visible(False)
    for row in rows[::2]:
        right.axhspan(row - 0.5, row + 0.5, color="black", alpha=0.04, linewidth=0)
    left.set(title="gain of LSAM over SGD", xlabel="fall of the hard probing error")
    return fig


def where(
    values: pd.DataFrame,
    held: Mapping[str, np.ndarray],
    judged: np.ndarray,
    explained: Mapping[str, Explanation | None],
) -> Figure:
    """One panel a claim: at which points it is `held`, against the two constants that decide it most (the
    first two where nothing explains it); points that are not `judged` (n,) are small dots."""
    rows = -(-len(held) // 2)
    fig, axes = plt.subplots(rows, 2, figsize=(style.PAGE_WIDTH, 0.4 + 2.7 * rows), squeeze=False)
    for panel, (claim, holds) in zip(axes.flat, held.items()):
        explanation = explained[claim]
        across, up = values.columns[:2] if explanation is None else explanation.importance.index[:2]
        for chosen, colour, marker, size, label in (
            (~judged, style.GREY, ".", 12, "no premise"),
            (judged & holds, style.LSAM, "o", 18, "holds"),
            (judged & ~holds, style.SGD, "x", 24, "fails"),
        ):
            panel.scatter(
                values[across][chosen],
                values[up][chosen],
                c=colour,
                marker=marker,
                s=size,
                linewidths=1.1 if marker == "x" else 0,
                label=label,
            )
        for axis, name in ((panel.xaxis, across), (panel.yaxis, up)):
            _choice_axis(panel, axis, name)
        known = "" if explanation is None else f" (tree: {explanation.accuracy:.2f})"
        panel.set_title(claim + known)
    for panel in axes.flat[len(held) :]:
        panel.set_visible(False)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return fig


def _choice_axis(panel: Axes, axis: Axis, name: str) -> None:
    """Named by the choice's symbol; logarithmic, with the ends and our value, where the design is so."""
    choice = next(choice for choice in CHOICES if choice.name == name)
    axis.set_label_text(choice.symbol)
    if choice.scale != "linear":
        (panel.set_xscale if axis is panel.xaxis else panel.set_yscale)("log")
        ticks = sorted({choice.low, choice.ours, choice.high})
        axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.set_minor_locator(NullLocator())


def sensitivity(correlations: pd.DataFrame) -> Figure:
    """Rank correlations (effect, constant) as a table of colours."""
    fig, axes = plt.subplots(figsize=(style.PAGE_WIDTH, 0.9 + 0.36 * len(correlations)))
    table = correlations.to_numpy()
    axes.imshow(table, cmap=style.DIVERGING, vmin=-1, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(table):
        axes.text(
            column,
            row,
            f"{value:.1f}".replace("-0.0", "0.0"),
            ha="center",
            va="center",
            fontsize=8,
            color="white" if abs(value) > 0.7 else "black",
        )
    axes.set(
        xticks=range(table.shape[1]),
        xticklabels=[SYMBOLS[name] for name in correlations.columns],
        yticks=range(len(table)),
        yticklabels=correlations.index,
    )
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[:].set_visible(False)
    return fig


def _table(axes: Axes, names: Sequence[str]) -> None:
    """Rows from top to bottom, every other one shaded."""
    for row in range(0, len(names), 2):
        axes.axhspan(row - 0.5, row + 0.5, color="black", alpha=0.04, linewidth=0)
    axes.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
