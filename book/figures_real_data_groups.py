"""Figures of the natural images with two attributes: importance weights (Figures 3, 5, 7 and 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from book import style
from book.figures_real_data_images import COLOURS, MARKERS, NAMES
from book.figures_real_data_sweeps import draw_lorenz
from book.real_data_rows import METHODS, Row
from lib.importance import WeightMap

LINES = {"real": (0, (3, 1.5)), "phantom": "-"}


def lorenz_curves(rows: Sequence[Row]) -> Figure:
    """Figures 3 and 7: Lorenz curves of the importance weights of training images, a row for each data set, a
    column for each moment of training; mean and range over seeds."""
    columns = max(len(row.moments) for row in rows)
    fig, grid = plt.subplots(
        len(rows), columns, figsize=(style.PAGE_WIDTH, 0.7 + 2.7 * len(rows)), sharex=True, sharey=True, squeeze=False
    )
    for row, panels in zip(rows, grid):
        for epoch, ax in zip(row.moments, panels):
            ax.plot([0, 1], [0, 1], color=style.GREY, lw=0.8, ls=":")
            for method, found in row.measured(epoch).items():
                draw_lorenz(ax, method, found, LINES)
            end = " (the end)" if epoch == row.moments[-1] else ""
            ax.set(xlim=(0, 1), ylim=(0, 1.01), title=f"{row.title}, epoch {epoch}{end}")
            ax.legend(loc="lower right", fontsize="x-small")
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_major_formatter(PercentFormatter(1, decimals=0))
        for ax in panels[len(row.moments) :]:
            ax.set_axis_off()
        panels[0].set_ylabel("share of the importance")
    for ax in grid[-1]:
        ax.set_xlabel("share of the training images, heaviest first")
    return fig


def along_contributions(rows: Sequence[Row]) -> Figure:
    """Figure 5 feature by feature, at the end of training: the median weight of the images, and the ratio of
    phantom to real weight over its median, along the contribution, signed by the label, of the easy and of
    the hard feature, in bins of equally many images from the worst fitted to the best; mean and range over
    seeds."""
    fig, grid = plt.subplots(
        len(rows), 4, figsize=(style.PAGE_WIDTH, 0.7 + 2.3 * len(rows)), sharex=True, squeeze=False
    )
    for row, panels in zip(rows, grid):
        found = row.measured(row.moments[-1])
        for kind, attribute, column in zip(("easy", "hard"), row.features, (0, 1)):
            weights, ratios = panels[column], panels[column + 2]
            for method, metrics in found.items():
                bins = [one["contributions"]["label"]["attributes"][attribute]["bins"] for one in metrics]
                for point, line in LINES.items():
                    _along(weights, bins, point, COLOURS[method], line)
                _along(ratios, bins, "ratio", COLOURS[method], "-", MARKERS[method])
            ratios.axhline(1, color=style.GREY, lw=0.7)
            weights.set_title(f"{attribute} ({kind}):\nmedian weight", fontsize="small")
            ratios.set_title(f"{attribute} ({kind}):\nphantom / real", fontsize="small")
        for pair in (panels[:2], panels[2:]):
            limits = [limit for ax in pair for limit in ax.get_ylim()]
            for ax in pair:
                ax.set(ylim=(min(limits), max(limits)), xlim=(0, 1))
                ax.tick_params(labelsize=8)
        for ax in (panels[1], panels[3]):
            ax.tick_params(axis="y", which="both", labelleft=False)
        panels[0].set_ylabel(row.title, fontweight="bold")
    for ax in grid[-1]:
        ax.set_xticks([0, 1], ["worst\nfitted", "best\nfitted"])
    colours = [
        Line2D([], [], color=COLOURS[method], marker=MARKERS[method], ms=4, label=f"{NAMES[method]} net")
        for method in METHODS
    ]
    kinds = [Line2D([], [], color=style.GREY, ls=line, label=point) for point, line in LINES.items()]
    fig.legend(handles=[*colours, *kinds], loc="outside lower center", ncols=4)
    return fig


def _along(ax: Axes, bins: Sequence[Mapping], name: str, colour: str, line, marker: str = "") -> None:
    """Geometric mean and range over seeds of one quantity's bins, on a logarithmic axis."""
    values = np.log(np.array([one[name] for one in bins]))
    places = (np.arange(values.shape[1]) + 0.5) / values.shape[1]
    ax.fill_between(places, *np.exp([values.min(0), values.max(0)]), color=colour, alpha=0.14, lw=0)
    ax.plot(places, np.exp(values.mean(0)), color=colour, ls=line, lw=1.5, marker=marker, ms=3)
    ax.set_yscale("log")


def weight_maps(row: Row, seed: int = 0) -> Figure:
    """Figures 5 and 8 on one data set: the median real and phantom weight and their ratio, over its median,
    by the contributions of both features, signed by the label; a column for each moment of SGD's and of
    SAM's net of one seed (its place among the seeds that both finished)."""
    columns = [
        (method, epoch, _maps(row.measured(epoch)[method][seed], row.features))
        for method in METHODS
        for epoch in row.moments
    ]
    fig, grid = plt.subplots(3, len(columns), figsize=(style.PAGE_WIDTH, 5.6), squeeze=False)
    medians = np.concatenate([style.shown(table).ravel() for *_, tables in columns for table in tables[:2]])
    weight = LogNorm(10 ** np.floor(np.log10(np.nanmin(medians))), 1)
    bound = max(style.decades(tables[2])[1] for *_, tables in columns)
    for (method, epoch, (real, phantom, ratio)), panels in zip(columns, grid.T):
        for table, ax in ((real, panels[0]), (phantom, panels[1])):
            weights = style.weight_map(ax, table, style.shown(table), weight, "viridis")
        ratios = style.weight_map(panels[2], ratio, style.decades(ratio)[0], Normalize(-bound, bound), style.DIVERGING)
        panels[0].set_title(f"{NAMES[method]} net,\nepoch {epoch}", loc="center", fontsize=8.5)
        for ax in panels:
            ax.axvline(0, color="black", lw=0.7, ls=(0, (1, 2)))
            ax.tick_params(labelsize=7, length=2, pad=1)
            ax.xaxis.set_major_locator(MaxNLocator(3))
            ax.yaxis.set_major_locator(MaxNLocator(4))
        for ax in panels[:2]:
            ax.tick_params(labelbottom=False)
    for ax, symbol in zip(grid[:, 0], style.WEIGHTS):
        ax.set_ylabel(symbol)
    fig.supxlabel(f"signed contribution of the easy feature, {row.features[0]}", fontsize=9)
    fig.supylabel(f"signed contribution of the hard feature, {row.features[1]}", fontsize=9)
    bars = [
        fig.colorbar(weights, ax=grid[:2], aspect=30, pad=0.015, fraction=0.05),
        fig.colorbar(ratios, ax=grid[2], extend="both", aspect=15, pad=0.015, fraction=0.05),
    ]
    bars[0].set_label("median weight", fontsize=8.5)
    bars[1].set_label("over the typical\nimage's", fontsize=8.5)
    bars[1].set_ticks([-bound, 0, bound], labels=[f"÷ {10**bound:.2g}", "1", f"× {10**bound:.2g}"])
    for bar in bars:
        bar.ax.tick_params(labelsize=7.5)
    return fig


def _maps(metrics: Mapping, features: tuple[str, str]) -> tuple[WeightMap, WeightMap, WeightMap]:
    """The maps of real and phantom weight and of their ratio, as stored, with the easy feature first."""
    stored = metrics["contributions"]["label"]["map"]
    turn = stored["attributes"] != list(features)
    edges = [np.array(axis) for axis in (stored["edges"][::-1] if turn else stored["edges"])]
    count = np.array(stored["images"])
    tables = [np.array(stored[name], dtype=float) for name in ("real", "phantom", "ratio")]
    return tuple(WeightMap(table.T if turn else table, count.T if turn else count, *edges) for table in tables)
