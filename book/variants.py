"""Chapter 12's trials: in the toy SAM's variants and two explicit re-weightings, on images the variants; and what is
read of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from book import protocols
from lib.data.toy import ToyConstants
from lib.selection import at_choice, choose
from lib.stats import estimate
from lib.toy.variants import WITHOUT_RADIUS, VariantSetting
from lib.trials.images import ImageTrial
from lib.trials.plan import Plan
from lib.trials.store import Store
from lib.trials.variants import FIRST_SEED, SEEDS, VariantTrial, ascents, errors

STEP_SIZES = (0.01, 0.1, 1.0, 10.0, 100.0)  # of GroupDRO (its paper's: 0.01)
DECAY = 5e-4  # weight decay, where there is any (ours: the usual one)
STRONG = (0.0, 0.01)  # weight decays that the re-weightings choose from: their papers ask for a strong one


def _radii(method: str, *radii: float, **others: float) -> tuple[VariantSetting, ...]:
    return tuple(VariantSetting(method, radius, **others) for radius in radii)


def _twice(identifications: Sequence[int], upweights: Sequence[int], **others) -> tuple[VariantSetting, ...]:
    return tuple(
        VariantSetting("jtt", identification=steps, upweight=times, weight_decay=decay, **others)
        for steps in identifications
        for times in upweights
        for decay in STRONG
    )


def _group_dro(groups: str, **others) -> tuple[VariantSetting, ...]:
    return tuple(
        VariantSetting("group_dro", step_size=size, groups=groups, weight_decay=decay, **others)
        for size in STEP_SIZES
        for decay in STRONG
    )


# Every row of the toy's ranking: the settings that it may choose from. The grids come from exploration on
# seeds 0 to 3; each goes up to where training begins to fail.
ROWS: dict[str, tuple[VariantSetting, ...]] = {
    "SGD": (VariantSetting("sgd"),),
    "LSAM": _radii("lsam", 0.05, 0.1, 0.2, 0.4, 0.8, 1.4, 2.0, 2.8, 4.0),
    "SAM": _radii("sam", 0.1, 0.2, 0.3, 0.4, 0.5),
    "SAM, smaller steps": _radii("sam", 0.2, 0.4, 0.6, 0.8, 1.2, learning_rate=0.01),
    "ASAM": _radii("asam", 0.3, 0.5, 0.7, 1.0, 1.4, 2.0),
    "GSAM": _radii("gsam", 0.1, 0.2, 0.3, 0.4),
    "ESAM": _radii("esam", 0.1, 0.2, 0.3, 0.4, 0.5),
    "LookSAM": _radii("looksam", 0.2, 0.4, 0.8, 1.2, 1.6, 2.0, 2.4),
    "Friendly SAM": _radii("friendly", 0.2, 0.4, 0.6, 0.8, 1.0),
    "SGD, weight decay": (VariantSetting("sgd", weight_decay=DECAY),),
    "SAM, decay outside": _radii("sam", 0.1, 0.2, 0.3, 0.4, 0.5, weight_decay=DECAY),
    "SAM, decay inside": _radii("sam_decay_inside", 0.1, 0.2, 0.3, 0.4, 0.5, weight_decay=DECAY),
    "Adam": tuple(VariantSetting("adam", learning_rate=rate) for rate in (3e-5, 1e-4, 3e-4, 1e-3)),
    "SAM around Adam": _radii("sam_adam", 0.1, 0.2, 0.4, 0.8, 1.6, learning_rate=1e-4),
    "Just Train Twice": _twice((10, 20, 40), (2, 5, 20)),
    "GroupDRO by |z_e|": _group_dro("easy"),
    "GroupDRO by |z_h|": _group_dro("hard"),
}
REWEIGHTINGS = ("Just Train Twice", "GroupDRO by |z_e|", "GroupDRO by |z_h|")
BASES = {
    "SAM, decay outside": "SGD, weight decay",
    "SAM, decay inside": "SGD, weight decay",
    "SAM around Adam": "Adam",
}  # a row's own base optimizer, where it is not SGD
WITH_RADIUS = tuple(name for name, settings in ROWS.items() if settings[-1].rho)
LIVE = ("lsam", "sam", "asam", "gsam", "esam", "looksam", "friendly")  # methods of a comparison at any radius
FIT = 0.005  # mean training error up to which a method fits
KEEPS = 0.01  # mean easy probing error up to which a method keeps the easy feature

# With feature-label noise there are points on which the easy feature is wrong: minority groups.
MINORITY = ToyConstants(label_noise=0.05)
MINORITY_ROWS: dict[str, tuple[VariantSetting, ...]] = {
    "SGD": (VariantSetting("sgd", data=MINORITY),),
    "LSAM": _radii("lsam", 0.4, 0.8, 1.4, 2.0, 2.8, data=MINORITY),
    "SAM": _radii("sam", 0.1, 0.2, 0.4, 0.5, 0.6, data=MINORITY),
    "Just Train Twice": _twice((60, 300, 1200), (2, 5, 20), data=MINORITY),
    "GroupDRO by conflict": _group_dro("conflict", data=MINORITY),
}


def toy_plan(
    rows: Mapping[str, Sequence[VariantSetting]] = ROWS, seeds: int = SEEDS, first_seed: int = FIRST_SEED
) -> list[VariantTrial]:
    """One trial for every row."""
    return [VariantTrial(tuple(settings), seeds, first_seed, name) for name, settings in rows.items()]


def live_plan(methods: Sequence[str], rho: float, seeds: int, epochs: int) -> list[VariantTrial]:
    """A small comparison of `methods` (names of the toy) at one radius; those that have none go without."""
    return [
        VariantTrial(
            (VariantSetting(method, 0.0 if method in WITHOUT_RADIUS else rho, epochs=epochs),), seeds, name=method
        )
        for method in methods
    ]


@dataclass(frozen=True)
class Best:
    """A row at its chosen settings: errors (seed,), and the setting that most seeds chose."""

    setting: VariantSetting
    chosen_by: int  # seeds that chose it
    hard: np.ndarray  # probing error on test data
    easy: np.ndarray
    training: np.ndarray  # the model's own, on the training points
    hard_training: np.ndarray  # of the hard feature's net alone, on the training points
    easy_training: np.ndarray
    diverged: int  # nets among the chosen


def best(record: dict, settings: Sequence[VariantSetting]) -> Best:
    """Each seed at the setting that has the lowest mean of both probing errors on the validation data of the
    *other* seeds.

    A net that diverged has learned nothing: its errors count as chance, one half.
    """
    validation = [filled(errors(record, feature, "validation")) for feature in ("easy", "hard")]
    if len(settings) == 1:
        chosen = np.zeros(validation[0].shape[-1], dtype=int)
    else:
        chosen = choose((validation[0] + validation[1]) / 2)
    found = (
        at_choice(filled(errors(record, feature, split)), chosen)
        for feature, split in (
            ("hard", "test"),
            ("easy", "test"),
            ("model", "train"),
            ("hard", "train"),
            ("easy", "train"),
        )
    )
    gone = at_choice(np.isnan(errors(record, "model")), chosen)
    votes = np.bincount(chosen)
    return Best(settings[votes.argmax()], int(votes.max()), *found, int(gone.sum()))


def filled(values: np.ndarray) -> np.ndarray:
    """Errors with one half, chance, in place of NaN."""
    return np.where(np.isnan(values), 0.5, values)


def words(setting: VariantSetting) -> str:
    """What a row's settings differ in."""
    decay = f", decay {setting.weight_decay:g}" if setting.weight_decay else ""
    if setting.method == "jtt":
        return f"{setting.identification} steps, weight {setting.upweight}{decay}"
    if setting.method == "group_dro":
        return f"step size {setting.step_size:g}{decay}"
    if setting.method == "adam":
        return f"learning rate {setting.learning_rate:g}"
    return f"ρ = {setting.rho:g}" if setting.rho else ""


@dataclass(frozen=True)
class Reach:
    """Of the settings of a row that fit and keep the easy feature, in the mean through training and over
    seeds, each (setting,)."""

    head_length: np.ndarray  # of the part of the ascent that falls on the head
    share: np.ndarray  # of the squared ascent that falls on the head
    real: np.ndarray  # w_h / w_e of the mean real head
    phantom: np.ndarray  # w~_h / w~_e of the mean phantom head
    hard: np.ndarray  # hard probing error

    @property
    def shift(self) -> np.ndarray:
        """How far the phantom shifts the head towards the hard feature: its ratio over the real one."""
        return self.phantom / self.real


def reach(record: dict) -> Reach:
    """Where a row's ascents go, of the settings with a mean training error of at most `FIT` and a mean easy
    probing error of at most `KEEPS`."""
    fits = filled(errors(record, "model", "train")).mean(axis=1) <= FIT
    fits &= filled(errors(record, "easy")).mean(axis=1) <= KEEPS
    found = np.moveaxis(ascents(record)[fits].mean(axis=1), -1, 0)
    easy, hard, phantom_easy, phantom_hard, share, length = found
    return Reach(length, share, hard / easy, phantom_hard / phantom_easy, errors(record, "hard")[fits].mean(axis=1))


# CIFAR-MNIST: every variant at the setting that chapter 7's sweep chose for SAM.

SHORT_EPOCHS, SHORT_SEEDS = 5, 3  # of the trials that the book reads; the paper's are the protocol's
WITHOUT_ASCENT = ("SGD", "SGD, weight decay", "Adam")
ADAM_RATE = 1e-3  # Adam's learning rate (its paper's)
ASAM_TIMES = 10.0  # ASAM's radius over SAM's: its paper's 0.5 against SAM's 0.05
IMAGES = protocols.PAIRED["cifar-mnist"]


def image_rows(lr: float, rho: float, epochs: int, sgd_lr: float) -> dict[str, ImageTrial]:
    """Every variant at one setting, SAM's, and SGD at its own learning rate.

    ASAM's radius is `ASAM_TIMES` times SAM's, its norm being another; Adam has its own learning rate.
    """
    base = replace(IMAGES.base, lr=lr, epochs=epochs)
    sgd = replace(base, lr=sgd_lr)

    def at(method: str, radius: float = rho, **others: float) -> ImageTrial:
        return replace(base, method=method, rho=radius, **others)

    return {
        "SGD": sgd,
        "LSAM": at("lsam"),
        "SAM": at("sam"),
        "ASAM": at("asam", ASAM_TIMES * rho),
        "GSAM": at("gsam"),
        "ESAM": at("esam"),
        "LookSAM": at("looksam"),
        "Friendly SAM": at("friendly"),
        "SGD, weight decay": replace(sgd, weight_decay=DECAY),
        "SAM, decay outside": at("sam", weight_decay=DECAY),
        "SAM, decay inside": at("sam_decay_inside", weight_decay=DECAY),
        "Adam": at("adam", 0.0, lr=ADAM_RATE),
        "SAM around Adam": at("sam_adam", lr=ADAM_RATE),
    }


def chosen_image_rows(store: Store, epochs: int) -> dict[str, ImageTrial]:
    """`image_rows` at the settings that the sweep chose; none while the sweep is not complete."""
    settings = protocols.selected(IMAGES, store)
    return image_rows(settings["sam"].lr, settings["sam"].rho, epochs, settings["sgd"].lr) if settings else {}


def image_plan(store: Store, seeds: int, epochs: int) -> Plan:
    """The image trials of all rows, each with seeds 0, 1, ...: paired by seed. They follow the sweep."""
    chosen = chosen_image_rows(store, epochs).values()
    later = 0 if chosen else seeds * len(image_rows(0.01, 0.1, epochs, 0.01))
    return Plan(tuple(replace(trial, seed=seed) for seed in range(seeds) for trial in chosen), later)


@dataclass(frozen=True, eq=False)
class Gain:
    """How far a row's probing errors lie below SGD's with the same seed: (2, seed), of the hard and of the easy
    feature, or None where nothing is stored or a net diverged; and how many nets diverged."""

    values: np.ndarray | None
    diverged: int = 0


def image_gains(rows: Mapping[str, ImageTrial], seeds: int, store: Store) -> tuple[str, dict[str, Gain]]:
    """The hard feature by the paper's rule, that of the higher probing error under SGD, and all rows' gains, at the
    seeds that the row shares with SGD.

    Where SGD itself is not stored, nothing is known: "" and no gain. A row of which a net diverged has none: a mean
    over the seeds that were left would flatter a method that fails on others.
    """
    errors, lost, features = {}, {}, ["cifar", "mnist"]
    for name, trial in rows.items():
        records = [store.read(replace(trial, seed=seed).configuration) for seed in range(seeds)]
        found = [record for record in records if record is not None]
        lost[name] = sum(record["status"] == "diverged" for record in found)
        table = protocols.table(found).pivot(index="seed", columns="measure", values="error")
        errors[name] = table.reindex(columns=features)
    if not rows or errors["SGD"].empty:
        return "", {name: Gain(None, count) for name, count in lost.items()}
    features.sort(key=lambda feature: -errors["SGD"][feature].mean())
    gained = {name: (errors["SGD"] - table).dropna()[features].to_numpy().T for name, table in errors.items()}
    kept = {name: values if values.size and not lost[name] else None for name, values in gained.items()}
    return features[0], {name: Gain(values, lost[name]) for name, values in kept.items()}


def image_label(name: str, gain: Gain) -> str:
    """A row's name, with the number of its seeds where it was run, and of those that diverged."""
    if gain.diverged:
        return f"{name} ({gain.diverged} diverged)"
    return name if gain.values is None else f"{name} (n = {gain.values.shape[1]})"


def image_numbers(rows: Mapping[str, ImageTrial], gains: Mapping[str, Gain]) -> dict[str, str]:
    """What the prose quotes: the settings, how many seeds and epochs were run of how many, and from where to where the
    rows with an ascent gain on the hard feature in the mean, in points, and how many of their intervals lie above 0."""
    found = {name: gain.values[0] for name, gain in gains.items() if gain.values is not None}
    effects = [estimate(100 * values) for name, values in found.items() if name not in WITHOUT_ASCENT]
    names = "lr", "rho", "sgd_lr", "epochs", "whole", "seeds", "rows", "lowest", "highest", "above"
    if not effects:
        return dict.fromkeys(names, protocols.NOT_RUN)
    sam, seeds, means = rows["SAM"], [len(values) for values in found.values()], [effect.mean for effect in effects]
    values = [f"{sam.lr:g}", f"{sam.rho:g}", f"{rows['SGD'].lr:g}", str(sam.epochs), str(IMAGES.base.epochs)]
    values.append(" to ".join(map(str, sorted({min(seeds), max(seeds)}))))
    values += [str(len(effects)), f"{min(means):.1f}", f"{max(means):.1f}"]
    return dict(zip(names, [*values, str(sum(effect.low > 0 for effect in effects))]))
