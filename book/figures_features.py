"""Figures of chapter 02: the data sets, and what a probe reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torchvision.datasets import FashionMNIST

from book import style
from lib.data.pairs import PairedSet, Split
from lib.data.sources import CIFAR_CLASSES
from lib.data.toy import ToySample
from lib.stats import bootstrap_band

CLASS_NAMES = {"cifar": CIFAR_CLASSES, "fmnist": ["T-shirt", *FashionMNIST.classes[1:]], "mnist": range(10)}


def toy_planes(samples: Mapping[float, ToySample], line_errors: Sequence[float]) -> Figure:
    """The easy plane, and the hard one at each complexity (degrees); below, the best line's error."""
    panels = [(r"easy: $x_e$", next(iter(samples.values())), 0)]
    panels += [(rf"hard: $x_h$, $\kappa$ = {complexity:g}°", one, 2) for complexity, one in samples.items()]
    height = 0.55 + style.PAGE_WIDTH / len(panels)
    fig, axes = plt.subplots(1, len(panels), figsize=(style.PAGE_WIDTH, height))
    for panel, (title, sample, column), error in zip(axes, panels, line_errors, strict=True):
        points = sample.x[:, column : column + 2]
        limit = 1.08 * np.abs(points).max()
        panel.axhline(0, color="#E4E4E4", linewidth=0.8, zorder=0)
        panel.axvline(0, color="#E4E4E4", linewidth=0.8, zorder=0)
        for label, colour, marker in ((-1, style.NEGATIVE, "o"), (1, style.POSITIVE, "^")):
            chosen = points[sample.y == label]
            panel.scatter(
                *chosen.T, s=13, c=colour, marker=marker, edgecolors="white", linewidths=0.3, label=f"$y={label:+d}$"
            )
        panel.set(aspect="equal", xlim=(-limit, limit), ylim=(-limit, limit), xticks=[], yticks=[])
        panel.set_title(title, loc="center", fontsize=10, weight="normal")
        panel.set_xlabel(f"best line: error {error:.2f}", fontsize=9)
        panel.spines[:].set_visible(False)
    axes[0].legend(loc="lower right", handletextpad=0, borderpad=0, fontsize=8.5)
    return fig


def image_pairs(paired: PairedSet, columns: int = 10) -> Figure:
    """A row of correlated pairs (`train`), class by class, and one of balanced pairs (`probe_train`)."""
    first, second = paired.attributes
    fig = plt.figure(figsize=(style.PAGE_WIDTH, 3.9))
    rows = (
        ("training: both attributes are the label", paired.train),
        ("probing: every combination of attributes equally often", paired.probe_train),
    )
    for part, (title, split) in zip(fig.subfigures(2, hspace=0.05), rows):
        part.suptitle(title, x=0.01, ha="left", fontsize=10, weight="bold")
        upper, lower = (split.attributes[name].numpy() for name in (first, second))
        for panel, index in zip(part.subplots(1, columns), _spread(split, paired.classes, columns)):
            panel.imshow(split.images[index].permute(1, 2, 0).numpy(), interpolation="nearest")
            panel.axhline(split.images.shape[2] / 2 - 0.5, color="white", linewidth=1.2)
            panel.set(xticks=[], yticks=[])
            panel.spines[:].set_visible(False)
            agrees = upper[index] == lower[index]
            panel.set_xlabel(
                f"{CLASS_NAMES[first][upper[index]]}\n{CLASS_NAMES[second][lower[index]]}",
                fontsize=7,
                labelpad=2,
                color="black" if agrees else style.SGD,
            )
    return fig


def _spread(split: Split, classes: int, count: int) -> list[int]:
    """Indices of `count` examples that go in order through the combinations of attributes in the split."""
    first, second = (values.numpy() for values in split.attributes.values())
    cells = np.unique(first * classes + second)
    chosen = cells[np.linspace(0, len(cells) - 1, count).round().astype(int)]
    rows = {cell: cycle(np.flatnonzero(first * classes + second == cell)) for cell in cells}
    return [int(next(rows[cell])) for cell in chosen]


def _band(
    axes: Axes, x: Sequence[float], values: np.ndarray, colour, marker: str, label: str, dashed: bool = False
) -> None:
    """Mean and 95 % bootstrap band of `values` (x, seeds)."""
    mean, low, high = bootstrap_band(values)
    axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(x, mean, "--" if dashed else "-", color=colour, marker=marker, markersize=4.5, label=label)


def reported_and_true(agreements: Sequence[float], errors: Mapping[str, np.ndarray], truths: Sequence[float]) -> Figure:
    """Probing error of the hard attribute against the agreement of the probe data, as reported and as it is.

    errors: name of a representation -> (agreement, seed, 2), as `book.features.against_agreement` gives them;
    truths: the error of each one's best linear probe.
    """
    fig, axes = plt.subplots(1, 2, figsize=(style.PAGE_WIDTH, 3.3), sharey=True)
    looks = ((style.HARD, "o", False), (style.EASY, "s", True))
    for side, panel in enumerate(axes):
        for (name, values), truth, (colour, marker, dashed) in zip(errors.items(), truths, looks):
            panel.axhline(truth, color=colour, linewidth=1, linestyle=":")
            _band(panel, agreements, values[..., side], colour, marker, name, dashed)
        panel.set(xlabel="share of probe data whose attributes agree", ylim=(-0.015, 0.56))
        panel.xaxis.set_major_formatter(PercentFormatter(1, 0, symbol=" %"))
    axes[0].set(title="reported: on more data of the same kind", ylabel="error of the hard attribute's probe")
    axes[1].set_title("true: the same probe on balanced data")
    axes[0].legend(loc="lower left", bbox_to_anchor=(0, 0.02))
    axes[1].annotate(
        "balanced", (agreements[0], 0), xytext=(0, 4), textcoords="offset points", fontsize=8.5, color=style.GREY
    )
    axes[1].annotate(
        "correlated",
        (agreements[-1], 0),
        xytext=(0, 4),
        textcoords="offset points",
        ha="right",
        fontsize=8.5,
        color=style.GREY,
    )
    return fig


def error_against_size(sizes: Sequence[int], errors: Mapping[str, np.ndarray], truth: float) -> Figure:
    """Balanced probe's error against the number of probe examples, one line for each entry (size, seed)."""
    fig, axes = plt.subplots(figsize=(style.PAGE_WIDTH, 3.3))
    for (name, values), colour, marker in zip(errors.items(), style.sequence(len(errors)), "osD^v"):
        _band(axes, sizes, values, colour, marker, name)
    axes.axhline(truth, color=style.GREY, linewidth=1, linestyle=":")
    axes.annotate(
        "best linear probe",
        (sizes[0], truth),
        xytext=(0, -11),
        textcoords="offset points",
        fontsize=8.5,
        color=style.GREY,
    )
    axes.set(
        xscale="log",
        xticks=sizes,
        xticklabels=[f"{size:,}" for size in sizes],
        xlabel="balanced examples to train the probe",
        ylabel="error of the hard attribute's probe",
    )
    axes.set_ylim(bottom=truth - 0.035)
    axes.minorticks_off()
    axes.legend()
    return fig


def methods_told_apart(errors: Mapping[str, np.ndarray], methods: Sequence[str]) -> Figure:
    """Hard error of two methods' toy nets, by each way of measuring: `errors` maps its name to (2, seeds)."""
    fig, axes = plt.subplots(figsize=(style.PAGE_WIDTH, 3.3))
    for place, values in enumerate(errors.values()):
        at = place + np.array([-0.17, 0.17])
        axes.plot(at, values, color="#C9C9C9", linewidth=0.7, zorder=1)
        for x, seeds, colour, marker, method in zip(at, values, (style.SGD, style.LSAM), "o^", methods):
            axes.scatter(
                np.full(len(seeds), x),
                seeds,
                s=18,
                color=colour,
                marker=marker,
                alpha=0.75,
                linewidths=0,
                zorder=2,
                label=method if place == 0 else None,
            )
            axes.hlines(seeds.mean(), x - 0.1, x + 0.1, color=colour, linewidth=2.5, zorder=3)
    axes.set(xticks=range(len(errors)), xticklabels=errors, xlim=(-0.5, len(errors) - 0.5))
    axes.set(ylabel="hard probing error", ylim=(-0.015, None))
    axes.tick_params(axis="x", length=0)
    axes.legend(loc="upper right")
    return fig
