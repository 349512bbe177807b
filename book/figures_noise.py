"""Chapter 09: errors against the level of noise, and against the radius at each level (Figure 9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from book import style
from book.figures_rebalancing import line

KINDS = {"label_noise": "feature-label noise", "gaussian_noise": "Gaussian noise", "dropout": "dropout"}
LEVEL = {
    "label_noise": "probability $p$ of a flip",
    "gaussian_noise": "standard deviation $s$",
    "dropout": "probability $q$ of a zero",
}
LINES = ((style.SGD, "o"), (style.LSAM, "D"), (style.SAM, "s"))  # SGD, fixed rho, chosen rho
MARKERS = "osD^vPX*"


def against_level(
    levels: Mapping[str, Sequence[float]], rows: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]]
) -> Figure:
    """Figure 9: one column a kind of noise, one row an entry of `rows`, its title -> line -> kind -> (level,
    seed).

    levels: kind -> the levels, 0 first. Lines are mean over seeds with 95 % bootstrap bands.
    """
    size = style.PAGE_WIDTH, 0.7 + 2.1 * len(rows)
    fig, axes = plt.subplots(len(rows), len(levels), figsize=size, sharey="row", squeeze=False)
    for panels, (title, lines) in zip(axes, rows.items()):
        for panel, kind in zip(panels, levels):
            for (name, of_kind), (colour, marker) in zip(lines.items(), LINES):
                line(panel, levels[kind], of_kind[kind], colour, marker, name)
        panels[0].set(ylabel=title)
        floor_at_zero(panels[0])
    for column, kind in enumerate(levels):
        axes[0, column].set_title(KINDS[kind])
        axes[-1, column].set_xlabel(LEVEL[kind])
        for panel in axes[:, column]:
            panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(LINES))
    return fig


def against_radius(
    radii: Sequence[float], levels: Mapping[str, Sequence[float]], rows: Mapping[str, Mapping[str, np.ndarray]]
) -> Figure:
    """Every radius: one column a kind of noise, one row an entry of `rows`, its title -> kind -> (level,
    radius, seed); one line a level, darker for less noise."""
    size = style.PAGE_WIDTH, 0.7 + 2.1 * len(rows)
    fig, axes = plt.subplots(len(rows), len(levels), figsize=size, sharey="row", squeeze=False)
    for panels, (title, of_kind) in zip(axes, rows.items()):
        for panel, kind in zip(panels, levels):
            colours = style.sequence(len(levels[kind]))
            for level, values, colour, marker in zip(levels[kind], of_kind[kind], colours, MARKERS * 9):
                line(panel, radii, values, colour, marker, f"{level:g}")
        panels[0].set(ylabel=title)
        floor_at_zero(panels[0])
    for column, kind in enumerate(levels):
        axes[0, column].set_title(KINDS[kind])
        axes[0, column].legend(
            title=LEVEL[kind],
            ncols=2,
            columnspacing=1,
            handlelength=1.3,
            fontsize=7.5,
            title_fontsize=7.5,
            loc="upper right",
        )
        axes[-1, column].set_xlabel(r"LSAM radius $\rho$ (0: SGD)")
    return fig


def floor_at_zero(axes: plt.Axes) -> None:
    """An axis of errors that begins just below 0."""
    top = max(axes.get_ylim()[1], 0.02)
    axes.set_ylim(-0.03 * top, top)
