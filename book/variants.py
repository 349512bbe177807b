"""Chapter 12's trials of the toy: SAM's variants and two explicit re-weightings, and what is read of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lib.data.toy import ToyConstants
from lib.selection import at_choice, choose
from lib.toy.variants import WITHOUT_RADIUS, VariantSetting
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
