"""One trial of the toy: some settings trained together from the same seeds, and the record for the store."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from operator import mul
from typing import Any

import numpy as np

from lib import device as devices
from lib.data.toy import SPLITS, ToyConstants
from lib.toy.ensemble import FEATURES, ToyResult, ToySetting, train
from lib.toy.kernel import padded
from lib.trials import trial as trials
from lib.trials.trial import Place, Trial

TOY_PROTOCOL = 1  # raised when the same configuration comes to mean something else
MEASURED = {"train": ("model",), "validation": FEATURES, "test": FEATURES}  # errors kept of each split
MEANS = ("w_easy", "w_hard", "phantom_easy", "phantom_hard", "rate_easy", "rate_hard")
CONSTANTS = tuple(constant.name for constant in fields(ToyConstants))


@dataclass(frozen=True)
class ToyTrial(Trial):
    """Settings (SGD, LSAM at some radii, interventions, ...) trained from seeds `first_seed` and following.

    With `trace_every` above 0 the head is followed through training, see `means`. `name` is for labels
    only: the trial's identity is that of what is computed. Raises ValueError for a value that is not
    allowed.
    """

    settings: tuple[ToySetting, ...]
    seeds: int
    first_seed: int = 100
    trace_every: int = 0  # steps between two records of the head; 0: none
    name: str = field(default="toy", compare=False)

    def __post_init__(self) -> None:
        check_settings(self, ToySetting, {"seeds": 1, "first_seed": 0, "trace_every": 0})

    @property
    def configuration(self) -> dict:
        """The trial as plain values, as stored: what all settings share, and what each has of its own."""
        return {
            "experiment": "toy",
            "protocol": TOY_PROTOCOL,
            "seeds": self.seeds,
            "first_seed": self.first_seed,
            "trace_every": self.trace_every,
            **shared_and_own([_plain(setting) for setting in self.settings]),
        }

    @classmethod
    def from_configuration(cls, configuration: dict, name: str = "toy") -> ToyTrial:
        """The trial of a stored configuration. Raises ValueError where it is not one of this protocol."""
        kind = configuration.get("experiment"), configuration.get("protocol")
        if kind != ("toy", TOY_PROTOCOL):
            raise ValueError(f"configuration must be of a toy trial of protocol {TOY_PROTOCOL}, not {kind!r}")
        settings = tuple(_setting(configuration["shared"] | own) for own in configuration["settings"])
        numbers = {key: configuration[key] for key in ("seeds", "first_seed", "trace_every")}
        return cls(settings, **numbers, name=name)

    @property
    def label(self) -> str:
        """The trial in a few words."""
        return f"{self.name} ({len(self.settings)} settings, {self.seeds} seeds)"

    @property
    def cost(self) -> tuple[str, float]:
        """Seconds go with the steps, the rows of a batch, and the middle layer's weights beside a rest."""
        rows = (s.steps * min(s.batch_size, s.data.training_points) for s in self.settings)
        weights = (padded(s.width) ** 2 + 1000 for s in self.settings)
        return "toy", 1e-6 * self.seeds * sum(map(mul, rows, weights))

    def run(self, place: Place) -> dict:
        """Train every net, and keep of each how many points it gets wrong after the last step, and its head.

        `metrics` hold nested lists (setting, seed), read by `errors`, `heads` and `means`, with None for a
        net that diverged; `status` is ``diverged`` where all did. On the CPU the compiled engine trains on
        one thread unless the place says otherwise; on another device the torch engine trains.
        """
        started, threads = time.perf_counter(), place.threads or 1
        with devices.threads(threads):
            result = train(
                self.settings,
                range(self.first_seed, self.first_seed + self.seeds),
                trace_every=self.trace_every,
                device=place.device,
                threads=threads,
                progress=False,
            )
        record = trials.record(
            self,
            metrics=None if result.diverged.all() else _metrics(result),
            seconds={"total": time.perf_counter() - started},
            device="cpu" if place.device == "auto" else place.device,
        )
        record["versions"]["numba"] = version("numba")
        record["hardware"]["threads"] = threads
        return record


def check_settings(trial: Any, kind: type, least: Mapping[str, int]) -> None:
    """Make the trial's settings a tuple. Raises ValueError where they are not all of one `kind`, or a whole
    number is below its `least`."""
    object.__setattr__(trial, "settings", tuple(trial.settings))
    if not trial.settings or not all(isinstance(setting, kind) for setting in trial.settings):
        raise ValueError(f"settings must be one {kind.__name__} or more, not {trial.settings!r}")
    for name, smallest in least.items():
        value = getattr(trial, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < smallest:
            raise ValueError(f"{name} must be a whole number of at least {smallest}, not {value!r}")


def shared_and_own(rows: Sequence[dict]) -> dict:
    """Settings as plain values, told apart: what all of them share, and what each has of its own."""
    shared = {name: value for name, value in rows[0].items() if all(row[name] == value for row in rows)}
    own = [{name: value for name, value in row.items() if name not in shared} for row in rows]
    return {"shared": shared, "settings": own}


def errors(record: dict, feature: str, split: str = "test") -> np.ndarray:
    """Errors after the last step, (setting, seed): of "easy" and "hard" the probing error, of the "model" its
    own. NaN where the net diverged.

    Raises ValueError for an error that is not kept: of the training points it is the model's only.
    """
    if feature not in MEASURED.get(split, ()):
        known = "; ".join(f"{split}: {', '.join(features)}" for split, features in MEASURED.items())
        raise ValueError(f"feature and split must be among {known}, not {feature!r} and {split!r}")
    trial, metrics = ToyTrial.from_configuration(record["configuration"]), record["metrics"]
    if metrics is None:
        return np.full((len(trial.settings), trial.seeds), np.nan)
    points = [_points(setting.data)[split] for setting in trial.settings]
    return np.array(metrics["wrong"][split][feature], dtype=float) / np.array(points)[:, None]


def heads(record: dict) -> np.ndarray:
    """The real head (w_e, w_h) after the last step, (setting, seed, 2), NaN where the net diverged."""
    return _array(record, "heads", 2)


def means(record: dict) -> np.ndarray:
    """Means over the recorded steps of training, (setting, seed, 6), as named by `MEANS`: of the real and of
    the phantom head, and of the two features' rates, phantom over real step by step.

    NaN where the net diverged, where a mean is not finite, and for interventions, which have no phantom.
    Raises ValueError where the trial has `trace_every` 0.
    """
    if not record["configuration"]["trace_every"]:
        raise ValueError("record must be of a trial with trace_every above 0, not 0")
    return _array(record, "means", len(MEANS))


def _array(record: dict, name: str, length: int) -> np.ndarray:
    """A metric (setting, seed, length) with NaN for None."""
    configuration, metrics = record["configuration"], record["metrics"]
    out = np.full((len(configuration["settings"]), configuration["seeds"], length), np.nan)
    for at, rows in enumerate([] if metrics is None else metrics[name]):
        for seed, row in enumerate(rows or []):
            if row is not None:
                out[at, seed] = [np.nan if value is None else value for value in row]
    return out


def _metrics(result: ToyResult) -> dict:
    """What is kept of an ensemble, as plain values: whole numbers of wrong points are shorter than errors."""
    wrong: dict[str, dict[str, list]] = {
        split: {feature: [] for feature in features} for split, features in MEASURED.items()
    }
    for at, setting in enumerate(result.settings):
        for split, features in MEASURED.items():
            for feature in features:
                error = result.error(feature, split)[at, :, -1] * _points(setting.data)[split]
                wrong[split][feature].append([None if np.isnan(count) else round(count) for count in error])
    out = {"wrong": wrong, "heads": _rows(result.heads[:, :, -1], result.diverged)}
    if result.traces is not None:
        followed = np.array(["fixed" not in (s.importance, s.effective) for s in result.settings])
        rows = _rows(np.stack([_trace_means(trace) for trace in result.traces]), result.diverged)
        out["means"] = [row if keep else None for row, keep in zip(rows, followed)]
    return out


def _trace_means(trace: np.ndarray) -> np.ndarray:
    """`MEANS` of one setting's trace (seed, record, 4): (seed, 6)."""
    trace = trace.astype(float)
    with np.errstate(all="ignore"):
        rates = trace[..., 2:] / trace[..., :2]
        return np.concatenate([trace, rates], axis=-1).mean(axis=1)


def _rows(values: np.ndarray, diverged: np.ndarray) -> list:
    """Values (setting, seed, n) as nested lists of four digits; None where diverged, or not finite."""
    return [
        [
            None if gone else [float(f"{value:.4g}") if np.isfinite(value) else None for value in row]
            for row, gone in zip(*rows)
        ]
        for rows in zip(values, diverged)
    ]


def _points(data: ToyConstants) -> dict[str, int]:
    return dict(zip(SPLITS, (data.training_points, data.test_points, data.test_points)))


def _plain(setting: ToySetting) -> dict:
    """One flat dictionary of a setting and its data constants, in which 1 and 1.0 are the same."""
    values = asdict(setting)
    data = values.pop("data")
    defaults = asdict(ToySetting()) | asdict(ToyConstants())
    flat = {
        name: float(value) if isinstance(defaults[name], float) else value for name, value in (values | data).items()
    }
    whole = {name: int(value) for name, value in flat.items() if isinstance(defaults[name], int)}
    return flat | whole | {"head": [float(weight) for weight in setting.head]}


def _setting(flat: dict) -> ToySetting:
    """The setting that `_plain` gives as `flat`."""
    data = ToyConstants(**{name: flat[name] for name in CONSTANTS})
    own = {name: value for name, value in flat.items() if name not in CONSTANTS}
    return ToySetting(**own | {"data": data, "head": tuple(flat["head"])})
