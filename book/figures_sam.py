"""Figures of chapter 01_sam: one step, walks on a surface, what they do to the weights, what a step costs."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from book import style
from book.sam_cost import GOALS, StepCost
from book.sam_surface import SurfaceConstants, Walk, gradient, loss, sharpness, valley
from lib.stats import bootstrap_band

Window = tuple[float, float]  # from, to

COLOURS = {"SGD": style.SGD, "SAM": style.SAM, "LSAM": style.LSAM}
INK = "#22272E"
SHADES = sns.light_palette("#5A6675", 12)[:9]  # flat is light
ABOVE_LEAST = np.array([0, 0.004, 0.015, 0.035, 0.07, 0.12, 0.2, 0.32, 0.5, 50])  # loss above its minimum


def anatomy(
    weights: tuple[float, float], rho: float, rate: float = 2.0, constants: SurfaceConstants = SurfaceConstants()
) -> Figure:
    """One step of each method from `weights`, (theta, w), on the loss of all points; learning rate `rate`."""
    fig, axes = plt.subplots(1, 3, figsize=(style.PAGE_WIDTH, 2.85), sharey=True)
    start, half_width = np.array(weights), max(0.9, 1.4 * rho)
    upward = gradient(start, constants)
    unit, unit_head = upward / np.linalg.norm(upward), np.array([0, np.sign(upward[1])])
    ascents = {"SGD": np.zeros(2), "SAM": rho * unit, "LSAM": rho * unit_head}
    for ax, (method, ascent) in zip(axes, ascents.items()):
        colour, phantom = COLOURS[method], start + ascent
        descent = -rate * gradient(phantom, constants)
        _surface(ax, *(centre + half_width * np.array([-1, 1]) for centre in start), constants)
        if method == "SAM":
            ax.add_patch(Circle(start, rho, fill=False, ec=colour, lw=0.9, ls=":"))
        if method == "LSAM":
            ax.plot([start[0]] * 2, start[1] + np.array([-rho, rho]), color=colour, lw=0.9, ls=":")
        if method != "SGD" and rho > 0:
            _arrow(ax, start, phantom, colour, ls=(0, (3, 1.5)), lw=1.2)
            _arrow(ax, phantom, phantom + descent, colour, alpha=0.4)
            ax.plot(*phantom, "o", ms=5, mfc="white", mec=colour, mew=1.2)
            ax.annotate("phantom", phantom, (6, 2), textcoords="offset points", color=INK, fontsize=9)
        _arrow(ax, start, start + descent, colour)
        ax.plot(*start, "o", ms=5, color=INK)
        ax.annotate("real", start, (6, -4), textcoords="offset points", color=INK, fontsize=9)
        ax.set_title(method, color=colour)
    axes[0].set_ylabel("last layer $w$")
    return fig


def trajectories(
    walks: Mapping[str, Walk], every: int = 10, constants: SurfaceConstants = SurfaceConstants()
) -> Figure:
    """One walk of each method over the loss surface, with the phantom of every `every`-th step."""
    fig, axes = plt.subplots(1, 3, figsize=(style.PAGE_WIDTH, 2.85), sharey=True)
    for ax, (method, walk) in zip(axes, walks.items()):
        colour = COLOURS[method]
        _surface(ax, (0, 3.6), (0, 3.6), constants)
        ax.plot([0, 3.6], [0, 3.6], color="white", lw=0.8, alpha=0.8)
        for weights, phantom in zip(walk.weights[:-1:every], walk.phantoms[::every]):
            ax.plot(*zip(weights, phantom), color=colour, lw=0.6, alpha=0.55)
        ax.plot(*walk.phantoms[::every].T, "o", ms=2.6, mfc="white", mec=colour, mew=0.7, ls="")
        ax.plot(*walk.weights.T, color="white", lw=2.6)
        ax.plot(*walk.weights.T, color=colour, lw=1.4)
        ax.plot(*walk.weights[0], "s", ms=5, color=INK)
        ax.plot(*walk.weights[-1], "o", ms=6.5, color=colour, mec="white", mew=1.2)
        ax.set_title(method, color=colour)
        ax.set(xticks=range(4), yticks=range(4))
    axes[0].set_ylabel("last layer $w$")
    return fig


def drift(weights: Mapping[str, np.ndarray], constants: SurfaceConstants = SurfaceConstants()) -> Figure:
    """Feature size and sharpness at every step, mean over seeds; `weights` is (seeds, steps + 1, 2)."""
    fig, axes = plt.subplots(1, 2, figsize=(style.PAGE_WIDTH, 2.6))
    for method, runs in weights.items():
        for ax, values in zip(axes, (runs[..., 0], sharpness(runs, constants))):
            mean, low, high = bootstrap_band(values.T)
            ax.plot(mean, color=COLOURS[method], lw=1.5, label=method)
            ax.fill_between(np.arange(len(mean)), low, high, color=COLOURS[method], alpha=0.2, lw=0)
    root = valley(constants) ** 0.5
    flattest = sharpness(np.array([root, root]), constants)
    axes[0].axhline(root, color=style.GREY, lw=0.8, ls=":")
    axes[1].axhline(flattest, color=style.GREY, lw=0.8, ls=":")
    axes[0].set(title="size of the feature", ylabel=r"body $\theta$", ylim=0)
    axes[1].set(title="sharpness", ylabel="largest Hessian eigenvalue", yscale="log")
    axes[1].set_yticks([0.25, 0.5, 1, 2], ["0.25", "0.5", "1", "2"])
    axes[1].minorticks_off()
    for ax in axes:
        ax.set(xlabel="step", xlim=(0, None))
    axes[0].legend(loc="lower left")
    return fig


def cost(costs: Mapping[str, StepCost]) -> Figure:
    """Every round's ratio to SGD's step, with the median, its 95 % interval and the goal."""
    fig, ax = plt.subplots(figsize=(style.PAGE_WIDTH, 1.7))
    shown = [method for method in costs if method != "SGD"]
    for row, method in enumerate(shown):
        own, colour = costs[method], COLOURS[method]
        jitter = np.random.default_rng(0).uniform(-0.16, 0.16, len(own.ratios))
        ax.scatter(own.ratios, row + jitter, s=13, color=colour, alpha=0.45, lw=0)
        ax.plot([own.low, own.high], [row, row], color=INK, lw=2, solid_capstyle="butt")
        ax.plot(own.ratio, row, "o", ms=5, color=INK)
        ax.plot([GOALS[method]] * 2, [row - 0.36, row + 0.36], color=style.GREY, lw=1.2, ls=(0, (3, 2)))
    ax.set_yticks(range(len(shown)), shown)
    ax.axvline(1, color=COLOURS["SGD"], lw=1.2, zorder=0)
    ax.text(0.99, -0.5, "SGD", color=COLOURS["SGD"], ha="right", va="top", fontsize=9)
    ax.set(ylim=(len(shown) - 0.45, -0.55), xlabel="time of a step, as a multiple of SGD's")
    ax.tick_params(axis="y", length=0)
    return fig


def _surface(ax: Axes, theta: Window, w: Window, constants: SurfaceConstants) -> None:
    """Shade the loss over a window of (theta, w); the dashed line is the hyperbola of its minima."""
    best = valley(constants)
    grid_theta, grid_w = np.meshgrid(np.linspace(*theta, 200), np.linspace(*w, 200))
    least = loss(np.array(best), np.array(1.0), constants)
    ax.contourf(grid_theta, grid_w, loss(grid_theta, grid_w, constants), least + ABOVE_LEAST, colors=SHADES)
    along = np.linspace(max(theta[0], best / w[1]), theta[1], 200)
    ax.plot(along, best / along, color="white", lw=1.1, ls=(0, (5, 3)))
    ax.set(xlim=theta, ylim=w, aspect="equal", xlabel=r"body $\theta$")


def _arrow(ax: Axes, tail: np.ndarray, head: np.ndarray, colour: str, **settings) -> None:
    arrow = {"arrowstyle": "-|>", "color": colour, "lw": 1.6, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 9}
    ax.annotate("", head, tail, arrowprops=arrow | settings)
