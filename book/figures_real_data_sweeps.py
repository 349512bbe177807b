"""Figures of Table 1's sweeps: probing error against rho, against test error, and Lorenz curves on images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from book import style
from book.figures_real_data_images import ATTRIBUTES, COLOURS, DASHES, MARKERS, NAMES, SETS
from book.real_data_table1 import LEARNING_RATES, RADII
from lib.measure import FRACTIONS
from lib.trials.images import ImageTrial

POSITIONS = {rho: position for position, rho in enumerate((0.0, *RADII))}


def against_rho(
    rows: pd.DataFrame, features: Mapping[str, tuple[str, str]], settings: Mapping[str, Mapping[str, ImageTrial] | None]
) -> Figure:
    """Probing error (%) of the hard and of the easy feature at every rho (0 is SGD), a line for each
    learning rate: one net each, of seed 0. A ring marks the setting selected for SGD and for SAM on
    validation data.

    rows: `table`'s, of whole sweeps. features: (easy, hard) of each data set. settings: the selected trials.
    """
    panels = [
        (dataset, attribute, kind)
        for dataset, (easy, hard) in features.items()
        for attribute, kind in ((hard, "hard"), (easy, "easy"))
    ]
    fig, axes = plt.subplots(1, len(panels), figsize=(style.PAGE_WIDTH, 2.9), squeeze=False)
    for (dataset, attribute, kind), ax in zip(panels, axes[0]):
        chosen = rows[(rows.dataset == dataset) & (rows.measure == attribute)]
        for lr, colour, marker in zip(LEARNING_RATES, style.sequence(len(LEARNING_RATES)), "osD"):
            line = chosen[chosen.lr == lr].set_index("rho").error.sort_index()
            ax.plot(
                [POSITIONS[rho] for rho in line.index],
                100 * line,
                color=colour,
                marker=marker,
                ms=4,
                lw=1.3,
                label=f"{lr:g}",
            )
        _rings(ax, chosen, settings[dataset])
        ticks = ["0", *(f"{rho:g}".lstrip("0") for rho in RADII)]
        ax.set_xticks(range(len(ticks)), ticks, fontsize="x-small")
        ax.set(xlabel=r"$\rho$")
        low, high = ax.get_ylim()
        # From 0, unless the differences would drown; room for the rings.
        ax.set_ylim(0 if low < high / 2 else low - 0.1 * (high - low), high + 0.12 * (high - low))
        ax.set_title("\n".join((f"{ATTRIBUTES[attribute]} ({kind})", f"in {SETS[dataset]}")))
    axes[0, 0].set_ylabel("probing error (%)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    handles.append(Line2D([], [], ls="", marker="o", ms=10, mfc="none", mec=style.GREY))
    fig.legend(
        handles, [*(f"learning rate {label}" for label in labels), "selected"], loc="outside lower center", ncols=4
    )
    return fig


def _rings(ax: Axes, rows: pd.DataFrame, settings: Mapping[str, ImageTrial] | None) -> None:
    for method in ("sgd", "sam") if settings else ():
        trial = settings[method]
        at = rows[(rows.lr == trial.lr) & (rows.rho == trial.rho)].error
        if at.empty:  # a setting of the reader's
            continue
        ax.plot([POSITIONS[trial.rho]], 100 * at, ls="", marker="o", ms=11, mfc="none", mew=1.6, mec=COLOURS[method])


def against_test_error(rows: pd.DataFrame, features: Mapping[str, tuple[str, str]]) -> Figure:
    """Probing error of the hard feature (%) against test error (%), a mark for each setting of the sweep."""
    fig, axes = plt.subplots(1, len(features), figsize=(style.PAGE_WIDTH, 2.9), squeeze=False)
    for (dataset, (_, hard)), ax in zip(features.items(), axes[0]):
        for method in ("sam", "sgd"):
            of_method = rows[(rows.dataset == dataset) & (rows.method == method)]
            test, probing = (
                of_method[of_method.measure == measure].set_index(["lr", "rho"]).error for measure in ("test", hard)
            )
            ax.plot(
                100 * test,
                100 * probing.reindex(test.index),
                ls="",
                marker=MARKERS[method],
                ms=6,
                mec="white",
                mew=0.5,
                alpha=0.75,
                color=COLOURS[method],
                label=NAMES[method],
            )
        ax.set(xlabel="test error (%)", ylabel=f"probing error of {ATTRIBUTES[hard]} (%)", title=SETS[dataset])
        ax.set_xlim(left=min(0, ax.get_xlim()[0]))
        ax.margins(x=0.1)
        ax.xaxis.set_major_locator(MaxNLocator(6))
    axes[0, 0].legend()
    return fig


def lorenz_curves(records: Iterable[dict]) -> Figure:
    """Lorenz curves of importance weights at the real and at the phantom parameters of nets that SGD and SAM
    trained: mean and range over seeds (Figure 3, for the paired sets)."""
    records = [record for record in records if record["status"] == "finished"]
    datasets = list(dict.fromkeys(record["configuration"]["of"]["dataset"] for record in records))
    fig, axes = plt.subplots(1, len(datasets), figsize=(style.PAGE_WIDTH, 3.2), squeeze=False)
    for dataset, ax in zip(datasets, axes[0]):
        ax.plot(FRACTIONS[1:], FRACTIONS[1:], color=style.GREY, lw=0.8, ls=DASHES)
        for method in ("sgd", "sam"):
            found = [
                record["metrics"]
                for record in records
                if record["configuration"]["of"]["dataset"] == dataset
                and record["configuration"]["of"]["method"] == method
            ]
            if found:
                draw_lorenz(ax, method, found, {"real": "-", "phantom": ":"}, first=1)
        # Few pairs hold nearly everything: a linear axis would show a corner.
        ax.set(
            xlabel="share of the training pairs, heaviest first",
            title=SETS[dataset],
            xscale="log",
            xlim=(FRACTIONS[1], 1),
            ylim=(0, 1.01),
        )
        ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        ax.legend(loc="lower right", fontsize="x-small")
    axes[0, 0].set_ylabel("their share of the importance")
    return fig


def draw_lorenz(ax: Axes, method: str, found: Sequence[Mapping], lines: Mapping[str, object], first: int = 0) -> None:
    """Lorenz curves of one method's nets, mean and range over seeds, labelled with the mean Gini coefficient.

    found: what was measured on each net, with the keys of `lines`, whose values are line styles. first: the
    place in FRACTIONS where the curves begin.
    """
    for point, line in lines.items():
        curves = np.array([metrics[point]["lorenz"] for metrics in found])[:, first:]
        even = np.mean([metrics[point]["gini"] for metrics in found])
        ax.plot(
            FRACTIONS[first:],
            curves.mean(0),
            color=COLOURS[method],
            ls=line,
            lw=1.8,
            label=f"{NAMES[method]} net, {point}: Gini {even:.3f}",
        )
        ax.fill_between(FRACTIONS[first:], curves.min(0), curves.max(0), color=COLOURS[method], alpha=0.15, lw=0)
