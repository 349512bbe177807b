"""Figures of the chapters on real images: learning curves, probing errors, and what nets read in pairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from book import style
from book.real_data_report import METHODS
from book.real_data_rows import TITLES
from book.real_data_table import easy_and_hard
from book.real_data_table import errors as errors_of
from lib import stats
from lib.trials.images import Reading

COLOURS = {"sgd": style.SGD, "sam": style.SAM, "lsam": style.LSAM}
MARKERS = {"sgd": "o", "sam": "s", "lsam": "D"}
NAMES = METHODS | {"untrained": "untrained"}


class Names(dict):
    """Names as the page writes them; one that is not known stands for itself."""

    def __missing__(self, name: str) -> str:
        return name


SETS = Names({"cifar-mnist": "CIFAR-MNIST", "fmnist-mnist": "FMNIST-MNIST", **TITLES})
ATTRIBUTES = Names({"cifar": "CIFAR", "fmnist": "FMNIST", "mnist": "MNIST"})
DASHES = (0, (4, 3))
CLASSES = {
    "cifar": ("airplane", "automobile"),
    "fmnist": ("T-shirt", "trouser", "pullover", "dress", "coat"),
    "mnist": ("0", "1", "2", "3", "4"),
}


def learning_curves(records: Iterable[dict]) -> Figure:
    """Training and validation loss (log scale) and validation error (%) by epoch, one row a data set.

    Thin lines are seeds, thick lines their mean (of the losses the geometric one).
    """
    records = [record for record in records if record["status"] == "finished" and record["configuration"]["epochs"]]
    datasets = list(dict.fromkeys(record["configuration"]["dataset"] for record in records))
    quantities = {
        "train_loss": "training loss",
        "validation_loss": "validation loss",
        "validation_error": "validation error (%)",
    }
    size = style.PAGE_WIDTH, 0.5 + 2.1 * len(datasets)
    fig, grid = plt.subplots(len(datasets), len(quantities), figsize=size, sharex="row", squeeze=False)
    for dataset, row in zip(datasets, grid):
        row[0].set_title(SETS[dataset])
        for (quantity, label), ax in zip(quantities.items(), row):
            for method in COLOURS:
                of_method = {"dataset": dataset, "method": method}.items()
                curves = [
                    record["curve"][quantity] for record in records if of_method <= record["configuration"].items()
                ]
                if curves:
                    _curves(ax, np.array(curves), method, is_loss=quantity != "validation_error")
            ax.set(xlabel="epoch", ylabel=label)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        row[-1].set_ylim(bottom=0)
    fig.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(COLOURS))
    return fig


def _curves(ax: Axes, curves: np.ndarray, method: str, is_loss: bool) -> None:
    """One method's curves, shape (seeds, epochs): losses on a log scale, errors in per cent."""
    if is_loss:
        ax.set_yscale("log")
        mean = np.exp(np.log(np.maximum(curves, 1e-12)).mean(0))
    else:
        curves = 100 * curves
        mean = curves.mean(0)
    epochs = np.arange(1, curves.shape[1] + 1)
    ax.plot(epochs, curves.T, color=COLOURS[method], lw=0.7, alpha=0.4)
    ax.plot(epochs, mean, color=COLOURS[method], lw=1.8, marker=MARKERS[method], ms=4, label=NAMES[method])


def probing_errors(rows: pd.DataFrame) -> Figure:
    """Above: probing errors (%) of the hard and the easy feature by method. Below: their change against SGD.

    `rows` is that of `book.real_data_table`. Small dots are seeds, joined where they share a seed; marks
    with bars are means with 95 % bootstrap intervals over seeds (for one seed a mark alone); the dashed
    line is the mean of the untrained net.
    """
    columns = []
    for dataset in rows.dataset.unique():
        easy, hard = easy_and_hard(rows, dataset)
        columns += [(dataset, hard, "hard"), (dataset, easy, "easy")]
    fig, (above, below) = plt.subplots(
        2, len(columns), figsize=(style.PAGE_WIDTH, 4.4), sharex=True, squeeze=False, height_ratios=(3, 2)
    )
    for (dataset, attribute, kind), upper, lower in zip(columns, above, below):
        errors = {
            method: 100 * errors_of(rows, dataset, method, attribute)
            for method in COLOURS
            if (rows.method == method).any()
        }
        _errors(upper, errors, 100 * errors_of(rows, dataset, "untrained", attribute))
        _changes(lower, errors)
        where = f"{ATTRIBUTES[attribute]} ({kind})", f"in {SETS[dataset]}"
        upper.set_title((" " if len(columns) < 3 else "\n").join(where))
    above[0].set_ylabel("probing error (%)")
    below[0].set_ylabel("change against SGD\n(percentage points)")
    fig.align_ylabels([above[0], below[0]])
    grey = {"color": style.GREY}
    key = [
        Line2D([], [], marker="o", ms=3.5, lw=0.7, alpha=0.6, label="one seed", **grey),
        Line2D([], [], marker="s", ms=6, lw=1.5, mec="white", label="mean and 95 % interval", **grey),
        Line2D([], [], lw=1, ls=DASHES, label="untrained net", **grey),
    ]
    fig.legend(handles=key, loc="outside lower center", ncols=len(key))
    return fig


def _errors(ax: Axes, errors: Mapping[str, pd.Series], untrained: pd.Series) -> None:
    """Errors in per cent by method, each indexed by seed."""
    if len(untrained):
        ax.axhline(untrained.mean(), color=style.GREY, lw=1, ls=DASHES, zorder=0)
    _seeds(ax, errors)
    ax.set_ylim(bottom=0, top=1.08 * ax.get_ylim()[1])


def _changes(ax: Axes, errors: Mapping[str, pd.Series]) -> None:
    """Each method's errors less SGD's of the same seed."""
    changes = {method: (values - errors["sgd"]).dropna() for method, values in errors.items()}
    ax.axhline(0, color=style.GREY, lw=1, zorder=0)
    _seeds(ax, changes | {"sgd": changes["sgd"].iloc[:0]})
    ax.set_xticks(range(len(errors)), [NAMES[method] for method in errors])
    ax.set_xlim(-0.45, len(errors) - 0.3)
    ax.margins(y=0.15)


def _seeds(ax: Axes, by_method: Mapping[str, pd.Series]) -> None:
    """A dot for each seed, a line through the dots of one seed, and beside them the mean and its interval."""
    paths = pd.concat(by_method, axis=1).to_numpy().T
    ax.plot(range(len(by_method)), paths, color=style.GREY, lw=0.7, alpha=0.5, zorder=1)
    for position, (method, values) in enumerate(by_method.items()):
        if values.empty:
            continue
        colour = {"color": COLOURS[method]}
        at = np.full(len(values), position)
        ax.plot(at, values, ls="", marker="o", ms=3.5, mew=0, alpha=0.65, clip_on=False, **colour)
        mean = stats.estimate(values.to_numpy())
        interval = [[mean.mean - mean.low], [mean.high - mean.mean]] if mean.n > 1 else None
        ax.errorbar(
            position + 0.24,
            mean.mean,
            yerr=interval,
            marker=MARKERS[method],
            ms=6,
            mec="white",
            mew=0.6,
            capsize=2.5,
            lw=1.5,
            zorder=3,
            **colour,
        )


def readings(by_method: Mapping[str, Reading]) -> Figure:
    """Test pairs of two classes; below each, by method, whose class the net answers and what its probes read.

    A cross marks a probe's mistake.
    """
    first = next(iter(by_method.values()))
    columns = 1 + max(4, len(first.images))  # few pictures stay small
    words = 0.42 * len(by_method)  # inches below the pictures
    height = words + 2.05 * style.PAGE_WIDTH / (1.1 * columns)
    place = {"left": 0, "right": 1, "top": 1, "bottom": words / height, "wspace": 0.1}
    fig, axes = plt.subplots(1, columns, figsize=(style.PAGE_WIDTH, height), layout="none", gridspec_kw=place)
    for ax in axes:
        ax.imshow(np.ones((*first.images.shape[2:], 3)))
        ax.set_axis_off()
    for line, (method, reading) in enumerate(by_method.items()):
        _words(axes[0], line, method, f"{NAMES[method]} answers by\nits probes read", (1, "right"))
        for i, (image, ax) in enumerate(zip(reading.images, axes[1:])):
            ax.imshow(image.permute(1, 2, 0))
            truth = {name: int(values[i]) for name, values in reading.attributes.items()}
            answer = int(reading.answers[i])
            followed = [ATTRIBUTES[name] for name in truth if truth[name] == answer] or ["neither"]
            read = [_read(name, int(reading.probed[name][i]), value) for name, value in truth.items()]
            _words(ax, line, method, f"{followed[0]}\n{', '.join(read)}", (0.5, "center"))
    return fig


def _read(attribute: str, value: int, truth: int) -> str:
    return CLASSES[attribute][value] + ("" if value == truth else " \N{BALLOT X}")


def _words(ax: Axes, line: int, method: str, text: str, place: tuple[float, str]) -> None:
    """One method's two lines below a picture, at a share of its width with an alignment."""
    ax.annotate(
        text,
        (place[0], 0),
        xycoords="axes fraction",
        xytext=(0, -8 - 30 * line),
        textcoords="offset points",
        ha=place[1],
        va="top",
        fontsize="x-small",
        color=COLOURS[method],
    )
