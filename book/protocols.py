"""What the chapters on images share: which trials are run, what validation data select, and results by data set with
what they lack of the paper's protocol."""

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import count, product
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from book import compute
from book.image_trial import ImageTrial, grouped, paired
from book.plan import Plan
from book.weight_trial import WeightTrial
from lib import stats
from lib.data import domains, groups
from lib.data.groups import Groups
from lib.trials import run
from lib.trials.store import Store
from lib.trials.trial import MissingTrials, Place, Trial

METHODS = {"untrained": "before training", "sgd": "SGD", "sam": "SAM", "lsam": "LSAM"}
TITLES = {
    "cifar-mnist": "CIFAR-MNIST",
    "fmnist-mnist": "FMNIST-MNIST",
    "celeba": "CelebA, hair and gender",
    "waterbirds": "Waterbirds",
    "birds_on_scenes": "birds on scenes",
    "celeba Smiling and High_Cheekbones": "CelebA, smiles and cheekbones",
    "celeba Smiling and Mouth_Slightly_Open": "CelebA, smiles and open mouths",
}
NOT_RUN = "not run here"
Settings = dict[str, ImageTrial]  # the setting of each method
Records = list[dict]
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Protocol:
    """A sweep, from whose trials on seed 0 one setting of SGD and one of SAM are chosen for all seeds."""

    base: ImageTrial  # of SGD, seed 0
    rates: tuple[float, ...]
    radii: tuple[float, ...]  # of SAM
    moments: tuple[int, ...] = ()  # epochs after which importance weights are measured
    batches: int | None = None  # how many of them; None: all
    lsam: bool = False  # beyond the paper: LSAM too, at SAM's setting


# The paper's protocol (Appendix B). The size of natural images, and the moments of Figures 7 and 8, are chosen here.
SEEDS = 4
# The book's, as fewer than eight decide nothing.
PAIRED_SEEDS = 20
NATURAL_SEEDS = 8
RATES = (0.0005, 0.001, 0.005, 0.01)
RADII = (0.01, 0.03, 0.05, 0.07, 0.1, 0.2)  # of SAM on the paired sets
PAIRED = {
    name: Protocol(paired(name, "sgd"), (0.01, 0.05, 0.1), RADII, moments=(20,), lsam=True)
    for name in ("cifar-mnist", "fmnist-mnist")
}
FULL = {
    name: Protocol(grouped(name, "sgd", epochs=moments[-1], size=size), RATES, (0.01, 0.02, 0.05, 0.07), moments)
    for name, size, moments in (("celeba", 112, (1, 5, 10, 20)), ("waterbirds", 224, (1, 10, 50, 100)))
}
TABLE_1 = PAIRED | FULL
# What two cores of a CPU can do: few epochs, a coarse sweep, 64 pixels, ImageNet's weights up to layer3 only, and the
# importance weights of 8 batches of 128 images.
REDUCED_WEIGHTS = "resnet18_imagenet_to_layer3.pt"
# Of CelebA's pairs of attributes the two most strongly correlated ones whose rarest group has 300 of the images or more
# and whose probes are tested on 300 or more; chosen by these counts, before any result.
OTHER_PAIRS = (Groups("celeba", ("Smiling", "High_Cheekbones")), Groups("celeba", ("Smiling", "Mouth_Slightly_Open")))
REDUCED = {
    source.name: Protocol(
        grouped(source, "sgd", epochs=n, weights=REDUCED_WEIGHTS), (0.001, 0.01), (0.02, 0.07), (1, n), 8
    )
    for source, n in ((Groups("celeba"), 2), (Groups("birds_on_scenes"), 4), *((pair, 2) for pair in OTHER_PAIRS))
}
NATURAL = {"reduced": REDUCED, "full": FULL}


def on_seeds(trials: Collection[ImageTrial], seeds: int) -> list[ImageTrial]:
    """The trials with seeds 0, 1, ...: paired by seed."""
    return [replace(trial, seed=seed) for seed in range(seeds) for trial in trials]


def grid(protocol: Protocol, seed: int = 0) -> list[ImageTrial]:
    """The sweep: every learning rate with SGD and with SAM at every radius, on seed 0, where it selects, or another."""
    pairs = product(protocol.rates, (0.0, *protocol.radii))
    return [replace(protocol.base, lr=lr, rho=rho, method="sam" if rho else "sgd", seed=seed) for lr, rho in pairs]


def selected(protocol: Protocol, store: Store) -> Settings | None:
    """The setting chosen for each method by the validation data of seed 0, see `best`; None while the sweep is not
    complete. A single setting needs no record. Raises ValueError where all trials of a method diverged."""
    sweep = grid(protocol)
    if len(sweep) > 2:
        records = there(sweep, store)
        if len(records) < len(sweep):
            return None
        chosen = [*best(nets(records))[["lr", "rho"]].itertuples(index=False, name=None)]
        for lost in {trial.method for trial in sweep} - {"sam" if rho else "sgd" for _, rho in chosen}:
            raise ValueError(f"sweep must hold a trial that finished, and all of {lost} diverged: {sweep[0].data.name}")
        sweep = [trial for trial in sweep if (trial.lr, trial.rho) in chosen]
    settings = {trial.method: trial for trial in sorted(sweep, key=lambda trial: trial.rho)}
    return settings | ({"lsam": replace(settings["sam"], method="lsam")} if protocol.lsam else {})


def best(nets: pd.DataFrame, by: Sequence[str] = ("validation error", "validation loss")) -> pd.DataFrame:
    """Of `nets` that of each method and seed with the lowest value in the first of the columns `by`, of equal ones in
    the second: so few images are told wrongly that many settings tie."""
    return nets.sort_values([*by]).drop_duplicates(["method", "seed"])


def comparison(protocol: Protocol, settings: Settings, seeds: int) -> list[ImageTrial]:
    """The untrained net and every method at its setting."""
    return on_seeds([replace(protocol.base, epochs=0), *settings.values()], seeds)


def weight_trials(protocol: Protocol, settings: Settings, seeds: int) -> list[WeightTrial]:
    """Importance weights of the nets of SGD and SAM on each seed, at SAM's radius, at the protocol's moments."""
    nets, rho = on_seeds([settings["sgd"], settings["sam"]], seeds), settings["sam"].rho
    moments = ((net, epoch) for net in nets for epoch in protocol.moments if epoch <= net.epochs)
    return [WeightTrial(net, rho, epoch, batches=protocol.batches) for net, epoch in moments]


def plan(protocols: Iterable[Protocol], store: Store, seeds: int = SEEDS) -> Plan:
    """All trials that are known by now: every sweep, then what it selects on every seed, and the weights of these nets,
    those within a training before the whole training, which goes on from there."""
    trials: list[Trial] = []
    later = 0
    for protocol in protocols:
        trials += grid(protocol)
        settings = selected(protocol, store)
        if settings is None:  # the sweep has SGD's and SAM's nets of seed 0
            later += seeds * (3 + protocol.lsam + 2 * len(protocol.moments)) - 2
            continue
        measured = weight_trials(protocol, settings, seeds)
        trials += [trial for trial in measured if trial.epoch is not None]
        trials += sorted(comparison(protocol, settings, seeds), key=lambda trial: trial.epochs > 0)
        trials += [trial for trial in measured if trial.epoch is None]
    return Plan(tuple(dict.fromkeys(trials)), later)


def training_images(configuration: Mapping[str, Any]) -> int:
    """How many images for training the complete natural set of a trial's configuration has."""
    if configuration["experiment"] == "groups":
        return sum(groups.COUNTS[configuration["dataset"]][0])
    counts = dict(zip(*(of[configuration["benchmark"]] for of in (domains.BENCHMARKS, domains.COUNTS))))
    sources = sum(counts.values()) - counts[configuration["target"]]
    return sources - round(sources * domains.VALIDATION_SHARE)


def table(records: Iterable[dict]) -> pd.DataFrame:
    """The finished trials' errors, a row each: method (at 0 epochs ``untrained``), lr, rho, seed, measure, error and of
    how many examples (None where it is weighted).

    `measure` is ``validation error``, ``validation loss``, ``test``, ``worst group`` (the highest test error of a
    group), the attribute of a probing error, or ``answer`` and the attribute that the net's own answer is held against
    on the balanced test images.
    """
    rows: list[dict] = []
    for record in (record for record in records if record["status"] == "finished"):
        trial, metrics = record["configuration"], record["metrics"]
        setting = {name: trial[name] for name in ("method", "lr", "rho", "seed")}
        setting |= {} if trial["epochs"] else {"method": "untrained"}
        rates = {f"validation {of}": {"error": metrics.get(f"validation_{of}")} for of in ("error", "loss")}
        rates["test"] = test = metrics.get("test_error", {})
        rates |= {"worst group": {"error": test.get("worst_group_error")}, **metrics["probing_error"]}
        rates |= {f"answer {name}": rate for name, rate in metrics.get("classifier_error", {}).items()}
        for measure, rate in rates.items():
            if rate.get("error") is not None:
                rows.append(setting | {"measure": measure, "error": rate["error"], "examples": rate.get("examples")})
    return pd.DataFrame(rows, columns=["method", "lr", "rho", "seed", "measure", "error", "examples"])


def nets(records: Iterable[dict]) -> pd.DataFrame:
    """The finished trials, a row each: method, lr, rho, seed, and the errors of `table` by measure."""
    settings = ["method", "lr", "rho", "seed"]
    return table(records).pivot(index=settings, columns="measure", values="error").reset_index()


@dataclass(frozen=True, eq=False)
class Result:
    """A data set at the settings that were chosen for it, on every seed: stored records of its trials."""

    protocol: Protocol
    settings: Settings
    records: Records  # of the untrained net and every method
    weights: Records  # of SGD's and SAM's nets, all or none
    sweep: Records  # see `swept`
    lacking: list[str]  # see `shortfalls`

    @property
    def title(self) -> str:
        """The data set as a page writes it."""
        name = self.protocol.base.data.name
        return TITLES.get(name, name)

    @cached_property
    def table(self) -> pd.DataFrame:
        """`table` of the records."""
        return table(self.records)

    @cached_property
    def errors(self) -> pd.DataFrame:
        """Errors by seed, in columns (method, measure); NaN where a trial diverged."""
        return self.table.pivot(index="seed", columns=["method", "measure"], values="error")

    @cached_property
    def features(self) -> tuple[str, str]:
        """The two attributes, the *easy* one first: by the paper's rule that of the lower mean error under SGD."""
        measures = self.table.measure.unique()
        attributes = [name for name in measures if f"answer {name}" in measures]
        easy, hard = sorted(attributes, key=lambda name: self.errors["sgd", name].mean())
        return easy, hard

    @property
    def attributes(self) -> list[tuple[str, str]]:
        """The `features`, each with its kind, "easy" or "hard"."""
        return [*zip(self.features, ("easy", "hard"))]

    def gains(self, measure: str, other: str = "sam") -> pd.Series:
        """SGD's error less that of the `other` method, by the seeds that both finished."""
        errors = self.errors.reindex(columns=[("sgd", measure), (other, measure)])
        return -errors.dropna().diff(axis=1).iloc[:, 1]

    def measured(self, epoch: int | None = None) -> dict[str, list[dict]]:
        """What was measured on SGD's and on SAM's nets after `epoch` (None: the last one), an entry for each seed that
        both finished."""
        wanted, found = None if epoch == self.protocol.base.epochs else epoch, {}
        for record in self.weights:
            if record["configuration"].get("epoch") == wanted and record["status"] == "finished":
                of = record["configuration"]["of"]
                found[of["method"], of["seed"]] = record["metrics"]
        both = sorted(seed for method, seed in found if method == "sgd" and ("sam", seed) in found)
        return {method: [found[method, seed] for seed in both] for method in ("sgd", "sam")}


def result(
    protocol: Protocol,
    store: Store,
    seeds: int = SEEDS,
    place: Place | None = None,
    whole: Protocol | None = None,
    *,
    lr: float = 0.0,
    rho: float = 0.0,
    jobs: int = 1,
    scheduler: str | None = None,
    **changes: Any,
) -> Result | None:
    """What is stored, where SGD and SAM finished on two seeds or more; with a `place` what is missing is computed, see
    `lib.trials.run`, weights where the protocol is whole. None where the sweep that has to select is not complete.

    lr, rho: in place of what the sweep selects, where not 0; `changes` are of other fields. whole: the paper's protocol
    where it is not in TABLE_1. Raises MissingTrials where all nets of a method diverged or images are missing.
    """
    settings = selected(replace(protocol, rates=(lr,), radii=(rho,)) if lr and rho else protocol, store)
    if settings is None:
        return None
    for method, trial in settings.items():
        settings[method] = replace(trial, lr=lr or trial.lr, rho=trial.rho and (rho or trial.rho), **changes)
    own = replace(protocol, base=replace(protocol.base, **changes))
    whole = whole or TABLE_1.get(protocol.base.data.configuration.get("dataset", ""))
    compared, sweep = comparison(own, settings, seeds), swept(protocol, store)
    computed: Any = partial(run, store=store, place=place, jobs=jobs, scheduler=scheduler)
    records = computed(compared) if place else there(compared, store)
    found = Result(protocol, settings, records, [], sweep, [])
    finished = {method: set(nets.seed) for method, nets in found.table.groupby("method")}
    if place and (lost := settings.keys() - finished.keys()):
        raise MissingTrials(f"all nets of {', '.join(sorted(lost))} diverged; take a smaller lr or rho")
    if not place and len(finished.get("sgd", set()) & finished.get("sam", set())) < 2:
        return None
    lacking = shortfalls(found, whole)
    if whole and selected(whole, store) not in (None, settings):
        lacking.append("another setting than the selected one")
    measured = weight_trials(own, settings, seeds)
    weights = computed(measured) if place and not lacking else there(measured, store)
    return replace(found, weights=weights if len(weights) == len(measured) else [], lacking=lacking)


def there(trials: Iterable[Trial], store: Store) -> Records:
    """The records of those trials that are stored."""
    return [record for trial in trials if (record := store.read(trial.configuration)) is not None]


def by_seed(nets: Mapping[Key, ImageTrial], store: Store, seeds: int) -> dict[Key, list[dict | None]]:
    """The record of every net on seeds 0, 1, ..., None where it is not stored."""
    return {key: [store.read(one.configuration) for one in on_seeds([net], seeds)] for key, net in nets.items()}


def probing(records: Mapping[Key, Sequence[dict | None]], sgd: Key) -> dict[Key, pd.DataFrame]:
    """Of `by_seed` the probing errors (seed, attribute), the *hard* one first, which is by the paper's rule that of the
    higher mean error under the net `sgd`; NaN where a net is not stored or diverged. No column where SGD's is not."""
    rates = {
        key: [one["metrics"]["probing_error"] if one and one["metrics"] else {} for one in some]
        for key, some in records.items()
    }
    errors = {
        key: pd.DataFrame([{name: rate["error"] for name, rate in one.items()} for one in some])
        for key, some in rates.items()
    }
    order = errors.get(sgd, pd.DataFrame()).mean().sort_values(ascending=False, kind="stable").index
    return {key: table.reindex(columns=order) for key, table in errors.items()}


def swept(protocol: Protocol, store: Store) -> Records:
    """The stored sweep of seed 0, and of the seeds after it of which the whole sweep is stored."""
    found = there(grid(protocol), store)
    for seed in count(1):
        more = there(grid(protocol, seed), store)
        if len(more) < len(grid(protocol)):
            return found
        found += more


def hardware(records: Iterable[dict]) -> str:
    """On what these records were computed, and how many of them on each."""
    return "; ".join(f"{where} ({number})" for where, number in Counter(map(compute.hardware, records)).most_common())


def shortfalls(result: Result, whole: Protocol | None) -> list[str]:
    """What stands between a result and the paper's `whole` protocol, of how much; without one, what there is. Nothing,
    for data of your own."""
    protocol, records = whole or result.protocol, result.records
    paper = protocol.base.configuration
    if paper["experiment"].startswith("own"):
        return []
    trained = pd.DataFrame([record["configuration"] for record in records if record["configuration"]["epochs"]])
    counts = {"epochs": (trained["epochs"].min(), paper["epochs"])}
    if "size" in paper:
        counts["pixels a side"] = trained["size"].min(), paper["size"]
    counts["settings in the sweep"] = sum(not one["configuration"]["seed"] for one in result.sweep), len(grid(protocol))
    if "size" in paper:  # natural images, of which there may be a part
        counts["training images"] = min(record["images"]["train"] for record in records), training_images(paper)
    words = "{:,} of {:,} {}" if whole else "{0:,} {2}"
    found = [
        words.format(there, all_of, what) for what, (there, all_of) in counts.items() if not whole or there < all_of
    ]
    if (seeds := trained["seed"].nunique()) < SEEDS:
        found.append(f"{seeds} of {SEEDS} seeds")
    if others := set(trained["batch_size"]) - {paper["batch_size"]}:
        found.append(f"batch_size {', '.join(map(str, others))}")
    fresh = sorted({layer for record in records for layer in record.get("weights", {}).get("fresh", ())} - {"fc"})
    return found + ([f"ImageNet's weights but for {' and '.join(fresh)}"] if fresh else [])


def experiment_name(name: str) -> str:
    """What the sweep calls the experiment on a data set, and its folder of results."""
    return name.lower().replace(" and ", " ").replace("_", "-").replace(" ", "-")


def standing(name: str, result: Result | None, kind: str = "") -> str:
    """How a result stands to the paper's protocol, or how to get it."""
    if result is None:
        full = "-full" if kind == "full" and name in FULL else ""
        return f"{NOT_RUN}: python -m book.sweep {experiment_name(name)}{full}"
    short = f"reduced: {', '.join(result.lacking)}" if result.lacking else "the whole protocol"
    return f"{short}; {chosen(result)}"


def chosen(result: Result) -> str:
    """The settings of SGD and SAM."""
    sgd, sam = result.settings["sgd"], result.settings["sam"]
    return f"SGD at learning rate {sgd.lr:g}, SAM at {sam.lr:g} and rho {sam.rho:g}"


def spread(values: np.ndarray | pd.Series, digits: int = 2, kind: str = "f") -> str:
    """Mean ± standard deviation over the seeds that are there; kind "g": `digits` of each, however small."""
    values = np.asarray(values)[~np.isnan(values)]
    return f"{values.mean():.{digits}{kind}} ± {stats.spread(values):.{digits}{kind}}"


def interval(values: np.ndarray, digits: int = 2) -> str:
    """A mean over seeds with its 95 % interval."""
    effect = stats.estimate(values)
    return f"{effect.mean:.{digits}f} [{effect.low:.{digits}f}, {effect.high:.{digits}f}]"
