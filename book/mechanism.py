"""Chapter 05: which points the update listens to at the real and the phantom head; the rules of C3, C4 and C9
(Figures 3, 5, 7 and 8)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import NamedTuple, Self

import numpy as np
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from scipy.special import expit

from book import style
from book.claims import MARGIN, Check, weakest
from lib.data.toy import sample
from lib.importance import WeightMap, gini, lorenz_curve, weight_map, worst_share
from lib.toy.ensemble import ToyResult, batch_order, features, lsam, sgd, train


class Decomposition(NamedTuple):
    """What drives each seed's gradient, equation (6), at its training points: arrays (seeds, n).

    easy, hard: signed contributions y w_e f_e and y w_h f_h at the real head. real, phantom: importance weights lambda
    and lambda~. easy_rate, hard_rate: w~_e / w_e and w~_h / w_h in the batch that the point falls in.
    """

    easy: np.ndarray
    hard: np.ndarray
    real: np.ndarray
    phantom: np.ndarray
    easy_rate: np.ndarray
    hard_rate: np.ndarray


NETS = {"SGD": (style.SGD, "o"), "LSAM": (style.LSAM, "^")}  # the two nets that are compared
FEATURES = ("easy", "hard")
GROUPS = {  # of C4, with how they are drawn
    "carried": ("well by easy only", style.GREY),
    "easy": ("worst by easy", style.EASY),
    "hard": ("worst by hard", style.HARD),
}
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
LEAST = 3  # points that a bin of a map needs to be drawn
EASY, HARD = r"easy, $y\,w_e f_e$", r"hard, $y\,w_h f_h$"


def phantom_heads(phi: np.ndarray, head: np.ndarray, y: np.ndarray, rho: float) -> np.ndarray:
    """Equation (5) for batches: phi (..., rows, 2), head (..., 2), y (..., rows) -> w~ (..., 2); w where the gradient
    is zero."""
    weight = expit(-y * np.einsum("...bi,...i->...b", phi, head))
    gradient = -np.einsum("...b,...bi->...i", y * weight, phi)
    norm = np.linalg.norm(gradient, axis=-1, keepdims=True)
    return head + rho * np.divide(gradient, norm, out=np.zeros_like(gradient), where=norm > 0)


def decompose(result: ToyResult, setting: int, checkpoint: int, rho: float) -> Decomposition:
    """The nets of one setting at one checkpoint (indices into `result`), perturbed at radius `rho` batch by batch, of
    the size used in training, in the order of each seed's first epoch. Raises ValueError where the result has none."""
    if result.nets is None:
        raise ValueError("result must hold nets: train with keep_nets=True")
    config, parts = result.settings[setting], []
    n, size = config.data.training_points, min(config.batch_size, config.data.training_points)
    for s, seed in enumerate(result.seeds):
        points = sample(config.data, seed)
        net, head = result.nets[setting][s, checkpoint], result.heads[setting, s, checkpoint]
        phi = np.stack([features(net[i], points.x[:, 2 * i : 2 * i + 2]) for i in range(2)], axis=1).astype(float)
        order, phantom = batch_order(seed, n, 1)[0], np.empty((n, 2))
        for start in range(0, n, size):
            batch = order[start : start + size]
            phantom[batch] = phantom_heads(phi[batch], head, points.y[batch], rho)
        weights = (expit(-points.y * (phi * of).sum(axis=1)) for of in (head, phantom))
        parts.append([*(points.y[:, None] * phi * head).T, *weights, *(phantom / head).T])
    return Decomposition(*np.stack(parts, axis=1))


def trained(
    rho: float, epochs: Sequence[int], seeds: Sequence[int], constants: Mapping
) -> tuple[Decomposition, np.ndarray]:
    """The decomposition of SGD's and LSAM's net after each of `epochs`, arrays (net, checkpoint, seed, n), and the real
    heads (net, checkpoint, seed, 2); `constants`: keywords of `ToySetting`. A seed of which a net diverged is left out,
    so that all comparisons stay paired."""
    settings = [sgd(**constants), lsam(rho, **constants)]
    result = train(settings, seeds, [epoch / settings[0].epochs for epoch in epochs], keep_nets=True)
    kept = ~result.diverged.any(axis=0)
    parts = [[decompose(result, i, c, rho) for c in range(len(epochs))] for i in range(len(settings))]
    stacked = np.moveaxis(np.array(parts), 2, 0)  # (part, net, checkpoint, seed, n)
    return Decomposition(*stacked[..., kept, :]), result.heads[:, kept].swapaxes(1, 2)


def at(parts: Decomposition, *index: int | slice) -> Decomposition:
    """`parts` at an index of its leading axes: net, checkpoint."""
    return Decomposition(*(part[index] for part in parts))


def log_ratio_slopes(parts: Decomposition) -> np.ndarray:
    """Least squares of log(lambda~ / lambda) on both signed contributions over the points of a net: slopes (2, ...),
    easy and hard, the change of the log ratio for one unit more of that contribution, the other being equal."""
    values = parts.easy, parts.hard, np.log(parts.phantom) - np.log(parts.real)
    easy, hard, ratio = (value - value.mean(axis=-1, keepdims=True) for value in values)
    x = np.stack([easy, hard], axis=-2)
    return np.moveaxis(np.linalg.solve(x @ x.swapaxes(-1, -2), x @ ratio[..., None])[..., 0], -1, 0)


def head_change(parts: Decomposition) -> np.ndarray:
    """1 - w~_i / w_i in the mean over the batches of a net, (2, ...): what equation (6) gives for `log_ratio_slopes`
    where weights are small."""
    return 1 - np.stack([parts.easy_rate, parts.hard_rate]).mean(axis=-1)


def half_phantom(parts: Decomposition) -> tuple[np.ndarray, np.ndarray]:
    """Importance weights (..., n) where only w_e, and where only w_h, is moved to the phantom."""
    easy, hard = parts.easy_rate * parts.easy, parts.hard_rate * parts.hard
    return expit(-(easy + parts.hard)), expit(-(parts.easy + hard))


class Effects(NamedTuple):
    """What the claims are judged by, each (2, net, checkpoint, seed): of real and of phantom weights, of the slopes the
    easy and the hard one."""

    even: np.ndarray  # Gini coefficients of the weights
    carried: np.ndarray  # share of all importance in the group of `carried_share`
    easy: np.ndarray  # the same in the quarter that this feature fits worst
    hard: np.ndarray
    slopes: np.ndarray  # see `log_ratio_slopes`

    def since(self, first: int) -> Self:
        """The effects from the checkpoint of index `first` on."""
        return type(self)(*(effect[:, :, first:] for effect in self))

    @property
    def changes(self) -> dict[str, np.ndarray]:
        """What the phantom changes in each net, for `checks_c4`, (net, checkpoint, seed)."""
        shares = {f"share {name}": phantom - real for name, (real, phantom) in zip(GROUPS, self[1:4])}
        return shares | {f"slope {feature}": slope for feature, slope in zip(FEATURES, self.slopes)}


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
    between = f"{title}Gini coefficient, SGD-trained real minus {trained}-trained phantom, above 0"
    return [
        weakest(
            f"{title}Gini coefficient, real minus phantom of a net, above 0", even[0] - even[1], +1, EVEN, main, reduced
        ),
        weakest(between, even[0, 0] - even[1, 1], +1, EVEN, reduced=reduced),
    ]


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


def lorenz(columns: Mapping[str, Decomposition], names: Sequence[str]) -> Figure:
    """Figures 3 and 7: Lorenz curves of real and phantom weights, a row for each net of `names`, and the mean Gini
    coefficients, real above phantom; `columns`: title -> (net, seed, n)."""
    fig, axes = style.panels(names, list(columns), 1.6 if len(columns) > 2 else 2.4, sharex=True, sharey=True)
    for net, (row, (colour, _)) in enumerate(zip(axes, NETS.values())):
        for panel, parts in zip(row, columns.values()):
            coefficients = []
            for kind, line in KINDS.items():
                fractions, shares = lorenz_curve(getattr(parts, kind)[net])
                style.line(panel, fractions, shares.T, colour, linestyle=line, linewidth=1.5)
                coefficients.append(f"{gini(getattr(parts, kind)[net]).mean():.2f}")
            panel.plot([0, 1], [0, 1], color=style.GREY, linewidth=0.7, linestyle=":")
            panel.text(0.96, 0.06, "\n".join(coefficients), ha="right", fontsize=7.5, transform=panel.transAxes)
            panel.set(xlim=(0, 1), ylim=(0, 1.01), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
            for axis in (panel.xaxis, panel.yaxis):
                axis.set_major_formatter(PercentFormatter(1, 0, symbol=""))
    fig.supxlabel("% of points, heaviest first", fontsize=9)
    looks = {label: {"color": style.GREY, "linestyle": line} for label, line in zip(style.WEIGHTS, KINDS.values())}
    style.legend(fig, looks, loc="outside upper center", ncols=2)
    return fig


def weight_maps(columns: Mapping[str, Decomposition], bins: int = 12, floor: float = 1e-10) -> Figure:
    """Figures 5 and 8: median real and phantom weights and their ratio by both contributions, a column for each title
    -> net (seed, n), pooled over seeds; ratios are over their median in the same seed. The edges leave out 0.5 % of the
    points at each end of either contribution. Weights below `floor` share a colour; a map of ratios has a scale of its
    own, written below."""
    maps = {}
    for title, parts in columns.items():
        places = parts.easy.ravel(), parts.hard.ravel()
        edges = [np.linspace(*np.quantile(place, [0.005, 0.995]), bins + 1) for place in places]
        ratio = parts.phantom / parts.real
        weights = parts.real, parts.phantom, ratio / np.median(ratio, axis=-1, keepdims=True)
        maps[title] = [weight_map(*places, one.ravel(), *edges) for one in weights]
    return draw_maps(maps, floor, EASY, HARD)


def draw_maps(columns: Mapping[str, Sequence[WeightMap]], floor: float, easy: str, hard: str) -> Figure:
    """What `weight_maps` shows, of maps of real and phantom weights and of their ratio; `easy`, `hard`: the axes."""
    fig, axes = style.panels(style.WEIGHTS, list(columns), 1.2)
    for column, maps in zip(axes.T, columns.values()):
        real, phantom, ratio = (np.where(one.count >= LEAST, one.median, np.nan) for one in maps)
        bound = float(np.nanquantile(np.abs(np.log10(ratio)), 0.95))  # decades that hold 95 % of the bins
        looks = [(weights, LogNorm(floor, 1), "viridis") for weights in (real, phantom)]
        looks.append((np.log10(ratio), Normalize(-bound, bound), style.DIVERGING))
        for panel, one, (values, norm, cmap) in zip(column, maps, looks):
            panel.set_facecolor("#EFEFEF")
            panel.pcolormesh(one.easy_edges, one.hard_edges, values.T, norm=norm, cmap=cmap)
            panel.axhline(0, color="black", linewidth=0.7, linestyle=(0, (1, 2)))
            panel.tick_params(labelsize=6.5, length=2, pad=1, labelbottom=panel is column[2])
            panel.xaxis.set_major_locator(MaxNLocator(2))
            panel.yaxis.set_major_locator(MaxNLocator(3))
        factor = f"{10**bound:.2g}" if bound < 2 else f"10^{{{bound:.1f}}}"
        column[2].set_xlabel(rf"× or ÷ ${factor}$", fontsize=7.5, labelpad=1)
    ends = {"median weight": ("min", axes[:2], None), "less   more": ("both", axes[2], [])}
    for label, (extend, beside, ticks) in ends.items():
        mesh, look = beside.flat[0].collections[0], {"pad": 0.015, "fraction": 0.05, "aspect": 15 * beside.ndim}
        bar = fig.colorbar(mesh, ax=beside, extend=extend, ticks=ticks, **look)
        bar.set_label(label, fontsize=8.5)
        bar.ax.tick_params(labelsize=7.5)
    fig.supxlabel(easy, fontsize=9)
    fig.supylabel(hard, fontsize=9)
    return fig


def effects_through_training(settings: Mapping[str, tuple[Decomposition, Effects, Sequence[int]]]) -> Figure:
    """A row for each title -> nets, their effects and epochs: what share the groups of C4 gain, and slopes, at each
    checkpoint (slopes after the start, where both contributions are near zero); and Gini coefficients against the mean
    weight, which falls as training goes on."""
    titles = "share gained by a group", "slope of the log ratio", "Gini coefficient"
    fig, axes = style.panels(list(settings), titles, 2.5)
    for row, (parts, found, epochs) in zip(axes, settings.values()):
        began = int(epochs[0] == 0)
        looks = [(colour, marker) for _, colour in GROUPS.values() for _, marker in NETS.values()]
        every = list(product(GROUPS, enumerate(NETS)))
        shares = {f"{GROUPS[group][0]}, {name}": found.changes[f"share {group}"][net] for group, (net, name) in every}
        slopes = {f"{of}, {name}": found.changes[f"slope {of}"][net, began:] for of, (net, name) in every[2:]}
        style.lines(row[0], epochs, shares, looks, **LINE)
        style.lines(row[1], epochs[began:], slopes, looks[2:], **LINE)
        for (net, (name, look)), (k, kind) in product(enumerate(NETS.items()), enumerate(KINDS)):
            mean = np.exp(np.log(getattr(parts, kind)[net].mean(axis=-1)).mean(axis=-1))
            dressed = dict(zip(("color", "marker"), look), linestyle=KINDS[kind], label=f"{name}, {kind}", **LINE)
            row[2].plot(mean, found.even[k, net].mean(axis=-1), **dressed)
        for panel in row[:2]:
            panel.set_xscale("symlog", linthresh=1, linscale=0.4)
            panel.set(xlabel="epoch", xlim=(-0.08, 1.15 * epochs[-1]))
            style.plain(panel.xaxis, ticks=[tick for tick in (0, 1, 10, 100) if tick <= epochs[-1]])
            panel.axhline(0, color=style.GREY, linewidth=0.7)
        row[2].set(xscale="log", xlabel="mean weight")
        row[2].xaxis.set_minor_formatter("")
    axes[0, 0].set_ylim(bottom=1.8 * axes[0, 0].get_ylim()[0])  # room for the legend
    axes[0, 0].legend(loc="lower right", **SMALL)
    axes[0, 2].legend(loc="lower left", **SMALL)
    return fig
