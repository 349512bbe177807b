"""Chapter 16, natural images (Table 1, Figures 3, 5, 7 and 8): what C7, C3 and C4 judge there, by the rules of chapters
7 and 5, and figures."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import gmean

from book import mechanism, protocols, real_data, style
from book.claims import Check
from book.protocols import METHODS, Result, spread
from book.real_data import COLOURS, LINES
from lib.importance import WeightMap

MARKERS = {"sgd": "o", "sam": "s"}


def checks_c7(results: Mapping[str, Result | None]) -> list[Check]:
    """C7 on the paper's natural sets and, where they were run, on CelebA's other pairs of attributes."""
    others = [pair.name for pair in protocols.OTHER_PAIRS if results.get(pair.name)]
    return real_data.checks_c7({name: results.get(name) for name in (*protocols.FULL, *others)})


def changes(result: Result, epoch: int | None = None, reading: str = "label") -> dict[str, np.ndarray]:
    """What the phantom changes for each feature after `epoch` (None: the last one), (net, seed), with contributions
    signed by "label" or by "attribute", see `lib.measure`: of ``share easy`` and ``share hard``, the share of all
    importance that the worst-fitted quarter holds, the difference; ``slope easy`` and ``slope hard``, of the log ratio
    on the contributions."""
    found, measured = {}, result.measured(epoch).values()
    for kind, attribute in zip(("easy", "hard"), result.features):
        nets = [[one["contributions"][reading]["attributes"][attribute] for one in net] for net in measured]
        shares = [[one["worst_share"]["phantom"] - one["worst_share"]["real"] for one in net] for net in nets]
        found[f"share {kind}"] = np.array(shares)
        found[f"slope {kind}"] = np.array([[one["slope"] for one in net] for net in nets])
    return found


def _named(result: Result) -> tuple[str, bool, bool]:
    """How checks of a set begin, whether the first is a main one (on the paper's pair), and whether it is reduced."""
    return f"{result.title}: ", result.title == protocols.TITLES["celeba"], bool(result.lacking)


def checks_c3(results: Iterable[Result]) -> list[Check]:
    """C3 at the end of training, by the rule of chapter 5."""
    return [check for one in results for check in mechanism.checks_c3(real_data.gini(one), "SAM", *_named(one))]


def checks_c4(results: Iterable[Result]) -> list[Check]:
    """C4 at the end of training, by the rule of chapter 5 without the slopes by themselves; its main check there needs
    what is not in the stored records."""
    found = [check for one in results for check in mechanism.checks_c4(changes(one), *_named(one)) if not check.trivial]
    return [*found, Check(f"natural sets: {mechanism.WHICH['share carried'][0]}")]


def rows_of_which(result: Result, reading: str) -> dict[str, dict[str, str]]:
    """What C4 is about at every moment, see `changes`, mean ± standard deviation over seeds."""
    rows = {}
    for epoch in result.protocol.moments:
        changed = changes(result, epoch, reading).items()
        for net, name in enumerate(("SGD", "SAM")):
            rows[f"{result.title}, {name}, epoch {epoch}"] = {what: spread(values[net], 3) for what, values in changed}
    return rows


def along_contributions(results: Sequence[Result], *of: str) -> Figure:
    """Figure 5 feature by feature, at the end of training: medians of the "real" or "phantom" weights, or of their
    "ratio" over its own, along the contribution of either feature, signed by the label, in bins of equally many images
    from the worst fitted to the best; geometric mean and range over seeds."""
    shown = [(result, *kind) for result in results for kind in zip(("easy", "hard"), result.features)]
    fig, grid = style.grid(len(shown), 4, 2.4, sharex=True, sharey="row")
    for (result, kind, attribute), ax in zip(shown, grid.flat):
        for (method, net), point in product(result.measured().items(), of):
            bins = [one["contributions"]["label"]["attributes"][attribute]["bins"][point] for one in net]
            places = (np.arange(len(bins[0])) + 0.5) / len(bins[0])
            style.band(ax, places, np.min(bins, axis=0), np.max(bins, axis=0), COLOURS[method], alpha=0.14)
            look = {
                "color": COLOURS[method],
                "marker": MARKERS[method],
                "ms": 3,
                "lw": 1.5,
                "ls": LINES.get(point, "-"),
            }
            ax.plot(places, gmean(bins), label=f"{METHODS[method]} net" + f", {point}" * (len(of) > 1), **look)
        ax.set(yscale="log", xlim=(0, 1), xticks=[0, 1], xticklabels=["worst\nfitted", "best\nfitted"])
        ax.set_title(f"{result.title.removeprefix('CelebA, ')}:\n{attribute} ({kind})", fontsize=6.8)
        if of == ("ratio",):
            ax.axhline(1, color=style.GREY, lw=0.7)
    plt.setp(grid[:, 0], ylabel="phantom / real" if of == ("ratio",) else "median weight")
    fig.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return fig


def weight_maps(result: Result, seed: int = 0) -> Figure:
    """Figures 5 and 8 on one data set: the median real and phantom weight and their ratio, over its median, by the
    contributions of both features, signed by the label; a column for each moment of SGD's and of SAM's net of one seed
    (its place among the seeds that both finished)."""
    columns = {
        f"{METHODS[method]} net,\nepoch {epoch}": _maps(result.measured(epoch)[method][seed], result.features)
        for method, epoch in product(("sgd", "sam"), result.protocol.moments)
    }
    axes = (f"signed contribution of the {kind} feature, {of}" for kind, of in zip(("easy", "hard"), result.features))
    fig = mechanism.draw_maps(columns, 1e-8, *axes)
    for ax in fig.axes[: 3 * len(columns)]:
        ax.axvline(0, color="black", lw=0.7, ls=(0, (1, 2)))
    return fig


def _maps(metrics: Mapping, features: tuple[str, str]) -> list[WeightMap]:
    """The maps of real and phantom weight and of their ratio, as stored, with the easy feature first."""
    found = metrics["contributions"]["label"]["map"]
    easy, hard = map(found["attributes"].index, features)
    count, *medians = (np.array(found[name], dtype=float) for name in ("images", "real", "phantom", "ratio"))
    edges = [np.array(found["edges"][axis]) for axis in (easy, hard)]
    return [WeightMap(median.transpose(easy, hard), count.transpose(easy, hard), *edges) for median in medians]
