"""Chapter 8, Table 2 (DomainBed): the paper's numbers, ours beside them, the rule of C8, and the figure."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from book import protocols, real_data, style
from book.claims import MARGIN, Check, weakest
from book.image_trial import domain
from book.protocols import NOT_RUN, Protocol, Result
from lib import resnet
from lib.data.domains import BENCHMARKS
from lib.stats import estimate
from lib.trials.store import Store
from lib.trials.trial import Place

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
# Learning rates and settings of the trials. The paper's protocol with the learning rates of CelebA and a size of the
# images chosen here, as the text is silent; and a short one, with ImageNet's weights as far as their third stage.
PROTOCOLS: dict[str, tuple[tuple[float, ...], dict[str, Any]]] = {
    "reduced": ((0.001, 0.01), {"epochs": 2, "size": 64, "weights": protocols.REDUCED_WEIGHTS}),
    "full": (protocols.RATES, {"size": 224, "weights": resnet.IMAGENET}),
}


def sweeps(benchmark: str = "all", protocol: str = "reduced") -> dict[Target, Protocol]:
    """A sweep for every target of `benchmark` ("all": of all three), by one of PROTOCOLS."""
    rates, settings = PROTOCOLS[protocol]
    chosen = [key for key in TARGETS if benchmark in (key[0], "all")]
    return {key: Protocol(domain(*key, "sgd", **settings), rates, RADII) for key in chosen}


def results(
    chosen: Mapping[Target, Protocol], store: Store, seeds: int, place: Place | None = None, **own: Any
) -> dict[Target, Result]:
    """The targets of which SGD and SAM finished on two seeds or more, see `protocols.result`."""
    full = sweeps(protocol="full")
    found = {key: protocols.result(one, store, seeds, place, full[key], **own) for key, one in chosen.items()}
    return {key: one for key, one in found.items() if one}


def mean(by_target: Iterable[pd.Series]) -> np.ndarray:
    """The mean over targets of values by seed, over the seeds that all of them share."""
    return pd.concat(by_target, axis=1).dropna().mean(axis=1).to_numpy()


def name(benchmark: str, target: str) -> str:
    """A target domain as a row is called."""
    return f"{TITLES[benchmark]}, {BENCHMARKS[benchmark][target].replace('_', ' ')}"


def checks(results: Mapping[Target, Result]) -> list[Check]:
    """C8: SGD's probing error less SAM's is above 0 on each target and, which are the main checks, in the mean over the
    four of each benchmark, not run where one is missing."""
    found = []
    for benchmark, letters in PUBLISHED.items():
        keys = [(benchmark, letter) for letter in letters]
        for of in (keys, *([key] for key in keys if key in results)):
            words = name(*of[0]) if of is not keys else f"{TITLES[benchmark]}, mean over its targets"
            part = Check(f"{words}: probing error of SGD less SAM's above 0", main=of is keys)
            if results.keys() >= set(of):
                gained = mean(results[key].gains("class") for key in of)
                reduced = any(results[key].lacking for key in of)
                part = weakest(part.what, gained, +1, MARGIN, part.main, reduced)
            found.append(part)
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
            own |= {protocols.METHODS[method]: protocols.spread(accuracy[method], 1) for method in accuracy}
            own["gain"] = protocols.interval(100 * result.gains("class"), 1)
        paper = {"paper: SGD": f"{100 * sgd:.1f}", "SAM": f"{100 * sam:.1f}", "gain": f"{100 * (sam - sgd):.1f}"}
        found[name(*key)] = paper | {f"here: {label}": words for label, words in own.items()}
    return found


def rows_of_sweep(results: Mapping[Target, Result]) -> dict[str, dict[str, str]]:
    """The sweep on seed 0 in per cent: the error on the validation images of the sources, which selects, and the
    probe's on the target, which has no part in it."""
    found: dict[str, dict[str, str]] = {}
    for key, result in results.items():
        nets = protocols.nets(result.sweep).set_index(["lr", "rho"]).reindex(columns=["validation error", "class"])
        for (lr, rho), *errors in (100 * nets.sort_index()).itertuples():
            radius = f"rho {rho:g}" if rho else "SGD"
            found.setdefault(f"{name(*key)}, learning rate {lr:g}", {})[radius] = "{:.1f}, {:.1f}".format(*errors)
    return found or {"": {"here": NOT_RUN}}


def numbers(results: Mapping[Target, Result]) -> dict[str, str]:
    """What the prose quotes: on how many targets there are results, and of how many seeds; in points, the mean over
    them of SAM's gain, and of what the probe loses through SGD's and through SAM's training, with intervals over seeds;
    the settings, and what the runs lack."""
    if not results:
        return dict.fromkeys(("run", "seeds", "mean", "sgd", "sam", "settings", "lacking"), NOT_RUN)
    gained, lost = ([100 * one.gains("class", of) for one in results.values()] for of in ("sam", "untrained"))
    lacking = dict.fromkeys(words for one in results.values() for words in one.lacking)
    return {
        "run": str(len(results)),
        "seeds": str(min(map(len, gained))),
        "mean": protocols.interval(mean(gained), 1),
        "sgd": protocols.interval(mean(lost), 1),
        "sam": protocols.interval(mean(a - b for a, b in zip(lost, gained)), 1),
        "settings": "; ".join(sorted({protocols.chosen(one) for one in results.values()})),
        "lacking": ", ".join(lacking) or "the whole protocol",
    }


def figure(results: Mapping[Target, Result]) -> Figure:
    """One line a target domain: SAM's gain in probe accuracy over SGD, in percentage points; the paper's (hollow) and
    ours with its 95 % interval, where there is one."""
    fig, ax = real_data.rows_of_gains(
        [name(*key) for key in TARGETS], "gain of SAM over SGD in the probe's accuracy (points)"
    )
    paper = [100 * (sam - sgd) for rows in PUBLISHED.values() for sgd, sam in rows.values()]
    ax.plot(paper, range(len(paper)), "o", ms=6, mfc="none", mec=style.GREY, mew=1.4, label="the paper")
    effects = {TARGETS.index(key): estimate(100 * result.gains("class")) for key, result in results.items()}
    if effects:
        style.whiskers(ax, list(effects.values()), list(effects), style.SAM, "D", markersize=5, label="here")
    fig.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return fig
