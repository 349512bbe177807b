"""Figures of chapter 11: the log ratio of importance weights against its expansion in the radius."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FormatStrFormatter, LogLocator, NullLocator, PercentFormatter

from book import style
from book.theory import LOSSES, Expansion, logistic_error, worst_fitted
from lib.stats import bootstrap_band

INK, PALE = "#22272E", "#ECEEF0"
COLOURS = {"exponential": INK, "logistic": "#CC79A7"}  # the second is Okabe and Ito's reddish purple
ALONE, WORST, OTHERS = "#C9CDD1", "#C2478B", "#4A5662"
MARKS = {"exponential": "o", "logistic": "D"}


def log_ratio_scatter(expansions: Mapping[str, Expansion], radii: Sequence[float], nets: int = 6) -> Figure:
    """The claim as it stands: log ratio (exponential loss) against rho ||grad f||; a point an example."""
    fig, axes = plt.subplots(1, len(expansions), figsize=(style.PAGE_WIDTH, 2.3), sharex=True, sharey=True)
    limits = 2e-3, 4e2
    for panel, (name, e) in zip(axes, expansions.items()):
        panel.plot(limits, limits, color=style.GREY, linewidth=0.8, zorder=1)
        for radius, colour in zip(radii, style.sequence(len(radii))):
            k = int(np.abs(e.radii - radius).argmin())
            x, y = e.first_order[:nets, k].ravel(), e.log_ratio("exponential")[:nets, k].ravel()
            panel.scatter(
                x, np.where(y > 0, y, np.nan), s=5, color=colour, linewidths=0, zorder=2, label=rf"$\rho={radius:g}$"
            )
        panel.set(xscale="log", yscale="log", xlim=limits, ylim=limits, aspect="equal")
        panel.set_title(name, fontsize=9)
        panel.set_xlabel(r"$\rho\,\Vert\nabla f\Vert$")
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_locator(FixedLocator([0.01, 0.1, 1, 10, 100]))
            axis.set_major_formatter(FormatStrFormatter("%g"))
            axis.set_minor_locator(NullLocator())
    axes[0].set_ylabel(r"$\log(\tilde\lambda/\lambda)$")
    axes[0].legend(loc="upper left", fontsize=7.5, handletextpad=0, borderpad=0, markerscale=2.2, labelspacing=0.25)
    return fig


def orders(expansions: Mapping[str, Expansion], tolerance: float) -> Figure:
    """Above, the log ratio as a part of its first order; below, what first and second order leave over.

    Lines are medians over all examples of all nets, bands the 10th to the 90th percentile.
    """
    fig, axes = plt.subplots(2, len(expansions), figsize=(style.PAGE_WIDTH, 4.3), sharex=True, sharey="row")
    ink = {"color": INK, "linewidth": 1.7}
    dashed = {"color": style.SAM, "linestyle": (0, (4, 2)), "linewidth": 1.2}
    dotted = {"color": style.LSAM, "linestyle": ":", "linewidth": 1.7}
    for (upper, lower), (name, e) in zip(axes.T, expansions.items()):
        second = e.second_order / e.first_order
        upper.axhspan(1 - tolerance, 1 + tolerance, color=PALE, zorder=0)
        for loss in LOSSES[::-1]:
            _band(upper, e.radii, 1 - e.error(loss), COLOURS[loss])
        lower.axhspan(tolerance, 9, color=PALE, zorder=0)
        _band(lower, e.radii, np.abs(e.error("exponential")), INK)
        if np.abs(second).max() > 1e-9:
            upper.plot(e.radii, _middle(1 + second), **dashed)
            lower.plot(e.radii, _middle(np.abs(second)), **dashed)
            lower.plot(e.radii, _middle(np.abs(e.shift / e.first_order - 1 - second)), **dotted)
        else:
            lower.text(0.5, 0.53, "exact", transform=lower.transAxes, ha="center", color=style.GREY)
        upper.set_title(name, fontsize=9)
        upper.set(ylim=(0, 1.22))
        lower.set(xscale="log", yscale="log", xlabel=r"radius $\rho$", ylim=(1e-4, 4))
        lower.xaxis.set_major_locator(LogLocator(numticks=5))
        lower.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes[0, 0].set_ylabel(r"$\log(\tilde\lambda/\lambda)\;/\;\rho\,\Vert\nabla f\Vert$")
    axes[1, 0].set_ylabel(r"part of $\rho\,\Vert\nabla f\Vert$")
    pink = {**ink, "color": COLOURS["logistic"]}
    _legend(axes[0, 0], {"exponential loss": ink, "logistic loss": pink, "both orders": dashed})
    _legend(axes[1, 0], {"first order's error": ink, "second-order term": dashed, "both orders' error": dotted})
    return fig


def reaches(
    found: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]],
    limits: tuple[float, float],
    used: Mapping[str, tuple[float, float]],
    tolerance: float,
) -> Figure:
    """The radius where the first order is off by `tolerance`: found[net][stage][loss] is (nets, examples).

    A mark is the median over examples (geometric mean over nets), a bar the 10th to the 90th percentile of
    all examples; an arrow stands for what lies outside `limits`, the smallest and the largest radius tried.
    The ranges of radii in `used` are shaded.
    """
    fig, ax = plt.subplots(figsize=(style.PAGE_WIDTH, 3.9))
    for (label, (low, high)), colour in zip(used.items(), (style.SAM, style.LSAM)):
        ax.axvspan(low, high, color=colour, alpha=0.10, linewidth=0, zorder=0)
        ax.text(np.sqrt(low * high), -0.62, label, ha="center", fontsize=8, color=colour)
    rows, position = [], 0.0
    for name, stages in found.items():
        for stage, losses in stages.items():
            rows.append((position, f"{name}, {stage}"))
            for loss, offset in zip(LOSSES, (-0.15, 0.15)):
                _reach(ax, losses[loss], position + offset, limits, loss)
            position += 1
        position += 0.35
    ax.set_yticks(*zip(*rows))
    ax.set(
        xscale="log",
        xlim=(limits[0] / 1.5, limits[1] * 1.5),
        ylim=(position - 0.8, -1.0),
        xlabel=rf"radius $\rho$ at which $\rho\,\Vert\nabla f\Vert$ is off by {100 * tolerance:g} %",
    )
    ax.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    handles = [
        Line2D([], [], color=COLOURS[loss], marker=MARKS[loss], markersize=5, label=f"{loss} loss") for loss in LOSSES
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8)
    return fig


def _reach(ax: Axes, radii: np.ndarray, y: float, limits: tuple[float, float], loss: str) -> None:
    low, high = np.quantile(radii, [0.1, 0.9])
    centre = np.exp(np.log(np.median(radii, axis=-1)).mean())
    colour = COLOURS[loss]
    ax.plot([low, high], [y, y], color=colour, linewidth=2, alpha=0.55, solid_capstyle="round")
    marker = "<" if centre <= 1.001 * limits[0] else ">" if centre >= limits[1] / 1.001 else MARKS[loss]
    ax.plot(centre, y, marker, color=colour, markersize=5.5, markeredgecolor="white", markeredgewidth=0.6)


def logistic_limits(
    examples: Mapping[str, Expansion], fractions: Sequence[float], errors: Mapping[float, np.ndarray], tolerance: float
) -> Figure:
    """Left, the logistic loss's error by margin and shift, with examples (each an expansion at one radius).

    Right, an error while LSAM trains: errors[rho] is (checkpoints, seeds), at `fractions` of training.
    """
    fig, (plane, time) = plt.subplots(1, 2, figsize=(style.PAGE_WIDTH, 3.5), width_ratios=[1.12, 1])
    grid = np.geomspace(0.1, 200, 240)
    margin, shift = np.meshgrid(grid, grid)
    error = np.maximum(logistic_error(margin, shift), 0)  # rounding may leave it just below
    levels = [0, tolerance / 10, tolerance / 3, *np.linspace(tolerance, 1, 7)]
    shades = plt.get_cmap("Greys")(np.linspace(0.02, 0.55, len(levels) - 1))
    plane.contourf(margin, shift, error, levels=levels, colors=shades)
    plane.contour(margin, shift, error, levels=[tolerance], colors=INK, linewidths=1.4)
    plane.plot(grid, grid, color="white", linewidth=1, linestyle=(0, (4, 2)))
    for (name, e), colour, marker in zip(examples.items(), (style.EASY, style.LSAM, style.SAM), "o^s"):
        kept = (e.margin > 0.1) & (e.shift[:, 0] > 0.1)
        plane.scatter(
            e.margin[kept],
            e.shift[:, 0][kept],
            s=9,
            color=colour,
            marker=marker,
            edgecolors="white",
            linewidths=0.25,
            label=name,
        )
    plane.text(40, 0.14, f"error below {100 * tolerance:g} %", ha="center", fontsize=8, color=INK)
    plane.text(0.55, 9, "saturated", ha="center", fontsize=8, color=INK)
    plane.set(
        xscale="log",
        yscale="log",
        xlim=(0.1, 200),
        ylim=(0.1, 200),
        xlabel=r"margin $m = yf$ at $w$",
        ylabel=r"shift of the margin, $m(w)-m(\tilde w)$",
    )
    plane.set_title("margin and shift decide", fontsize=9)
    for axis in (plane.xaxis, plane.yaxis):
        axis.set_major_formatter(FormatStrFormatter("%g"))
    plane.legend(
        loc="upper left",
        fontsize=7.5,
        handletextpad=0.1,
        borderpad=0.3,
        markerscale=1.4,
        frameon=True,
        facecolor="white",
        framealpha=0.9,
        edgecolor="none",
    )
    time.axhspan(0, tolerance, color=PALE, zorder=0)
    for (radius, values), colour, marker in zip(errors.items(), style.sequence(len(errors)), "o^s"):
        mean, low, high = bootstrap_band(values)
        time.fill_between(fractions, low, high, color=colour, alpha=0.18, linewidth=0)
        time.plot(fractions, mean, color=colour, marker=marker, markersize=4, label=rf"$\rho = {radius:g}$")
    time.set(xscale="log", xlabel="part of training", ylabel="median error", ylim=(0, 0.6))
    time.set_title("LSAM on the toy, while it trains", fontsize=9)
    time.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    time.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    time.legend(loc="upper right")
    return fig


def batches(alone: Mapping[str, Expansion], together: Mapping[str, Expansion], batch_size: int) -> Figure:
    """Log ratio (logistic loss) in batches by rho ||grad f|| (above) and rho times the projection (below).

    Each net at the one radius of its expansion; `alone` is the same with batches of one.
    """
    fig, axes = plt.subplots(2, len(together), figsize=(style.PAGE_WIDTH, 4.6))
    for column, (name, e) in enumerate(together.items()):
        ratio, radius = e.log_ratio("logistic")[:, 0], e.radii[0]
        worst = worst_fitted(e.margin, batch_size)
        single = alone[name]
        for row, x in enumerate((e.norm, e.slope)):
            panel = axes[row, column]
            reference = single.radii[0] * single.norm, single.log_ratio("logistic")[:, 0]
            if row == 0:
                panel.scatter(*(part.ravel() for part in reference), s=3, color=ALONE, linewidths=0)
            for chosen, colour, size in ((~worst, OTHERS, 5), (worst, WORST, 8)):
                panel.scatter(radius * x[chosen], ratio[chosen], s=size, c=colour, linewidths=0, alpha=0.75)
            top = np.quantile(radius * e.norm, 0.98)
            bottom = min(np.quantile(ratio, 0.02), 0)
            low = 1.1 * bottom - 0.05 * top
            panel.plot([min(low, 0), top], [min(low, 0), top], color=style.GREY, linewidth=0.8, zorder=0)
            panel.axhline(0, color="#D5D8DB", linewidth=0.7, zorder=0)
            panel.set(xlim=(low if row else -0.03 * top, 1.06 * top), ylim=(low, 1.08 * top))
            panel.locator_params(nbins=4)
        axes[0, column].set_title(name, fontsize=9)
        axes[0, column].set_xlabel(r"$\rho\,\Vert\nabla f\Vert$")
        axes[1, column].set_xlabel(r"$\rho\,\langle -y\nabla f, d\rangle$")
    for row in axes:
        row[0].set_ylabel(r"$\log(\tilde\lambda/\lambda)$")
    named = {"alone: a batch of one": ALONE, f"worst-fitted of its batch of {batch_size}": WORST, "the others": OTHERS}
    handles = [
        Line2D([], [], color=colour, marker="o", markersize=4, linestyle="", label=label)
        for label, colour in named.items()
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8, handletextpad=0.1)
    return fig


def _legend(ax: Axes, lines: Mapping[str, dict]) -> None:
    handles = [Line2D([], [], label=label, **line) for label, line in lines.items()]
    ax.legend(handles=handles, loc="lower left", fontsize=7.5, handlelength=1.6, borderpad=0.1, labelspacing=0.3)


def _middle(values: np.ndarray) -> np.ndarray:
    """Median over nets and examples of (nets, r, n)."""
    return np.median(values, axis=(0, 2))


def _band(ax: Axes, x: np.ndarray, values: np.ndarray, colour: str) -> None:
    low, high = np.quantile(values, [0.1, 0.9], axis=(0, 2))
    ax.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
    ax.plot(x, _middle(values), color=colour, linewidth=1.7)
