"""Chapter 03: the rule of C1, and what each method has learned in the toy (Figures 1 and 2A)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from book import style
from book.claims import MARGIN, Check, exact, weakest
from lib.data.toy import ToySample
from lib.stats import at_choice, estimate, rank_correlation

FIT = 0.005  # largest mean training error of a net that fits the labels
LABELS = ((-1, style.NEGATIVE, "o", "circle"), (1, style.POSITIVE, "^", "triangle-up"))


def fits(training: np.ndarray) -> np.ndarray:
    """Where nets fit the labels, by their training errors (..., seed): not where one diverged (NaN)."""
    return np.mean(training, axis=-1) <= FIT


def spiral_is_hard(hard: np.ndarray, easy: np.ndarray) -> np.ndarray:
    """Where the spiral is the hard feature, the one with the higher mean probing error under SGD; errors
    (..., rho, seed), the first radius 0."""
    return hard[..., 0, :].mean(axis=-1) > easy[..., 0, :].mean(axis=-1)


def at_radius(values: np.ndarray, chosen: int | np.ndarray) -> np.ndarray:
    """`values` (complexity, rho, seed) at the radius of index `chosen`, one for all or for each complexity and seed,
    (complexity, seed)."""
    return at_choice(values, np.broadcast_to(chosen, values[:, 0].shape))


def radius(rhos: Sequence[float], chosen: int | np.ndarray) -> str:
    """The radius of index `chosen` in the words of a check."""
    return "the chosen ρ" if np.ndim(chosen) else f"ρ = {rhos[chosen]:g}"


def checks(
    rhos: Sequence[float], chosen: int | np.ndarray, hard: np.ndarray, easy: np.ndarray, training: np.ndarray
) -> list[Check]:
    """C1 at the complexities where the spiral is the hard feature, none where it is nowhere. The fit counts only where
    it fails; that SGD's hard error is the higher one chose these complexities.

    hard, easy, training: probing errors and training error, (complexity, rho, seed), the first radius 0; chosen: see
    `at_radius`.
    """
    judged = spiral_is_hard(hard, easy)
    if not judged.any():
        return []
    sgd, lsam, at = hard[judged, 0], at_radius(hard, chosen)[judged], radius(rhos, chosen)
    trained = np.stack([training[:, 0], at_radius(training, chosen)], axis=1)[judged]
    worst = trained.reshape(-1, trained.shape[-1])[trained.mean(axis=-1).argmax()]  # NaN is the largest
    trends = np.stack([rank_correlation(rhos, errors) for errors in hard[judged]])
    fit, fitted = f"training error at most {100 * FIT:g} % for SGD and LSAM at {at} (largest)", bool(fits(worst))
    chosen = weakest("SGD: hard minus easy probing error above 0", sgd - easy[judged, 0], +1)
    gain = f"hard probing error of SGD minus LSAM at {at} above 0"
    return [
        weakest(gain, sgd - lsam, +1, MARGIN, main=True),
        weakest("rank correlation of ρ with the hard probing error below 0", trends, -1),
        exact(fit, fitted, estimate(worst), trivial=fitted),
        replace(chosen, trivial=True),
    ]


def grid(points: np.ndarray, resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """A square grid around `points` (n, 2): its ticks (resolution,) and its nodes (resolution**2, 2), rows
    from the bottom up."""
    limit = 1.15 * np.abs(points).max()
    ticks = np.linspace(-limit, limit, resolution)
    return ticks, np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)


def _contour(axes: Axes, ticks: np.ndarray, values: np.ndarray, points: np.ndarray, y: np.ndarray, bound: float):
    """One panel: w_i f_i over the plane, its zero line, and the training points by label."""
    surface = values.reshape(len(ticks), len(ticks))
    levels = np.linspace(-bound, bound, 21)
    axes.contourf(ticks, ticks, np.clip(surface, -bound, bound), levels=levels, cmap=style.DIVERGING)
    axes.contour(ticks, ticks, surface, levels=[0], colors="black", linewidths=1)
    for label, colour, marker, _ in LABELS:
        axes.scatter(*points[y == label].T, s=9, c=colour, marker=marker, edgecolors="white", linewidths=0.3)
    axes.set(aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def feature_contours(
    sample: ToySample, ticks: Sequence[np.ndarray], surfaces: np.ndarray, names: Sequence[str], errors: np.ndarray
) -> Figure:
    """Figure 1: both learned features over the training data, a column for each method of `names`.

    ticks: of the easy and the hard plane; surfaces (method, 2, nodes): w_e f_e and w_h f_h; errors (method,
    2): probing errors.
    """
    fig, axes = plt.subplots(2, len(names), figsize=(1.65 * 2 * len(names), 6.6), squeeze=False)
    for row, feature in enumerate(("easy", "hard")):
        points = sample.x[:, 2 * row : 2 * row + 2]
        bound = np.quantile(np.abs(surfaces[:, row]), 0.97)
        for panel, name, method, error in zip(axes[row], names, surfaces, errors):
            _contour(panel, ticks[row], method[row], points, sample.y, bound)
            panel.set_title(f"{name}: {feature} feature, error {error[row]:.3f}", loc="center", fontsize=9)
    return fig


def error_against_rho(axes: Axes, rhos: Sequence[float], lines: Mapping[str, np.ndarray], ylabel: str) -> None:
    """Figure 2A: mean over seeds against rho with its band, one line for each entry of `lines` (rhos, seeds)."""
    for (name, values), colour, marker in zip(lines.items(), style.sequence(len(lines)), "osD^vPX*"):
        style.line(axes, rhos, values, colour, marker, label=name)
    axes.set(xlabel=r"LSAM radius $\rho$ (0: SGD)", ylabel=ylabel)


def three_errors(rhos: Sequence[float], complexities: Sequence[float], errors: Mapping[str, np.ndarray]) -> Figure:
    """Figure 2A with its context: one panel for each entry of `errors` (complexity, rho, seed)."""
    widths = [1.6] + [1] * (len(errors) - 1)
    fig, axes = plt.subplots(1, len(errors), figsize=(style.PAGE_WIDTH, 3.1), width_ratios=widths)
    for panel, (name, values) in zip(axes, errors.items()):
        error_against_rho(panel, rhos, dict(zip([f"{k:g}°" for k in complexities], values)), name)
        panel.set_ylim(bottom=-0.004)
    top = max(0.02, *(1.05 * panel.get_ylim()[1] for panel in axes[1:]))
    for panel in axes[1:]:
        panel.set(ylim=(-0.02 * top, top), xlabel=r"radius $\rho$")
    axes[0].legend(title=r"complexity $\kappa$", loc="upper right")
    return fig


def headline(
    sample: ToySample,
    ticks: np.ndarray,
    surfaces: np.ndarray,
    names: Sequence[str],
    rhos: Sequence[float],
    lines: Mapping[str, np.ndarray],
) -> Figure:
    """The book in one picture: the hard feature under SGD and LSAM (surfaces (2, nodes)), and its error
    against rho."""
    fig, axes = plt.subplots(1, 3, figsize=(style.PAGE_WIDTH, 2.7), width_ratios=[1, 1, 1.1])
    bound = np.quantile(np.abs(surfaces), 0.97)
    for panel, surface, name in zip(axes, surfaces, names):
        _contour(panel, ticks, surface, sample.x[:, 2:], sample.y, bound)
        panel.set_title(f"hard feature, {name}", loc="center")
    error_against_rho(axes[2], rhos, lines, "hard probing error")
    axes[2].legend(title=r"complexity $\kappa$", fontsize=7, title_fontsize=7)
    axes[2].set_title("and its probing error", loc="center")
    return fig
