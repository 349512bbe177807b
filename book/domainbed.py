"""Chapter 8, Table 2 (DomainBed): the paper's numbers, ours beside them, the rule of C8, and the figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from book import protocols, style
from book.claims import Check, weakest
from book.protocols import MARGIN, NOT_RUN, Protocol, Result
from lib import resnet
from lib.data.domains import BENCHMARKS
from lib.stats import estimate
from lib.trials.images import ImageTrial, domain
from lib.trials.store import Store

TITLES = {"office_home": "OfficeHome", "pacs": "PACS", "vlcs": "VLCS"}
# Accuracy of a linear probe on the target domain, after SGD and after SAM (Table 2 of the paper).
PUBLISHED: dict[str, dict[str, tuple[float, float]]] = {
    "office_home": {"A": (0.687, 0.709), "C": (0.716, 0.745), "P": (0.853, 0.858), "R": (0.777, 0.784)},
    "pacs": {"A": (0.910, 0.914), "C": (0.897, 0.921), "P": (0.955, 0.964), "S": (0.893, 0.908)},
    "vlcs": {"C": (0.993, 0.996), "L": (0.736, 0.748), "S": (0.748, 0.776), "V": (0.812, 0.830)},
}
TARGETS = [(benchmark, target) for benchmark, rows in PUBLISHED.items() for target in rows]
Target = tuple[str, str]  # benchmark and letter of the domain that is left out

RADII = (0.03, 0.05, 0.1)  # by a second-hand source
# Two learning rates, two epochs, small images, ImageNet's weights as far as their third stage.
REDUCED = {"rates": (0.001, 0.01), "radii": RADII, "epochs": 2, "size": 64, "weights": protocols.REDUCED_WEIGHTS}
REDUCED_SEEDS = 8


def sweeps(
    benchmark: str = "all",
    rates: Sequence[float] = protocols.RATES,
    radii: Sequence[float] = RADII,
    *,
    size: int = 224,
    weights: str = resnet.IMAGENET,
    **settings: Any,
) -> dict[Target, Protocol]:
    """A sweep for every target of `benchmark` ("all": of all three); the defaults are the paper's protocol, with the
    learning rates of CelebA and a size of the images chosen here, as the text is silent."""
    settings |= {"size": size, "weights": weights}
    chosen = [key for key in TARGETS if benchmark in (key[0], "all")]
    return {key: Protocol(domain(*key, "sgd", **settings), tuple(rates), tuple(radii)) for key in chosen}


def trials(chosen: Mapping[Target, Protocol], store: Store, seeds: int) -> list[ImageTrial]:
    """The untrained net, SGD and SAM on every target whose sweep has selected a setting, paired by seed."""
    found: list[ImageTrial] = []
    for protocol in chosen.values():
        if settings := protocols.selected(protocol, store):
            found += protocols.comparison(protocol, settings, seeds)
    return found


def stored(chosen: Mapping[Target, Protocol], store: Store, seeds: int) -> dict[Target, Result]:
    """The targets of which SGD and SAM finished on two seeds or more."""
    whole = sweeps()
    found = {key: protocols.stored(one, store, seeds, whole[key], partial=True) for key, one in chosen.items()}
    return {key: result for key, result in found.items() if result is not None and len(gain(result)) > 1}


def gain(result: Result) -> pd.Series:
    """SGD's probing error less SAM's, by the seeds that both finished."""
    if not {"sgd", "sam"} <= set(result.table.method):
        return pd.Series(dtype=float)
    return (result.errors["sgd", "class"] - result.errors["sam", "class"]).dropna()


def mean_gain(gains: Mapping[Target, pd.Series], benchmark: str) -> np.ndarray:
    """The mean of `gain` over the targets of a benchmark, over the seeds that all of them share."""
    return (
        pd.DataFrame({key: one for key, one in gains.items() if key[0] == benchmark}).dropna().mean(axis=1).to_numpy()
    )


def name(benchmark: str, target: str) -> str:
    """A target domain as a row is called."""
    return f"{TITLES[benchmark]}, {BENCHMARKS[benchmark].domains[target].replace('_', ' ')}"


def checks(gains: Mapping[Target, pd.Series], reduced: bool) -> list[Check]:
    """C8, of `gain`: SGD's probing error less SAM's is above 0 on each of the twelve targets and, which are the main
    checks, in the mean over the four of each benchmark. Not run where there are no trials, of the mean on any of four.
    """
    found = []
    for benchmark, letters in PUBLISHED.items():
        what, keys = "probing error of SGD less SAM's above 0", [(benchmark, letter) for letter in letters]
        over = f"{TITLES[benchmark]}, mean over its targets: {what}"
        if gains.keys() >= set(keys):
            found.append(weakest(over, mean_gain(gains, benchmark), +1, MARGIN, True, reduced))
        else:
            found.append(Check(over, main=True))
        for key in keys:
            words = f"{name(*key)}: {what}"
            found.append(weakest(words, gains[key], +1, MARGIN, reduced=reduced) if key in gains else Check(words))
    return found


def rows(results: Mapping[Target, Result]) -> dict[str, dict[str, str]]:
    """The table in per cent of accuracy: the paper's SGD and SAM, ours as mean ± standard deviation over seeds, and
    both gains, ours with its 95 % interval."""
    found = {}
    for key in TARGETS:
        sgd, sam = PUBLISHED[key[0]][key[1]]
        own = {"before training": "", "SGD": NOT_RUN, "SAM": NOT_RUN, "gain": ""}
        if result := results.get(key):
            accuracy = 100 * (1 - result.errors.xs("class", axis=1, level="measure"))
            own = {protocols.METHODS[method]: protocols.spread(accuracy[method], 1) for method in accuracy}
            own["gain"] = protocols.interval(100 * gain(result), 1)
        paper = {"paper: SGD": f"{100 * sgd:.1f}", "SAM": f"{100 * sam:.1f}", "gain": f"{100 * (sam - sgd):.1f}"}
        labels = "before training", "SGD", "SAM", "gain"
        found[name(*key)] = paper | {f"here: {label}": own.get(label, "") for label in labels}
    return found


def numbers(results: Mapping[Target, Result]) -> dict[str, str]:
    """What the prose quotes: on how many targets our interval lies above and below 0, from where to where the gains go,
    their mean over the targets with its interval over seeds, in points; and on how many the probe does worse after
    training than before it."""
    gains = [100 * gain(result) for result in results.values()]
    if not gains:
        return dict.fromkeys(("run", "above", "below", "lowest", "highest", "mean", "seeds", "sgd", "sam"), NOT_RUN)
    effects, seeds = [estimate(values) for values in gains], min(map(len, gains))
    errors = [result.errors.xs("class", axis=1, level="measure").mean() for result in results.values()]
    return {
        "run": str(len(gains)),
        "above": str(sum(effect.low > 0 for effect in effects)),
        "below": str(sum(effect.high < 0 for effect in effects)),
        "lowest": f"{min(effect.mean for effect in effects):.1f}",
        "highest": f"{max(effect.mean for effect in effects):.1f}",
        "mean": protocols.interval(np.mean([values[:seeds] for values in gains], axis=0)),
        "seeds": str(seeds),
        **{method: str(sum(one[method] > one.get("untrained", np.inf) for one in errors)) for method in ("sgd", "sam")},
    }


def figure(results: Mapping[Target, Result]) -> Figure:
    """One line a target domain: SAM's gain in probe accuracy over SGD, in percentage points; the paper's (hollow) and
    ours with its 95 % interval, where there is one."""
    fig, ax = plt.subplots(figsize=(style.PAGE_WIDTH, 0.9 + 0.3 * len(TARGETS)))
    paper = [100 * (sam - sgd) for rows in PUBLISHED.values() for sgd, sam in rows.values()]
    ax.plot(paper, range(len(paper)), "o", ms=6, mfc="none", mec=style.GREY, mew=1.4, label="the paper")
    effects = {TARGETS.index(key): estimate(100 * gain(result)) for key, result in results.items()}
    if effects:
        style.whiskers(
            ax, list(effects.values()), list(effects), style.SAM, "D", markersize=5, linewidth=1.4, label="here"
        )
    for place in range(1, len(TARGETS)):
        if TARGETS[place][0] != TARGETS[place - 1][0]:
            ax.axhline(place - 0.5, color=style.GREY, lw=0.5)
    ax.axvline(0, color="black", lw=0.6)
    ax.set(yticks=range(len(TARGETS)), yticklabels=[name(*key) for key in TARGETS], ylim=(len(TARGETS) - 0.4, -0.6))
    ax.set_xlabel("gain of SAM over SGD in the probe's accuracy (points)")
    ax.tick_params(axis="y", length=0)
    fig.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return fig
