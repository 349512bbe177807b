"""Trials of the toy, some settings trained together from the same seeds: of the ensemble (SGD, LSAM, interventions), or
of SAM's variants and re-weightings; and their records for the store."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from importlib.metadata import version
from operator import mul
from typing import Any, ClassVar, Self

import numpy as np

from lib import check
from lib import device as devices
from lib.data.toy import SPLITS, ToyConstants
from lib.optim.constants import CONSTANTS
from lib.toy.ensemble import FEATURES, ToySetting, train
from lib.toy.kernel import padded
from lib.toy.variants import ASCENTS, VariantSetting
from lib.toy.variants import train as train_variants
from lib.trials import trial as trials
from lib.trials.trial import Place, Trial

SEEDS, FIRST_SEED = 20, 100
TOY_PROTOCOL = 1  # raised when the same configuration comes to mean something else
PROTOCOLS = {"esam": 2, "group_dro": 2}  # of a variant, raised from 1 likewise
MEASURED = {"train": ("model",), "validation": FEATURES, "test": FEATURES}  # errors that the ensemble's trials keep
LATER = {"average", "displaced", "rates", "phantom_points", "phantom_shift", "ascent", "smoothing", "decoupling"}
LATER |= {"gain", "bias", "easy_interval"}  # values that the first trials did not have
MEANS = ("w_easy", "w_hard", "phantom_easy", "phantom_hard", "rate_easy", "rate_hard")


@dataclass(frozen=True)
class _Settings(Trial):
    """Settings trained from seeds `first_seed` and following.

    `name` is for labels only: the trial's identity is that of what is computed. Raises ValueError for a value that is
    not allowed.
    """

    settings: tuple[Any, ...]
    seeds: int = SEEDS
    first_seed: int = FIRST_SEED
    name: str = field(default="toy", compare=False)

    experiment: ClassVar[str]
    kind: ClassVar[type]
    measured: ClassVar[Mapping[str, Sequence[str]]]  # the errors that are kept of each split

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", tuple(self.settings))
        if not self.settings or not all(isinstance(setting, self.kind) for setting in self.settings):
            raise ValueError(f"settings must be one {self.kind.__name__} or more, not {self.settings!r}")
        for name, least in {"seeds": 1, "first_seed": 0, "trace_every": 0}.items():
            check.whole(name, getattr(self, name, 1), least)

    @property
    def configuration(self) -> dict:
        """The trial as plain values, as stored: what all settings share, and what each has of its own."""
        rows = [self._values(setting) for setting in self.settings]
        shared = {name: value for name, value in rows[0].items() if all(row.get(name) == value for row in rows)}
        own = [{name: value for name, value in row.items() if name not in shared} for row in rows]
        seeds = {"seeds": self.seeds, "first_seed": self.first_seed}
        return {"experiment": self.experiment, **seeds, **self._of_kind(), "shared": shared, "settings": own}

    @classmethod
    def from_configuration(cls, configuration: dict, **others: Any) -> Self:
        """The trial of a stored configuration. Raises ValueError where it is not one of this kind and protocol."""
        if configuration.get("experiment") == cls.experiment:
            settings = tuple(_setting(cls.kind, configuration["shared"] | own) for own in configuration["settings"])
            names = [of_trial.name for of_trial in fields(cls) if of_trial.name in configuration]
            trial = cls(**{name: configuration[name] for name in names} | {"settings": settings} | others)
            if trial.configuration == configuration:
                return trial
        told = {name: configuration.get(name) for name in ("experiment", "protocol")}
        raise ValueError(f"configuration must be of a toy trial as they are computed now, not {told}")

    @property
    def label(self) -> str:
        """The trial in a few words."""
        return f"{self.name} ({len(self.settings)} settings, {self.seeds} seeds)"

    @staticmethod
    def _values(setting: Any) -> dict:
        return _plain(setting)

    @abstractmethod
    def _of_kind(self) -> dict:
        """What the configuration has besides, with ``protocol``."""

    @abstractmethod
    def _train(self, seeds: range, place: Place, threads: int) -> _Found:
        """Train every net."""

    def run(self, place: Place) -> dict:
        """Train every net, and keep of each how many points it gets wrong after the last step, its head, and means
        through training.

        `metrics` hold nested lists (setting, seed), read by `errors`, `heads`, `means` and `ascents`, with None for a
        net that diverged; `status` is ``diverged`` where all did.
        """
        started, threads = time.perf_counter(), place.threads or 1
        with devices.threads(threads):
            found = self._train(range(self.first_seed, self.first_seed + self.seeds), place, threads)
            record = trials.record(
                self,
                metrics=None if found.diverged.all() else self._metrics(found),
                seconds={"total": time.perf_counter() - started},
                device=found.device,
            )
        record["versions"]["numba"] = version("numba")
        record["hardware"]["threads"] = threads  # torch's own number follows Numba's
        return record

    def _metrics(self, found: _Found) -> dict:
        """What is kept, as plain values: whole numbers of wrong points are shorter than errors."""
        wrong: dict[str, dict[str, list]] = {}
        for split, features in self.measured.items():
            points = np.array([_points(asdict(setting), split) for setting in self.settings])[:, None]
            counts = found.errors[:, :, SPLITS.index(split)] * points[..., None]
            wrong[split] = {name: _counts(counts[..., FEATURES.index(name)]) for name in features}
        return {"wrong": wrong} | {name: _rows(rows, found.diverged) for name, rows in found.rows.items()}


@dataclass(frozen=True)
class _Found:
    """What training ended with: errors (setting, seed, split, feature), diverged (setting, seed), rows of numbers
    (setting, seed, n) by their name, and the device."""

    errors: np.ndarray
    diverged: np.ndarray
    rows: dict[str, np.ndarray]
    device: str = "cpu"


@dataclass(frozen=True)
class ToyTrial(_Settings):
    """Settings of the ensemble. With `trace_every` above 0 the head is followed through training, see `means`."""

    settings: tuple[ToySetting, ...]
    trace_every: int = 0  # steps between two records of the head; 0: none

    experiment = "toy"
    kind = ToySetting
    measured = MEASURED

    def _of_kind(self) -> dict:
        return {"protocol": TOY_PROTOCOL, "trace_every": self.trace_every}

    @staticmethod
    def _values(setting: ToySetting) -> dict:
        values = _plain(setting)
        return values | values.pop("data")

    @property
    def cost(self) -> tuple[str, float]:
        """Seconds go with the steps, the rows of a batch (a third of their cost for a phantom's own), and the middle
        layer's weights beside a rest."""
        rows = (
            s.steps * (min(s.batch_size, s.data.training_points) + (s.phantom_points or 0) / 3) for s in self.settings
        )
        weights = (padded(s.width) ** 2 + 1000 for s in self.settings)
        return "toy", 1e-6 * self.seeds * sum(map(mul, rows, weights))

    def _train(self, seeds: range, place: Place, threads: int) -> _Found:
        """On the CPU the compiled engine trains, on one thread unless the place says otherwise; on another device the
        torch engine."""
        how = partial(train, trace_every=self.trace_every, device=place.device, threads=threads, progress=False)
        result = how(self.settings, seeds)
        rows = {"heads": result.heads[:, :, -1]}
        if result.traces is not None:
            rows["means"] = np.stack([_trace_means(trace) for trace in result.traces])
            rows["means"][[not {s.importance, s.effective} <= {"real", "phantom"} for s in self.settings]] = np.nan
        device = "cpu" if place.device == "auto" else place.device
        return _Found(result.errors[:, :, -1], result.diverged, rows, device)


@dataclass(frozen=True)
class VariantTrial(_Settings):
    """Settings of SAM's variants and of the re-weightings, which share their data; trained on the CPU."""

    settings: tuple[VariantSetting, ...]
    name: str = field(default="variants", compare=False)

    experiment = "toy_variants"
    kind = VariantSetting
    measured = dict.fromkeys(SPLITS, FEATURES)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len({setting.data for setting in self.settings}) > 1:
            raise ValueError("settings must share their data")

    def _of_kind(self) -> dict:
        """The protocol, and the constants of the variants."""
        protocol = max(PROTOCOLS.get(setting.method, 1) for setting in self.settings)
        return {"protocol": protocol, "constants": asdict(CONSTANTS)}

    @property
    def cost(self) -> tuple[str, float]:
        """Seconds go with the steps; a method's own share is a factor of at most four."""
        return "toy variants", 1e-3 * self.seeds * sum(setting.steps for setting in self.settings)

    def _train(self, seeds: range, place: Place, threads: int) -> _Found:
        result = train_variants(self.settings, seeds, progress=False)
        return _Found(result.errors, result.diverged, {"heads": result.heads, "ascents": result.ascents})


def errors(record: dict, feature: str, split: str = "test") -> np.ndarray:
    """Errors after the last step, (setting, seed): of "easy" and "hard" the probing error, of the "model" its own. NaN
    where the net diverged.

    Raises ValueError for an error that is not kept: of the training points the ensemble's trials keep the model's only.
    """
    configuration, metrics = record["configuration"], record["metrics"]
    kept = VariantTrial.measured if configuration["experiment"] == VariantTrial.experiment else MEASURED
    if feature not in kept.get(split, ()):
        known = "; ".join(f"{split}: {', '.join(features)}" for split, features in kept.items())
        raise ValueError(f"feature and split must be among {known}, not {feature!r} and {split!r}")
    settings = [configuration["shared"] | own for own in configuration["settings"]]
    if metrics is None:
        return np.full((len(settings), configuration["seeds"]), np.nan)
    points = np.array([_points(setting, split) for setting in settings])
    return np.array(metrics["wrong"][split][feature], dtype=float) / points[:, None]


def heads(record: dict) -> np.ndarray:
    """The real head (w_e, w_h) after the last step, (setting, seed, 2), NaN where the net diverged."""
    return _array(record, "heads", 2)


def means(record: dict) -> np.ndarray:
    """Means over the recorded steps of training, (setting, seed, 6), as named by `MEANS`: of the real and of the
    phantom head, and of the two features' rates, phantom over real step by step.

    NaN where the net diverged, where a mean is not finite, and for interventions, which have no phantom. Raises
    ValueError where the trial has `trace_every` 0.
    """
    if not record["configuration"]["trace_every"]:
        raise ValueError("record must be of a trial with trace_every above 0, not 0")
    return _array(record, "means", len(MEANS))


def ascents(record: dict) -> np.ndarray:
    """A variant's means through training, (setting, seed, 6), as named by `lib.toy.variants.ASCENTS`; NaN where there
    are none."""
    return _array(record, "ascents", len(ASCENTS))


def _array(record: dict, name: str, length: int) -> np.ndarray:
    """A metric (setting, seed, length) with NaN for None."""
    configuration, metrics = record["configuration"], record["metrics"]
    out = np.full((len(configuration["settings"]), configuration["seeds"], length), np.nan)
    for at, rows in enumerate([] if metrics is None else metrics[name]):
        for seed, row in enumerate(rows or []):
            if row is not None:
                out[at, seed] = np.array(row, dtype=float)
    return out


def _rows(values: np.ndarray, diverged: np.ndarray) -> list:
    """Values (setting, seed, n) as nested lists of four digits; None where diverged, or not finite."""

    def plain(row: np.ndarray) -> list | None:
        numbers = [float(f"{value:.4g}") if np.isfinite(value) else None for value in row]
        return numbers if np.isfinite(row).any() else None

    values = np.where(diverged[..., None], np.nan, values)
    return [[plain(row) for row in rows] for rows in values]


def _counts(values: np.ndarray) -> list:
    """Whole numbers (setting, seed) as nested lists; None for NaN."""
    return [[None if np.isnan(value) else round(value) for value in row] for row in values]


def _trace_means(trace: np.ndarray) -> np.ndarray:
    """`MEANS` of one setting's trace (seed, record, 4): (seed, 6)."""
    trace = trace.astype(float)
    with np.errstate(all="ignore"):
        rates = trace[..., 2:] / trace[..., :2]
        return np.concatenate([trace, rates], axis=-1).mean(axis=1)


def _points(setting: dict, split: str) -> int:
    """Points of one split, by a setting's plain values."""
    return setting.get("data", setting)["training_points" if split == "train" else "test_points"]


def _plain(values: Any) -> dict:
    """A setting, or its data's constants, as plain values in which 1 and 1.0 are the same: a number has its default's
    type. What is of `LATER` is named only where it is not the default."""
    found = {}
    for of_setting in sorted(fields(values), key=lambda field: field.kw_only is True):  # a setting's own come first
        name, default, kind = of_setting.name, of_setting.default, type(of_setting.default)
        value = getattr(values, name)
        if name not in LATER or value != default:
            value = list(value) if isinstance(value, tuple) else value
            found[name] = kind(value) if kind in (float, int) and value is not None else value
    return found | ({"data": _plain(values.data)} if "data" in found else {})


def _setting(kind: type, values: dict) -> Any:
    """The setting of a `kind` that has these plain values, its data's constants nested or among them."""
    constants = values.get("data", values)
    data = ToyConstants(**{one.name: constants[one.name] for one in fields(ToyConstants) if one.name in constants})
    named = {one.name: values[one.name] for one in fields(kind) if one.name in values}
    return kind(**named | {"data": data})
