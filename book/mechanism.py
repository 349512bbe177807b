"""Chapter 05: which points the update listens to at the real and the phantom head; the rules of C3, C4 and C9
(Figures 3, 5, 7 and 8)."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import NamedTuple, Self

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from scipy.special import expit

from book import style
from book.claims import MARGIN, Check, weakest
from lib.importance import WeightMap, gini, lorenz_curve, weight_map, worst_share
from lib.toy.decomposition import Decomposition, decompose
from lib.toy.ensemble import ToyResult

PARTS = tuple(field.name for field in fields(Decomposition))
NETS = {"SGD": (style.SGD, "o"), "LSAM": (style.LSAM, "^")}  # the two nets that are compared
FEATURES = {"easy": style.EASY, "hard": style.HARD}
GROUPS = {"easy": "worst by easy", "hard": "worst by hard", "carried": "well by easy only"}  # of C4
KINDS = {"real": (0, (3, 1.5)), "phantom": "-"}  # weights, and how they are drawn
EVEN = 2 * MARGIN  # margin of a Gini coefficient, which is twice the mean distance between Lorenz curves
WHICH = {  # what the phantom changes: the check, its sign and the margin within which it is too small to matter
    "share carried": ("share of points that only the easy feature fits well, change above 0", +1, MARGIN),
    "slopes": ("slope on the easy contribution minus that on the hard one above 0", +1, 0),
    "share easy": ("share of the easy feature's worst quarter, change below 0", -1, MARGIN),
    "share hard": ("share of the hard feature's worst quarter, change above 0", +1, MARGIN),
    "slope easy": ("slope on the easy contribution above 0", +1, 0),
    "slope hard": ("slope on the hard contribution below 0", -1, 0),
}
SMALL = {"fontsize": 7, "borderpad": 0, "labelspacing": 0.25, "handlelength": 2.4}  # a legend in a panel
LINE = {"markersize": 3.8, "linewidth": 1.4}
EASY, HARD = r"easy, $y\,w_e f_e$", r"hard, $y\,w_h f_h$"


def through_training(
    result: ToyResult, rho: float, settings: Sequence[int] = (0, 1)
) -> tuple[Decomposition, np.ndarray]:
    """The decomposition at every checkpoint, arrays (net, checkpoint, seed, n), and the real heads (net,
    checkpoint, seed, 2).

    A seed is left out where any of the result's nets diverged, so that all comparisons stay paired.
    """
    kept = ~result.diverged.any(axis=0)
    parts = [[decompose(result, i, c, rho) for c in range(len(result.checkpoints))] for i in settings]
    stacked = {name: np.array([[getattr(part, name)[kept] for part in row] for row in parts]) for name in PARTS}
    return Decomposition(**stacked), result.heads[list(settings)][:, kept].swapaxes(1, 2)


def at(parts: Decomposition, *index: int | slice) -> Decomposition:
    """`parts` at an index of its leading axes: net, checkpoint."""
    return Decomposition(**{name: getattr(parts, name)[index] for name in PARTS})


def log_ratio_slopes(parts: Decomposition) -> np.ndarray:
    """Least squares of log(lambda~ / lambda) on both signed contributions over the points of a net: slopes
    (..., 2), easy and hard.

    Each is the change of the log ratio for one unit more of that contribution, the other being equal.
    """
    values = parts.easy, parts.hard, np.log(parts.phantom) - np.log(parts.real)
    easy, hard, ratio = (value - value.mean(axis=-1, keepdims=True) for value in values)
    x = np.stack([easy, hard], axis=-2)
    return np.linalg.solve(x @ x.swapaxes(-1, -2), x @ ratio[..., None])[..., 0]


def head_change(parts: Decomposition, head: np.ndarray) -> np.ndarray:
    """1 - w~_i / w_i in the mean over the batches of a net (..., 2), head (..., 2): what equation (6) gives
    for `log_ratio_slopes` where weights are small."""
    return 1 - (parts.phantom_head / head[..., None, :]).mean(axis=-2)


def half_phantom(parts: Decomposition, head: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Importance weights (..., n) where only w_e, and where only w_h, is moved to the phantom."""
    easy, hard = np.moveaxis(parts.phantom_head / head[..., None, :], -1, 0)
    return expit(-(easy * parts.easy + parts.hard)), expit(-(parts.easy + hard * parts.hard))


def against_rho(result: ToyResult) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """At the end of training, for every radius of `result` (settings: SGD, then LSAM at each): differences of
    Gini coefficients, real minus phantom, each (rho, seed), and the slopes in the LSAM-trained nets
    (rho, seed, 2)."""
    radii = [(k, setting.rho) for k, setting in enumerate(result.settings)][1:]
    found = [effects(at(through_training(result, rho, (0, k))[0], slice(None), -1)) for k, rho in radii]
    within = np.stack([one.within for one in found], axis=1)
    differences = {f"{name}-trained": values for name, values in zip(NETS, within)}
    differences["SGD real − LSAM phantom"] = np.array([one.between for one in found])
    return differences, np.array([one.slopes[1] for one in found])


class Effects(NamedTuple):
    """What the claims are judged by; `real` and `phantom` come first in all but the slopes."""

    even: np.ndarray  # Gini coefficients of the weights, (2, net, checkpoint, seed)
    carried: np.ndarray  # share of all importance in the group of `carried_share`, (2, net, checkpoint, seed)
    easy: np.ndarray  # the same in the quarter that this feature fits worst
    hard: np.ndarray
    slopes: np.ndarray  # see `log_ratio_slopes`, (net, checkpoint, seed, 2)

    @property
    def within(self) -> np.ndarray:
        """By how much the real weights of a net are less even than its phantom ones, (net, checkpoint, seed)."""
        return self.even[0] - self.even[1]

    @property
    def between(self) -> np.ndarray:
        """The same of the SGD-trained net's real and the LSAM-trained net's phantom weights, (checkpoint, seed)."""
        return self.even[0, 0] - self.even[1, 1]

    def since(self, first: int) -> Self:
        """The effects from the checkpoint of index `first` on."""
        return type(self)(*(shares[:, :, first:] for shares in self[:-1]), self.slopes[:, first:])

    @property
    def changes(self) -> dict[str, np.ndarray]:
        """What the phantom changes in each net, for `checks_c4`, (net, checkpoint, seed)."""
        shares = {name: np.subtract(*getattr(self, name)[::-1]) for name in ("carried", *FEATURES)}
        slopes = dict(zip(FEATURES, np.moveaxis(self.slopes, -1, 0)))
        return {f"share {name}": x for name, x in shares.items()} | {f"slope {name}": x for name, x in slopes.items()}


def carried_share(easy: np.ndarray, hard: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Share of all importance held by the points (last axis) that the easy feature fits well and the hard one badly:
    in the better half by the signed contribution of the one, in the worse half by that of the other."""
    middle = [np.median(contribution, axis=-1, keepdims=True) for contribution in (easy, hard)]
    group = (easy > middle[0]) & (hard <= middle[1])
    return (weights * group).sum(axis=-1) / weights.sum(axis=-1)


def effects(parts: Decomposition) -> Effects:
    """The effects of nets (net, checkpoint, seed, n); the axis of checkpoints may be missing."""
    both = np.array([parts.real, parts.phantom])
    worst = [worst_share(contribution, both) for contribution in (parts.easy, parts.hard)]
    return Effects(gini(both), carried_share(parts.easy, parts.hard, both), *worst, log_ratio_slopes(parts))


def checks_c3(
    even: np.ndarray, trained: str = "LSAM", title: str = "", main: bool = True, reduced: bool = False
) -> list[Check]:
    """C3: weights are more even at the phantom, within each net, the main check, and from the SGD-trained net's real
    ones to those of the net `trained` otherwise. `even`: Gini coefficients, (real or phantom, net, ..., seed)."""
    parts = {
        "Gini coefficient, real minus phantom of a net, above 0": even[0] - even[1],
        f"Gini coefficient, SGD-trained real minus {trained}-trained phantom, above 0": even[0, 0] - even[1, 1],
    }
    leading = iter([main, False])
    return [weakest(title + what, values, +1, EVEN, next(leading), reduced) for what, values in parts.items()]


def checks_c4(
    changes: Mapping[str, np.ndarray], title: str = "", main: bool = True, reduced: bool = False
) -> list[Check]:
    """C4 by what the phantom `changes`, (..., seed): of those of `WHICH` that were measured the first is the main
    check; the slopes themselves are shown and count for nothing."""
    given = dict(changes) | {"slopes": changes["slope easy"] - changes["slope hard"]}
    found = [
        replace(weakest(title + what, given[name], sign, margin, reduced=reduced), trivial=name.startswith("slope "))
        for name, (what, sign, margin) in WHICH.items()
        if name in given
    ]
    return [replace(found[0], main=main), *found[1:]]


def checks_c9(found: Effects, epochs: Sequence[int]) -> list[Check]:
    """C9: what C3, whose main check leads, and C4 say, in both nets at every checkpoint after the first step;
    `epochs`: of checkpoints."""
    began = found.since(int(epochs[0] == 0))
    return checks_c3(began.even) + checks_c4(began.changes, main=False)


def _lorenz(axes: Axes, real: np.ndarray, phantom: np.ndarray, colour: str) -> None:
    """Both curves of one net, mean and band over seeds: weights (seed, n)."""
    for weights, line, width in zip((real, phantom), KINDS.values(), (1.3, 1.8)):
        fractions, shares = lorenz_curve(weights)
        style.line(axes, fractions, shares.T, colour, linestyle=line, linewidth=width)
    axes.plot([0, 1], [0, 1], color=style.GREY, linewidth=0.7, linestyle=":")
    axes.set(xlim=(0, 1), ylim=(0, 1.01))


def lorenz(parts: Decomposition, names: Sequence[str], zoom: float = 0.1) -> Figure:
    """Figure 3: Lorenz curves of two nets (net, seed, n).

    Insets enlarge the first `zoom` of the points; the second net's also shows the first net's real weights.
    """
    fig, axes = plt.subplots(1, 2, figsize=(style.PAGE_WIDTH, 3.3))
    dashed = KINDS["real"]
    for net, (panel, name, (colour, _)) in enumerate(zip(axes, names, NETS.values())):
        inset = panel.inset_axes([0.42, 0.14, 0.55, 0.56])
        for part in (panel, inset):
            _lorenz(part, parts.real[net], parts.phantom[net], colour)
        if net:
            fractions, shares = lorenz_curve(parts.real[0])
            inset.plot(fractions, shares.mean(axis=0), color=style.SGD, linestyle=dashed, linewidth=1.1)
        inset.set(xlim=(0, zoom), xticks=[0, zoom], yticks=[0, 1])
        inset.tick_params(labelsize=7, length=2, pad=1)
        panel.set(title=name, xlabel="% of points, heaviest first")
        for axis in (panel.xaxis, panel.yaxis, inset.xaxis, inset.yaxis):
            axis.set_major_formatter(PercentFormatter(1, 0, symbol=""))
    axes[0].set_ylabel("share of all importance, %")
    for label, line in zip(style.WEIGHTS, KINDS.values()):
        axes[0].plot([], [], color=style.GREY, linestyle=line, label=label)
    box = {**SMALL, "fontsize": 7.5, "borderpad": 0.2, "frameon": True, "edgecolor": "none", "framealpha": 1}
    axes[0].legend(loc="upper right", bbox_to_anchor=(1, 0.97), **box)
    return fig


def lorenz_through_training(parts: Decomposition, epochs: Sequence[int], names: Sequence[str]) -> Figure:
    """Figure 7: Lorenz curves at each checkpoint, a row for each net; `parts` (net, checkpoint, seed, n)."""
    size = style.PAGE_WIDTH, 1.55 * len(names) + 0.5
    fig, axes = plt.subplots(len(names), len(epochs), figsize=size, sharex=True, sharey=True, squeeze=False)
    for net, (row, name, (colour, _)) in enumerate(zip(axes, names, NETS.values())):
        for panel, real, phantom in zip(row, parts.real[net], parts.phantom[net]):
            _lorenz(panel, real, phantom, colour)
            text = f"{gini(real).mean():.2f}\n{gini(phantom).mean():.2f}"
            corner = {"ha": "right", "va": "bottom", "transform": panel.transAxes}
            panel.text(0.96, 0.06, text, fontsize=7.5, linespacing=1.3, **corner)
            panel.set(xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
            panel.xaxis.set_major_formatter(PercentFormatter(1, 0, symbol=""))
        row[0].set_ylabel(name)
        row[0].yaxis.set_major_formatter(PercentFormatter(1, 0))
    _epoch_titles(axes[0], epochs)
    fig.supxlabel("% of points, heaviest first", fontsize=9)
    return fig


def _epoch_titles(row: Sequence[Axes], epochs: Sequence[int]) -> None:
    for panel, epoch in zip(row, epochs):
        panel.set_title("start" if epoch == 0 else f"epoch {epoch}", loc="center", fontsize=8.5)


def pooled_maps(parts: Decomposition, bins: int) -> list[WeightMap]:
    """Figure 5 of one net (seed, n), pooled over seeds: maps of lambda, of lambda~ and of their ratio.

    The ratio is divided by its median over the points of the same seed. The edges leave out 0.5 % of the
    points at each end of either contribution.
    """
    edges = [np.linspace(*np.quantile(values, [0.005, 0.995]), bins + 1) for values in (parts.easy, parts.hard)]
    ratio = parts.phantom / parts.real
    ratio = ratio / np.median(ratio, axis=-1, keepdims=True)
    places = parts.easy.ravel(), parts.hard.ravel()
    return [weight_map(*places, weights.ravel(), *edges) for weights in (parts.real, parts.phantom, ratio)]


def _level_lines(axes: Axes, table: WeightMap, easy_slope: float, hard_slope: float) -> None:
    """Lines along which easy_slope y w_e f_e + hard_slope y w_h f_h stays equal."""
    easy, hard = (edges[[0, -1]] for edges in (table.easy_edges, table.hard_edges))
    corners = easy_slope * easy[:, None] + hard_slope * hard
    for level in np.linspace(corners.min(), corners.max(), 6)[1:-1]:
        line = (level - easy_slope * easy) / hard_slope
        axes.plot(easy, line, color="white", linewidth=1, scalex=False, scaley=False)


def weight_maps(parts: Decomposition, head: np.ndarray, bins: int = 14) -> Figure:
    """Figure 5: median weight by both contributions, real and phantom, their ratio, and the count of points;
    a row for each net (net, seed, n), head (net, seed, 2). White lines: equal weight by equation (6)."""
    size = style.PAGE_WIDTH, 2.05 * len(NETS) + 0.9
    fig, axes = plt.subplots(len(NETS), 4, figsize=size, sharex="row", sharey="row")
    tables = [pooled_maps(at(parts, net), bins) for net in range(len(NETS))]
    weight = style.weight_scale([table for row in tables for table in row[:2]])
    bound = max(style.decades(row[2])[1] for row in tables)
    most = max(row[2].count.max() for row in tables)
    for net, (name, row, maps) in enumerate(zip(NETS, axes, tables)):
        weights, ratios = style.weight_maps(row, maps, weight, bound)
        counts = style.weight_map(row[3], maps[2], maps[2].count.astype(float), LogNorm(1, most), "Greys")
        _level_lines(row[0], maps[0], 1, 1)
        _level_lines(row[1], maps[0], *(1 - head_change(at(parts, net), head[net]).mean(axis=0)))
        row[0].set_ylabel(f"{name}\n{HARD}")
    for panel, title in zip(axes[0], (*style.WEIGHTS, "points")):
        panel.set_title(title, loc="center")
    plt.setp(axes[-1], xlabel=EASY)
    bar = {"orientation": "horizontal", "pad": 0.03, "aspect": 22, "shrink": 0.92}
    fig.colorbar(weights, ax=axes[:, :2], label="median weight", **{**bar, "aspect": 44, "shrink": 0.7})
    reach = max(1, int(bound))
    ticks = fig.colorbar(ratios, ax=axes[:, 2], label="over the typical point's", extend="both", **bar)
    ticks.set_ticks([-reach, 0, reach], labels=[f"$10^{{-{reach}}}$", "1", f"$10^{{{reach}}}$"])
    fig.colorbar(counts, ax=axes[:, 3], label="in each bin", **bar)
    return fig


def maps_through_training(parts: Decomposition, epochs: Sequence[int], bins: int = 12, floor: float = 1e-10) -> Figure:
    """Figure 8 of one net (checkpoint, seed, n): median weights below `floor` share a colour; every map of
    ratios has a scale of its own, written below it."""
    fig, axes = plt.subplots(3, len(epochs), figsize=(style.PAGE_WIDTH, 4.3), squeeze=False)
    for c, column in enumerate(axes.T):
        maps = pooled_maps(at(parts, c), bins)
        bound = style.decades(maps[2])[1]
        weights, ratios = style.weight_maps(column, maps, LogNorm(floor, 1), 1, bound)
        factor = f"{10**bound:.2g}" if bound < 2 else f"10^{{{bound:.1f}}}"
        column[2].set_xlabel(rf"× or ÷ ${factor}$", fontsize=7.5, labelpad=1)
        for panel in column:
            panel.tick_params(labelsize=6.5, length=2, pad=1, labelbottom=panel is column[2])
            panel.xaxis.set_major_locator(MaxNLocator(2))
            panel.yaxis.set_major_locator(MaxNLocator(3))
    for panel, label in zip(axes[:, 0], style.WEIGHTS):
        panel.set_ylabel(label)
    _epoch_titles(axes[0], epochs)
    bar = {"pad": 0.015, "fraction": 0.05}
    above = fig.colorbar(weights, ax=axes[:2], extend="min", aspect=30, **bar)
    below = fig.colorbar(ratios, ax=axes[2], extend="both", aspect=15, ticks=[], **bar)
    style.small_bars({"median weight": above, "less   more": below})
    fig.supxlabel(EASY, fontsize=9)
    fig.supylabel(HARD, fontsize=9)
    return fig


def effects_through_training(found: Effects, epochs: Sequence[int]) -> Figure:
    """Gini coefficients, what share the groups of C4 gain, and slopes, at each checkpoint. Slopes begin after the
    start, where both contributions are near zero."""
    fig, axes = plt.subplots(1, 3, figsize=(style.PAGE_WIDTH, 3.4))
    began = int(epochs[0] == 0)
    for net, (name, (colour, marker)) in enumerate(NETS.items()):
        for values, (kind, line) in zip(found.even, KINDS.items()):
            style.line(axes[0], epochs, values[net], colour, marker, linestyle=line, label=f"{name}, {kind}", **LINE)
        for group, colour in (FEATURES | {"carried": style.GREY}).items():
            label = f"{GROUPS[group]}, {name}"
            look = {"label": label, "markerfacecolor": colour if net else "white", **LINE}
            style.line(axes[1], epochs, found.changes[f"share {group}"][net], colour, marker, **look)
            if group in FEATURES:
                slope = found.changes[f"slope {group}"][net, began:]
                style.line(axes[2], epochs[began:], slope, colour, marker, **look)
    titles = "Gini coefficient", "share gained by a group", "slope of the log ratio"
    for panel, title in zip(axes, titles):
        panel.set_title(title, fontsize=9)
        panel.set_xscale("symlog", linthresh=1, linscale=0.4)
        panel.set(xlabel="epoch", xlim=(-0.08, 1.15 * epochs[-1]))
        style.plain(panel.xaxis, ticks=[0, 1, 10, 100])
    for panel in axes[1:]:
        panel.axhline(0, color=style.GREY, linewidth=0.7)
    axes[1].set_ylim(bottom=1.8 * axes[1].get_ylim()[0])  # room for the legend
    for panel in axes[:2]:
        panel.legend(loc="lower right", **SMALL)
    return fig


def explanations(
    rhos: Sequence[float], differences: Mapping[str, np.ndarray], slopes: np.ndarray, parts: Decomposition
) -> Figure:
    """What hangs on the radius (values of `against_rho`), and Gini coefficients against the mean weight as
    training goes on; `parts` (net, checkpoint, seed, n)."""
    fig, axes = plt.subplots(1, 3, figsize=(style.PAGE_WIDTH, 3.1))
    for (label, values), look in zip(differences.items(), (*NETS.values(), (style.SAM, "s"))):
        style.line(axes[0], rhos, values, *look, label=label, **LINE)
    for i, (feature, colour) in enumerate(FEATURES.items()):
        style.line(axes[1], rhos, slopes[..., i], colour, "o^"[i], label=feature, **LINE)
    for net, (name, (colour, marker)) in enumerate(NETS.items()):
        for kind, line in KINDS.items():
            weights = getattr(parts, kind)[net]
            mean = np.exp(np.log(weights.mean(axis=-1)).mean(axis=-1))
            look = {"color": colour, "marker": marker, "linestyle": line, **LINE, "linewidth": 1.3}
            axes[2].plot(mean, gini(weights).mean(axis=-1), label=f"{name}, {kind}", **look)
    axes[2].set(xscale="log", xlabel="mean weight")
    titles = "Gini, real minus phantom", "slopes, LSAM-trained", "Gini coefficient"
    for panel, title, place in zip(axes, titles, ("upper left", "upper left", "lower left")):
        panel.set_title(title, fontsize=9)
        panel.legend(loc=place, **SMALL)
    for panel in axes[:2]:
        panel.axhline(0, color=style.GREY, linewidth=0.7)
        panel.set_xlabel(r"LSAM radius $\rho$")
    return fig
