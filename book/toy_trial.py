"""Trials of the toy, settings of one kind trained together from the same seeds, and their records for the store."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from typing import Any, Self

import numpy as np

from lib import check
from lib import device as devices
from lib.data.toy import SPLITS, ToyConstants
from lib.importance import gini
from lib.optim.variants import CONSTANTS
from lib.toy.ensemble import FEATURES, ToyResult, ToySetting, train
from lib.toy.setting import check_settings
from lib.toy.variants import ASCENTS, VariantSetting
from lib.trials import trial as trials
from lib.trials.trial import Place, Trial

SEEDS, FIRST_SEED = 20, 100
KINDS: dict[str, type] = {"toy": ToySetting, "toy_variants": VariantSetting}  # by what configurations call them
TOY_PROTOCOL = 1  # raised when the same configuration comes to mean something else
PROTOCOLS = {"esam": 2, "group_dro": 2}  # of a variant, raised from 1 likewise
MEASURED: dict[str, Mapping[str, Sequence[str]]] = {  # errors that are kept of each split
    "toy": {"train": ("model",), "validation": FEATURES, "test": FEATURES},
    "toy_variants": dict.fromkeys(SPLITS, FEATURES),
}
KEPT = {  # names of what else is kept of a net, see `kept`
    "means": ("w_easy", "w_hard", "phantom_easy", "phantom_hard", "rate_easy", "rate_hard"),
    "ascents": ASCENTS,
    "weights": ("gini", "phantom_gini", "wrong_easy", "wrong_hard"),
}
WATCHED = 60  # steps from one record of a variant's phantom to the next
LATER = {"average", "displaced", "rates", "phantom_points", "phantom_shift", "ascent", "smoothing", "decoupling"}
LATER |= {"gain", "bias", "easy_interval"}  # values that the first trials did not have


@dataclass(frozen=True)
class ToyTrial(Trial):
    """Settings trained from seeds `first_seed` and following: of `ToySetting`, or of SAM's variants and re-weightings,
    `VariantSetting`.

    With `trace_every` above 0 the head is followed through training, and a variant's ascents always are; with `weighed`
    above 0 importance is weighed at its end: see `kept`. `name` is for labels only: the trial's identity is that of
    what is computed. Raises ValueError for a value that is not allowed.
    """

    settings: tuple[Any, ...]
    seeds: int = SEEDS
    first_seed: int = FIRST_SEED
    name: str = field(default="toy", compare=False)
    trace_every: int = 0  # steps between two records of the head; 0: none
    weighed: float = 0.0  # radius at which trained nets are perturbed for their importance weights; 0: none is

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", tuple(self.settings))
        check_settings(self.settings, tuple(KINDS.values()))
        for name, least in {"seeds": 1, "first_seed": 0, "trace_every": 0}.items():
            check.whole(name, getattr(self, name), least)
        check.number("weighed", self.weighed, 0)

    @property
    def experiment(self) -> str:
        """Of `KINDS`."""
        return next(name for name, kind in KINDS.items() if isinstance(self.settings[0], kind))

    @property
    def configuration(self) -> dict:
        """The trial as plain values, as stored: what all settings share, and what each has of its own."""
        rows = [_values(setting) for setting in self.settings]
        of_kind: dict[str, Any] = {"protocol": TOY_PROTOCOL, "trace_every": self.trace_every}
        of_kind |= {"weighed": self.weighed} if self.weighed else {}
        if self.experiment == "toy":
            rows = [row | row.pop("data") for row in rows]
        else:
            protocol = max(PROTOCOLS.get(setting.method, 1) for setting in self.settings)
            of_kind = {"protocol": protocol, "constants": asdict(CONSTANTS)}
        shared = {name: value for name, value in rows[0].items() if all(row.get(name) == value for row in rows)}
        own = [{name: value for name, value in row.items() if name not in shared} for row in rows]
        seeds = {"seeds": self.seeds, "first_seed": self.first_seed}
        return {"experiment": self.experiment, **seeds, **of_kind, "shared": shared, "settings": own}

    @classmethod
    def from_configuration(cls, configuration: dict, **others: Any) -> Self:
        """The trial of a stored configuration. Raises ValueError where it is not one of this protocol."""
        if (experiment := configuration.get("experiment")) in KINDS:
            rows = [configuration["shared"] | own for own in configuration["settings"]]
            names = {one.name for one in fields(cls)} & configuration.keys() - {"settings"}
            found = {name: configuration[name] for name in names} | others
            trial = cls(tuple(_setting(KINDS[experiment], row) for row in rows), **found)
            if trial.configuration == configuration:
                return trial
        told = {name: configuration.get(name) for name in ("experiment", "protocol")}
        raise ValueError(f"configuration must be of a toy trial as they are computed now, not {told}")

    @property
    def label(self) -> str:
        """The trial in a few words."""
        return f"{self.name} ({len(self.settings)} settings, {self.seeds} seeds)"

    @property
    def cost(self) -> tuple[str, float]:
        """Seconds go with the steps, and but for variants, whose methods differ by a factor of at most four, with the
        points of a batch and the middle layer's weights beside a rest."""
        amounts = [setting.steps for setting in self.settings]
        if self.experiment == "toy":
            rows = [min(s.batch_size, s.data.training_points) * (s.width**2 + 1000) for s in self.settings]
            amounts = [steps * weights for steps, weights in zip(amounts, rows)]
        return self.experiment, 1e-6 * self.seeds * sum(amounts)

    def run(self, place: Place) -> dict:
        """Train every net, and keep of each how many points it gets wrong after the last step, its head, and means
        through training.

        On the CPU one thread trains unless the place says otherwise, and variants always are trained there. `metrics`
        hold nested lists (setting, seed), read by `errors` and `kept`, with None for what is not finite; `status` is
        ``diverged`` where all nets did.
        """
        started, threads = time.perf_counter(), place.threads or 1
        variants = self.experiment != "toy"
        device = "cpu" if variants or place.device == "auto" else place.device
        how: dict[str, Any] = {"device": device, "threads": threads, "progress": False, "keep_nets": self.weighed > 0}
        seeds = range(self.first_seed, self.first_seed + self.seeds)
        with devices.threads(threads):
            found = train(self.settings, seeds, trace_every=WATCHED if variants else self.trace_every, **how)
            record = trials.record(
                self,
                metrics=None if found.diverged.all() else self._metrics(found),
                seconds={"total": time.perf_counter() - started},
                device=device,
            )
        record["versions"]["numba"] = version("numba")
        return record

    def _metrics(self, found: ToyResult) -> dict:
        """What is kept, as plain values: whole numbers of wrong points are shorter than errors."""
        wrong: dict[str, dict[str, list]] = {}
        for split, features in MEASURED[self.experiment].items():
            points = _points(self.configuration, split)
            wrong[split] = {name: _plain(found.error(name, split)[..., -1] * points, round) for name in features}
        rows = {"heads": found.heads[:, :, -1]}
        with np.errstate(all="ignore"):
            if found.traces is not None:  # (setting, seed, record, 4), of variants 6 and NaN where there is no ascent
                traces = np.stack(found.traces).astype(float)
                if self.experiment == "toy":
                    rates = traces[..., 2:] / traces[..., :2]
                    rows["means"] = np.concatenate([traces, rates], axis=-1).mean(axis=2)
                else:
                    rows["ascents"] = np.nansum(traces, axis=2) / np.isfinite(traces).sum(axis=2)
            if self.weighed:
                rows["weights"] = np.stack([_weighed(found, at, self.weighed) for at in range(len(self.settings))])
        for name, values in rows.items():
            values[found.diverged] = np.nan
            if name in ("means", "weights"):
                values[[not {one.importance, one.effective} <= {"real", "phantom"} for one in self.settings]] = np.nan
        return {"wrong": wrong} | {name: _plain(values, lambda x: float(f"{x:.4g}")) for name, values in rows.items()}


def errors(record: dict, feature: str, split: str = "test") -> np.ndarray:
    """Errors after the last step, (setting, seed): of "easy" and "hard" the probing error, of the "model" its own. NaN
    where the net diverged. Raises ValueError for an error that is not kept, see `MEASURED`."""
    configuration, metrics = record["configuration"], record["metrics"]
    measured = MEASURED[configuration["experiment"]]
    check.choice("feature", feature, measured[check.choice("split", split, measured)])
    wrong = metrics["wrong"][split][feature] if metrics else [None] * configuration["seeds"]
    return np.array(wrong, dtype=float) / _points(configuration, split)


def kept(record: dict, name: str) -> np.ndarray:
    """What is kept of a net under a `name` of `KEPT`, whose columns stand there, (setting, seed, column).

    "means": over the recorded steps of training, of the real and of the phantom head, and of the two features' rates,
    phantom over real step by step. "ascents": a variant's, likewise. "weights": of the training points at the end, Gini
    coefficients of real and of phantom importance weights, and what share each feature alone gets wrong. NaN where the
    net diverged, where a number is not finite, and for interventions, which have no phantom. Raises ValueError for what
    the trial does not keep.
    """
    seeds, none = record["configuration"]["seeds"], [None] * len(KEPT[name])
    metrics = record["metrics"] or {name: []}
    check.choice("name", name, metrics)
    rows = [[row or none for row in of or [none] * seeds] for of in metrics[name]]  # None may stand for all of a row
    lacking = len(record["configuration"]["settings"]) - len(rows)
    return np.array([*rows, *[[none] * seeds] * lacking], dtype=float)


def _weighed(found: ToyResult, setting: int, rho: float) -> np.ndarray:
    """The "weights" of the nets of a setting, (seed, 4)."""
    from book.mechanism import decompose  # here: it draws figures too

    parts = decompose(found, setting, -1, rho)
    even = [[gini(one) if one.sum() > 0 else np.nan for one in of_seed] for of_seed in (parts.real, parts.phantom)]
    return np.stack([*even, *((margin <= 0).mean(axis=-1) for margin in (parts.easy, parts.hard))], axis=-1)


def _plain(values: np.ndarray, plain: Callable[[float], float]) -> list:
    """What `plain` makes of each value, as nested lists; None for one that is not finite."""
    every = np.vectorize(lambda value: plain(value) if np.isfinite(value) else None, otypes=[object])
    return every(values).tolist()


def _points(configuration: dict, split: str) -> np.ndarray:
    """Points of one split, (setting, 1)."""
    settings = [configuration["shared"] | own for own in configuration["settings"]]
    name = "training_points" if split == "train" else "test_points"
    return np.array([[one.get("data", one)[name]] for one in settings])


def _values(setting: Any) -> dict:
    """A setting, or its data's constants, as plain values in which 1 and 1.0 are the same: a number has its default's
    type. What is of `LATER` is named only where it is not the default."""
    found = {}
    for one in sorted(fields(setting), key=lambda field: field.kw_only is True):  # a setting's own come first
        name, default, kind = one.name, one.default, type(one.default)
        value = getattr(setting, name)
        if name not in LATER or value != default:
            value = list(value) if isinstance(value, tuple) else value
            found[name] = kind(value) if kind in (float, int) and value is not None else value
    return found | ({"data": _values(setting.data)} if "data" in found else {})


def _setting(kind: type, values: dict) -> Any:
    """The setting of a `kind` that has these plain values, its data's constants nested or among them."""
    constants = values.get("data", values)
    data = ToyConstants(**{one.name: constants[one.name] for one in fields(ToyConstants) if one.name in constants})
    named = {one.name: values[one.name] for one in fields(kind) if one.name in values}
    return kind(**named | {"data": data})
