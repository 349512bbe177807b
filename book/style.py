"""The one style and palette of every figure, colour-blind safe and told apart in grey by lightness, and what they
share: a line with its band, whiskers, rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from lib.stats import FEW, Estimate, estimate, mean_interval

# Okabe and Ito's hues (Color Universal Design, 2008).
SGD, SAM, LSAM = "#D55E00", "#0072B2", "#009E73"
EASY, HARD = "#E69F00", "#56438B"
NEGATIVE, POSITIVE = "#D55E00", "#0072B2"  # labels -1 and +1
GREY = "#6B6B6B"
DIVERGING = sns.blend_palette(["#D55E00", "#F7F4EF", "#0072B2"], as_cmap=True)
PAGE_WIDTH = 7.4  # inches: the text column of the book
RADIUS = r"LSAM radius $\rho$ (0: SGD)"
MARKERS = "osD^vPX*"  # of ordered lines
WEIGHTS = (r"real, $\lambda$", r"phantom, $\tilde\lambda$", r"ratio $\tilde\lambda/\lambda$")


def sequence(count: int) -> list:
    """`count` ordered colours, dark to light (seaborn's ``crest``), for one line per complexity, rho or
    checkpoint."""
    return sns.color_palette("crest_r", count)


def use_style() -> None:
    """Set matplotlib's defaults for the whole book; call once in a chapter's set-up cell."""
    page = {"figure.figsize": (PAGE_WIDTH, 3.2), "figure.constrained_layout.use": True, "figure.facecolor": "white"}
    files = {"figure.dpi": 110, "savefig.dpi": 160, "svg.hashsalt": "book"}
    frames = {"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}
    titles = {"axes.titlesize": "medium", "axes.titleweight": "bold", "axes.titlelocation": "left"}
    colours = {"axes.prop_cycle": plt.cycler(color=[SGD, LSAM, SAM, HARD, EASY, GREY]), "axes.unicode_minus": True}
    sns.set_theme("paper", "ticks", font_scale=1.05, rc=page | files | frames | titles | colours)


def line(
    axes: Axes, places: Sequence[float], values: np.ndarray, colour: Any, marker: str = "", **options: Any
) -> None:
    """Mean over seeds of `values` (places, seeds), with its 95 % band; `options` are those of `plot`."""
    mean, low, high = mean_interval(values)
    band(axes, places, low, high, colour)
    axes.plot(places, mean, color=colour, marker=marker, **{"markersize": 4, **options})


def lines(
    axes: Axes,
    places: Sequence[float],
    values: Mapping[str, np.ndarray],
    looks: Sequence[tuple[Any, str]] = (),
    **options: Any,
) -> None:
    """A line for each name -> (places, seeds), as by `line`: with these colours and markers, or from dark to light."""
    looks = looks or list(zip(sequence(len(values)), MARKERS * 9))
    for (name, of_line), (colour, marker) in zip(values.items(), looks):
        line(axes, places, of_line, colour, marker, label=name, **options)


def panels(
    rows: Sequence[str], columns: Sequence[str], height: float = 2.1, **shared: Any
) -> tuple[Figure, np.ndarray]:
    """Panels for every row, its name at the left, and every column, its name on top; `height` in inches, a row."""
    size = PAGE_WIDTH, 0.7 + height * len(rows)
    fig, axes = plt.subplots(len(rows), len(columns), figsize=size, squeeze=False, **shared)
    for panel, title in zip(axes[0], columns):
        panel.set_title(title)
    for panel, title in zip(axes[:, 0], rows):
        panel.set_ylabel(title)
    return fig, axes


def grid(count: int, columns: int, height: float, **shared: Any) -> tuple[Figure, np.ndarray]:
    """`count` panels, `columns` in a row; those that are left over are hidden. `height` in inches, a row."""
    rows = -(-count // columns)
    size = PAGE_WIDTH, 0.5 + height * rows
    fig, axes = plt.subplots(rows, min(count, columns), figsize=size, squeeze=False, **shared)
    for panel in axes.flat[count:]:
        panel.set_axis_off()
    return fig, axes


def band(
    axes: Axes, places: Sequence[float], low: np.ndarray, high: np.ndarray, colour: Any, alpha: float = 0.18
) -> None:
    """A shaded range behind a line."""
    axes.fill_between(places, low, high, color=colour, alpha=alpha, linewidth=0)


def whiskers(
    axes: Axes, effects: Sequence[Estimate], rows: Sequence[float], colour: Any, marker: str, **options: Any
) -> None:
    """Means with their 95 % intervals, one in each of `rows`, the values to the right."""
    means = np.array([effect.mean for effect in effects])
    ends = np.array([[effect.low, effect.high] for effect in effects])
    look = {"fmt": marker, "color": colour, "markersize": 4.5, "linewidth": 1.2, **options}
    axes.errorbar(means, rows, xerr=np.abs(ends - means[:, None]).T, **look)


def rows(axes: Axes, names: Sequence[str]) -> None:
    """Named rows from the top down, every other one shaded; the left spine is left out."""
    for row in range(0, len(names), 2):
        axes.axhspan(row - 0.5, row + 0.5, color="black", alpha=0.04, linewidth=0)
    axes.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.6))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def effects(axes: Axes, values: Mapping[str, np.ndarray], looks: Sequence[tuple[Any, str]]) -> None:
    """Named rows of values (seed,): the mean with its interval, or fewer than `FEW`, which decide nothing, as dots."""
    rows(axes, list(values))
    for row, (of_row, (colour, marker)) in enumerate(zip(values.values(), looks)):
        if len(of_row) < FEW:
            axes.plot(of_row, [row] * len(of_row), marker, color=colour, markersize=3.5, alpha=0.6)
        else:
            whiskers(axes, [estimate(of_row)], [row], colour, marker)


def legend(where: Axes | Figure, looks: Mapping[str, Mapping[str, Any]], **options: Any) -> None:
    """A legend of its own, label -> how its line looks; `options` are those of matplotlib's."""
    where.legend(handles=[Line2D([], [], label=label, **look) for label, look in looks.items()], **options)


def plain(*axes: Axis, ticks: Sequence[float] = ()) -> None:
    """Numbers written out, on axes that are logarithmic too; where `ticks` are given, there and nowhere else."""
    for axis in axes:
        if len(ticks):
            axis.set_ticks(ticks)
            axis.set_minor_locator(NullLocator())
        axis.set_major_formatter("{x:g}")


def points(axes: Axes, plane: np.ndarray, y: np.ndarray, size: float) -> None:
    """The points (n, 2) of a plane by their labels -1 and +1, without axes."""
    for label, colour, marker in ((-1, NEGATIVE, "o"), (1, POSITIVE, "^")):
        look = {"s": size, "c": colour, "marker": marker, "edgecolors": "white", "linewidths": 0.3}
        axes.scatter(*plane[y == label].T, label=f"$y={label:+d}$", **look)
    axes.set(aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
