"""Chapter 10: errors against the radius at each batch size, and what the batch size changes (Figure 10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from book import style
from book.batch_size import best_draws, sensitivity
from book.figures_rebalancing import line
from lib.stats import LEVEL, bootstrap_means

MARKERS = "osD^vPX*"
RADIUS = r"LSAM radius $\rho$ (0: SGD)"


def against_radius(
    radii: Sequence[float], sizes: Sequence[int], rows: Mapping[str, Mapping[str, np.ndarray]]
) -> Figure:
    """Figure 10: one row an entry of `rows`, its title -> column title -> (size, radius, seed).

    One line a batch size, darker for smaller ones: mean over seeds with 95 % bootstrap band.
    """
    columns = list(next(iter(rows.values())))
    size = style.PAGE_WIDTH, 0.9 + 2.3 * len(rows)
    fig, axes = plt.subplots(len(rows), len(columns), figsize=size, sharex=True, sharey="row", squeeze=False)
    colours = style.sequence(len(sizes))
    for panels, (title, of_budget) in zip(axes, rows.items()):
        for panel, column in zip(panels, columns):
            for b, values, colour, marker in zip(sizes, of_budget[column], colours, MARKERS * 9):
                line(panel, radii, values, colour, marker, f"{b}")
        panels[0].set(ylabel=title, ylim=(-0.015, 0.53))
    for panel, column in zip(axes[0], columns):
        panel.set_title(column)
    for panel in axes[-1]:
        panel.set_xlabel(RADIUS)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), title="batch size", loc="outside right upper")
    return fig


def summary(
    radii: Sequence[float],
    sizes: Sequence[int],
    budgets: Mapping[str, tuple[np.ndarray, np.ndarray]],
    gains: Mapping[str, Mapping[str, np.ndarray]],
    judged: Mapping[str, np.ndarray],
    rho: float,
) -> Figure:
    """One row a budget: best radius and gain against the batch size, sensitivity against the radius.

    radii: 0 first. budgets: title -> hard probing errors on validation and on test data, each (size, radius,
    seed). gains: title -> line -> (size, seed). judged: title -> (size,) of booleans: is there a gain, and so
    a best radius? Radii above `rho`, of which there must be some, are the large ones and shaded.
    """
    size = style.PAGE_WIDTH, 0.4 + 2.5 * len(budgets)
    fig, axes = plt.subplots(len(budgets), 3, figsize=size, squeeze=False, sharey="col", sharex="col")
    for (best, gain, sensitive), (title, (validation, test)) in zip(axes, budgets.items()):
        best_radii(best, radii[1:], sizes, validation[:, 1:], judged[title])
        looks = (style.SAM, "s"), (style.LSAM, "D")
        for (name, values), (colour, marker) in zip(gains[title].items(), looks):
            line(gain, sizes, values, colour, marker, name)
        gain.axhline(0, color="black", linewidth=0.6)
        gain.set(xscale="log", ylabel="gain over SGD")
        sensitivities(sensitive, radii, test)
        beyond = [radius for radius in radii if radius > rho]
        sensitive.axvspan((rho + beyond[0]) / 2, beyond[-1] * 1.03, color="black", alpha=0.05, linewidth=0)
        best.annotate(title, (0, 1.04), xycoords="axes fraction", fontweight="bold")
    for panel in axes[:, :2].flat:
        panel.set_xticks(sizes, [f"{b}" for b in sizes], fontsize=7.5)
        panel.xaxis.set_minor_locator(NullLocator())
    for panel, label in zip(axes[-1], ("batch size", "batch size", RADIUS)):
        panel.set_xlabel(label)
    axes[-1, 1].legend(title="LSAM", fontsize=8, title_fontsize=8, loc=(0.08, 0.22))
    axes[-1, 2].legend(title="over", fontsize=8, title_fontsize=8, loc="upper left", handlelength=1.5)
    return fig


def best_radii(
    axes: Axes, radii: Sequence[float], sizes: Sequence[int], validation: np.ndarray, judged: np.ndarray
) -> None:
    """A dot for every radius that is best in some bootstrap draw, its area the share of draws; hollow where
    LSAM has no gain. The line joins the radii that are best in the mean. validation: (size, radius, seed)."""
    draws = best_draws(validation)
    for b, drawn, has_gain in zip(sizes, draws, judged):
        share = np.bincount(drawn, minlength=len(radii)) / len(drawn)
        axes.scatter(
            np.full(len(radii), b),
            radii,
            s=110 * share,
            linewidths=np.where(share > 0, 1.0, 0.0),
            edgecolors=style.SAM,
            facecolors=style.SAM if has_gain else "none",
            alpha=0.75,
        )
    best = validation.mean(axis=-1).argmin(axis=-1)
    axes.plot(sizes, np.asarray(radii)[best], color=style.SAM, linewidth=0.8)
    axes.set(xscale="log", yscale="log", ylabel=r"best radius $\rho$")
    axes.set_yticks(radii)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def sensitivities(axes: Axes, radii: Sequence[float], errors: np.ndarray) -> None:
    """Standard deviations of the error (size, radius, seed): over batch sizes, of the mean over seeds, with
    its bootstrap band; and over seeds, in the mean over batch sizes."""
    drawn = sensitivity(bootstrap_means(errors))
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=-1)
    axes.fill_between(radii, low, high, color=style.HARD, alpha=0.18, linewidth=0)
    axes.plot(radii, sensitivity(errors.mean(axis=-1)), "o-", color=style.HARD, markersize=4, label="batch sizes")
    axes.plot(radii, np.std(errors, axis=-1, ddof=1).mean(axis=0), "v--", color=style.GREY, markersize=4, label="seeds")
    axes.set(ylabel="standard deviation", ylim=(0, None))
