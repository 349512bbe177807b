"""One trial of the toy with SAM's variants or explicit re-weightings, and the record for the store."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field

import numpy as np

from lib import device as devices
from lib.data.toy import SPLITS
from lib.optim.constants import CONSTANTS
from lib.toy.ensemble import FEATURES
from lib.toy.variants import ASCENTS, VariantResult, VariantSetting, train
from lib.trials import trial as trials
from lib.trials.toy import check_settings, shared_and_own
from lib.trials.trial import Place, Trial

PROTOCOLS = {"esam": 2, "group_dro": 2}  # of a method, raised from 1 when its trials mean another thing
SEEDS, FIRST_SEED = 20, 100


@dataclass(frozen=True)
class VariantTrial(Trial):
    """Settings of the toy trained from seeds `first_seed` and following.

    `name` is for labels only: the trial's identity is that of what is computed. Raises ValueError for a value
    that is not allowed.
    """

    settings: tuple[VariantSetting, ...]
    seeds: int = SEEDS
    first_seed: int = FIRST_SEED
    name: str = field(default="variants", compare=False)

    def __post_init__(self) -> None:
        check_settings(self, VariantSetting, {"seeds": 1, "first_seed": 0})
        if len({setting.data for setting in self.settings}) > 1:
            raise ValueError("settings must share their data")

    @property
    def configuration(self) -> dict:
        """The trial as plain values, as stored, with the constants of the variants."""
        protocol = max(PROTOCOLS.get(setting.method, 1) for setting in self.settings)
        return {
            "experiment": "toy_variants",
            "protocol": protocol,
            "constants": asdict(CONSTANTS),
            "seeds": self.seeds,
            "first_seed": self.first_seed,
            **shared_and_own([_plain(setting) for setting in self.settings]),
        }

    @property
    def label(self) -> str:
        """The trial in a few words."""
        return f"{self.name} ({len(self.settings)} settings, {self.seeds} seeds)"

    @property
    def cost(self) -> tuple[str, float]:
        """Seconds go with the steps; a method's own share is a factor of at most four."""
        return "toy variants", 1e-3 * self.seeds * sum(setting.steps for setting in self.settings)

    def run(self, place: Place) -> dict:
        """Train every net on the CPU, and keep how many points it gets wrong, its head, and its ascents.

        `metrics` hold nested lists (setting, seed), read by `errors`, `heads` and `ascents`, with None for a
        net that diverged; `status` is ``diverged`` where all did.
        """
        started, threads = time.perf_counter(), place.threads or 1
        with devices.threads(threads):
            seeds = range(self.first_seed, self.first_seed + self.seeds)
            result = train(self.settings, seeds, progress=False)
            return trials.record(
                self,
                metrics=None if result.diverged.all() else _metrics(self, result),
                seconds={"total": time.perf_counter() - started},
                device="cpu",
            )


def errors(record: dict, feature: str, split: str = "test") -> np.ndarray:
    """Errors after the last step, (setting, seed): of "easy" and "hard" the probing error, of the "model" its
    own. NaN where the net diverged."""
    configuration = record["configuration"]
    shape = len(configuration["settings"]), configuration["seeds"]
    if record["metrics"] is None:
        return np.full(shape, np.nan)
    shared = configuration["shared"]["data"]
    points = shared["training_points" if split == "train" else "test_points"]
    return np.array(record["metrics"]["wrong"][split][feature], dtype=float).reshape(shape) / points


def ascents(record: dict) -> np.ndarray:
    """Means through training, (setting, seed, 6), as named by `lib.toy.variants.ASCENTS`; NaN where there are
    none."""
    configuration = record["configuration"]
    out = np.full((len(configuration["settings"]), configuration["seeds"], len(ASCENTS)), np.nan)
    for at, rows in enumerate([] if record["metrics"] is None else record["metrics"]["ascents"]):
        for seed, row in enumerate(rows):
            if row is not None:
                out[at, seed] = row
    return out


def _metrics(trial: VariantTrial, result: VariantResult) -> dict:
    """What is kept, as plain values: whole numbers of wrong points are shorter than errors."""
    wrong: dict[str, dict] = {split: {} for split in SPLITS}
    for split in SPLITS:
        for feature in FEATURES:
            rows = []
            for setting, error in zip(trial.settings, result.error(feature, split)):
                data = setting.data
                points = data.training_points if split == "train" else data.test_points
                rows.append([None if np.isnan(value) else round(value * points) for value in error])
            wrong[split][feature] = rows
    return {"wrong": wrong, "heads": _rows(result.heads), "ascents": _rows(result.ascents)}


def _rows(values: np.ndarray) -> list:
    """Values (setting, seed, n) as nested lists of four digits; None where any is not finite."""
    return [
        [[float(f"{value:.4g}") for value in row] if np.isfinite(row).all() else None for row in rows]
        for rows in values
    ]


def _plain(setting: VariantSetting) -> dict:
    """The setting as plain values, in which 1 and 1.0 are the same."""
    values, defaults = asdict(setting), asdict(VariantSetting("sgd"))

    def typed(given: dict, like: dict) -> dict:
        kinds = {
            name: float if isinstance(like[name], float) else int
            for name in given
            if isinstance(like[name], (int, float))
        }
        return {name: kinds[name](value) if name in kinds else value for name, value in given.items()}

    data = typed(values.pop("data"), defaults["data"])
    return typed(values, defaults) | {"data": data, "head": [float(weight) for weight in setting.head]}
