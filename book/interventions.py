"""Chapter 06: the rule of C6; each effect alone, what LSAM does that they do not, and what it all depends on
(Figure 6)."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from book import style
from book.claims import MARGIN, Check, compared, weakest
from book.curves import at, distance, mean_height
from lib.stats import Estimate
from lib.toy.decomposition import Decomposition

TOLERANCE = 0.05  # of a match with LSAM, in probing error
COMPARABLE = 2  # times the smaller gain, which exceeds the larger where gains are comparable
NAMES = {"importance": "importance weighting", "learning_rate": "learning rate", "both": "both together"}
COLOURS = {"importance": style.SAM, "learning_rate": style.HARD, "both": "#22272E"}
MARKERS = {"importance": "o", "learning_rate": "s", "both": "^"}
ERROR = (-0.015, 0.53)  # limits of an axis of probing errors, which chance puts at 0.5


def gains(
    ratios: Sequence[float], curves: Mapping[str, np.ndarray], sgd: np.ndarray, low: float
) -> dict[str, np.ndarray]:
    """Each intervention's mean gain in hard probing error over SGD, (seed,), from the ratio `low`, SGD's own, to
    the largest; curves (ratio, seed), sgd (seed,)."""
    return {effect: mean_height(ratios, sgd - curve, low, ratios[-1]) for effect, curve in curves.items()}


def apart(ratios: Sequence[float], curve: np.ndarray, places: Sequence[float], lsam: np.ndarray) -> Estimate:
    """Distance of an intervention's curve (ratio, seed) to LSAM's errors (rho, seed) at its ratios `places` (rho,)."""
    return distance(at(ratios, curve, places), lsam)


def to_match(swept: np.ndarray) -> bool:
    """Whether LSAM gains enough for a match to mean anything: SGD itself is further from its curve than a match may be.
    `swept`: hard probing errors of SGD, then of LSAM at each radius, (rho, seed)."""
    return distance(np.broadcast_to(swept[0], swept[1:].shape), swept[1:]).mean > TOLERANCE


def checks(
    ratios: Sequence[float], curves: Mapping[str, np.ndarray], swept: np.ndarray, places: Sequence[float]
) -> list[Check]:
    """C6 from the hard probing errors of the interventions, name -> (ratio, seed), and of SGD and LSAM, `swept` (rho,
    seed), at their mean ratios `places` (rho,)."""
    gain, names = gains(ratios, curves, swept[0], places[0]), ("importance", "learning_rate")
    smaller, larger = sorted((gain[name] for name in names), key=np.mean)
    match = f"both together: distance to LSAM at most {TOLERANCE:g}"
    both = apart(ratios, curves["both"], places[1:], swept[1:])
    return [
        compared(match, [both], high=TOLERANCE, main=True) if to_match(swept) else Check(match, effect=both, main=True),
        *(weakest(f"{NAMES[name]}: mean gain over SGD above 0", gain[name], +1, MARGIN) for name in names),
        weakest("twice the smaller gain minus the larger above 0", COMPARABLE * smaller - larger, +1),
    ]


Curves = Mapping[str, np.ndarray]  # by name


def error_against_ratio(
    ratios: Sequence[float],
    curves: Curves,
    lsam_ratio: np.ndarray,
    lsam: np.ndarray,
    rhos: Sequence[float],
    compared: int,
) -> Figure:
    """Figure 6: hard probing error of each intervention, (ratio, seed), against c, with LSAM laid over.

    lsam_ratio, lsam: measured ratio and hard probing error, (rho, seed), the first of SGD; `compared`: the
    index of the radius that is marked. Faint dots are single seeds.
    """
    fig, axes = plt.subplots(1, 3, figsize=(style.PAGE_WIDTH, 3.2), sharey=True)
    jitter = np.random.default_rng(0).uniform(0.95, 1.05, size=lsam.shape[1])
    places = lsam_ratio.mean(axis=1)
    stars = ((0, style.SGD, "SGD"), (compared, style.LSAM, rf"LSAM, $\rho$ = {rhos[compared]:g}"))
    for panel, (effect, values) in zip(axes, curves.items()):
        colour = COLOURS[effect]
        panel.plot(np.outer(ratios, jitter), values, ".", color=colour, alpha=0.3, markersize=3.5, mew=0)
        style.line(panel, ratios, values, colour, MARKERS[effect])
        style.line(panel, places, lsam, style.LSAM, "D", label=r"LSAM, other $\rho$")
        for k, shade, label in stars:
            panel.plot(places[k], lsam[k].mean(), "*", color=shade, markersize=12, mec="white", label=label)
        panel.set(title=NAMES[effect], xlabel=r"$c$, or mean ratio $\tilde w_h/\tilde w_e$ of LSAM")
        panel.xaxis.label.set_size(8.5)
        _ratio_axis(panel, ratios)
    axes[0].set(ylabel="hard probing error", ylim=ERROR)
    axes[0].legend(loc="lower right", fontsize=8.5)
    return fig


def _ratio_axis(axes: Axes, ratios: Sequence[float]) -> None:
    """A logarithmic axis labelled at powers of two."""
    low, high = np.floor(np.log2(min(ratios))), np.ceil(np.log2(max(ratios)))
    axes.set_xscale("log", base=2)
    axes.set_xticks(2.0 ** np.arange(low, high + 1))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def rates_by_fit(parts: Decomposition, head: np.ndarray) -> np.ndarray:
    """Mean w~_h / w_h over the points that the hard feature gets wrong, that it gets right, and over all.

    head (seeds, 2): the real one. The first two means are weighted by the importance weight, as the gradient
    weights points; the last is not. (3, seeds); NaN where there is no such point.
    """
    rate, wrong = parts.phantom_head[..., 1] / head[:, 1:], parts.hard <= 0
    with np.errstate(invalid="ignore"):
        weights = [parts.real * wrong, parts.real * ~wrong]
        chosen = [(weight * rate).sum(axis=1) / weight.sum(axis=1) for weight in weights]
    return np.stack([*chosen, rate.mean(axis=1)])


def reasons(
    rhos: Sequence[float], isolated: Curves, by_fit: np.ndarray, memories: Sequence[int], averaged: Curves
) -> Figure:
    """Why a constant ratio is not LSAM.

    Left: hard probing error of LSAM and of each of its effects alone, name -> (rho, seed). Centre:
    `rates_by_fit`, (rho, 3, seed). Right: hard probing error, name -> (memory, seed), with ascents averaged
    over `memories` batches.
    """
    fig, (effects, points, blur) = plt.subplots(1, 3, figsize=(style.PAGE_WIDTH, 3.2))
    shades = {"SGD": (style.SGD, "v"), "both (LSAM)": (style.LSAM, "D"), "mean made ρ long": (style.SAM, "s")}
    shades |= {NAMES[effect]: (COLOURS[effect], MARKERS[effect]) for effect in NAMES}
    for panel, places, errors in ((effects, rhos, isolated), (blur, memories, averaged)):
        for name, values in errors.items():
            style.line(panel, places, values, *shades[name], label=name)
    effects.set(xlabel=r"radius $\rho$", ylabel="hard probing error", title="LSAM's effects", ylim=ERROR)
    effects.legend(loc="lower left", fontsize=8.5)

    kinds = (("wrong", style.HARD, "o"), ("right", style.EASY, "s"), ("all, unweighted", style.GREY, "X"))
    for i, (name, colour, marker) in enumerate(kinds):
        style.line(points, rhos, by_fit[:, i], colour, marker, label=name)
    points.axhline(1, color="black", linewidth=0.6)
    points.set(xlabel=r"radius $\rho$", ylabel=r"$\tilde w_h\, /\, w_h$", title="hard rate, by point")
    points.legend(title="hard feature is", loc="lower left", fontsize=8.5, title_fontsize=8.5)

    blur.set(xscale="log", xlabel="batches averaged over", title="averaged ascent", ylim=(ERROR[0], 0.7))
    blur.set_xticks(memories, [f"{memory}" for memory in memories])
    blur.xaxis.set_minor_locator(NullLocator())
    blur.legend(loc="upper left", fontsize=8.5)
    return fig


def variations(names: Sequence[str], gain: Mapping[str, Sequence[Estimate]], distances: Sequence[Estimate]) -> Figure:
    """One row a variation: the mean gain of each intervention, and how far both together are from LSAM."""
    size = style.PAGE_WIDTH, 1.0 + 0.37 * len(names)
    fig, (left, right) = plt.subplots(1, 2, figsize=size, sharey=True, width_ratios=[1.5, 1])
    rows = np.arange(len(names))
    for effect, shift in zip(gain, (-0.22, 0, 0.22)):
        style.whiskers(left, gain[effect], rows + shift, COLOURS[effect], MARKERS[effect], label=NAMES[effect])
    style.whiskers(right, distances, rows, COLOURS["both"], MARKERS["both"])
    left.axvline(0, color="black", linewidth=0.6)
    right.axvline(TOLERANCE, color="black", linewidth=0.8, linestyle=":")
    for panel in (left, right):
        style.rows(panel, names)
    left.set(title="mean gain over SGD", xlabel="fall of the hard probing error")
    right.set(xlabel="hard probing error", xlim=(0, None), title="distance of both to LSAM")
    fig.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return fig
