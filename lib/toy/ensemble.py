"""One interface to train any number of toy nets at once: settings x seeds, each with its own rho, complexity, noise,
intervention.

    result = train([sgd(), lsam(0.5)], seeds=range(20))
    result.error("hard")[:, :, -1]        # (settings, seeds), at the end of training

Two engines agree behind it: ``lib.toy.kernel`` (compiled, the default on the CPU) and ``lib.toy.variants`` (torch, any
device), which SAM's variants, that perturb every layer or none, always have. All settings of one seed share their
labels and latents, the nets' initial weights and the order of the batches.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from operator import attrgetter
from typing import Any

import numpy as np
from joblib import cpu_count
from tqdm import tqdm

from lib import check
from lib.data.toy import SPLITS
from lib.toy import kernel
from lib.toy.nets import Model, Record, batch_order, features, initial_nets, net_size, points, stops, unpack
from lib.toy.setting import CHOICES, ToySetting, check_settings, intervention, lsam, sgd
from lib.toy.variants import StackEngine, VariantSetting

__all__ = ["FEATURES", "ToyResult", "ToySetting", "batch_order", "features", "initial_nets"]
__all__ += ["intervention", "lsam", "net_size", "sgd", "stops", "train", "unpack"]

FEATURES = ("easy", "hard", "model")
ENGINES = ("auto", "compiled", "torch")
KINDS = (ToySetting, VariantSetting)


@dataclass(frozen=True)
class ToyResult:
    """Records of an ensemble; axes in this order: setting, seed, checkpoint, ...

    errors: (setting, seed, checkpoint, split, feature), feature one of `FEATURES`, split one of train,
        validation, test; errors against the true attributes for "easy" and "hard" (on the clean splits),
        against the label for "model". NaN where diverged.
    heads: (setting, seed, checkpoint, 2), the real (w_e, w_h).
    diverged: (setting, seed), True where any weight is not finite at the last checkpoint.
    traces: [setting] -> (seed, step / trace_every, 4): w_e, w_h and the phantom's, before the step's update; of SAM's
        variants (.., 6), `lib.toy.variants.ASCENTS`; or None.
    nets: [setting] -> (seed, checkpoint, 2, size), flat weights of f_e and f_h (layout: `unpack`); or None.
    """

    settings: tuple[Any, ...]
    seeds: tuple[int, ...]
    checkpoints: tuple[float, ...]
    errors: np.ndarray
    heads: np.ndarray
    diverged: np.ndarray
    traces: list[np.ndarray] | None
    nets: list[np.ndarray] | None

    def error(self, feature: str, split: str = "test") -> np.ndarray:
        """(setting, seed, checkpoint): probing error of "easy" or "hard", or the "model"'s own error."""
        return self.errors[..., SPLITS.index(split), FEATURES.index(feature)]


def train(
    settings: Iterable[Any],
    seeds: Iterable[int],
    checkpoints: Iterable[float] = (1.0,),
    *,
    trace_every: int = 0,
    keep_nets: bool = False,
    engine: str = "auto",
    device: str = "cpu",
    threads: int | None = None,
    progress: bool = True,
) -> ToyResult:
    """Train every setting from every seed; settings are all of one kind, `ToySetting` or `VariantSetting`.

    checkpoints: increasing fractions of training in [0, 1] (0: before the first step) at which errors and heads are
    recorded, and weights if `keep_nets`. trace_every: 0, or every how many steps both heads are.
    engine: "compiled" (CPU), "torch" (`device`), or "auto": compiled on the CPU, torch elsewhere; SAM's variants have
    one, on the CPU. threads: of the compiled engine (None: one a core); no result depends on them. Raises ValueError
    for what is not allowed.
    """
    settings, seeds = tuple(settings), tuple(int(seed) for seed in seeds)
    check_settings(settings, KINDS)
    if not seeds or min(seeds) < 0:
        raise ValueError(f"seeds must be one whole number or more, none negative, not {seeds!r}")
    checkpoints = tuple(float(checkpoint) for checkpoint in checkpoints)
    if list(checkpoints) != sorted(set(checkpoints)) or not checkpoints or checkpoints[0] < 0 or checkpoints[-1] > 1:
        raise ValueError(f"checkpoints must be increasing fractions between 0 and 1, not {checkpoints!r}")
    check.whole("trace_every", trace_every)
    runner = _engine(type(settings[0]), engine, device, threads)
    models = [Model(*one, number) for number, one in enumerate(product(settings, seeds))]
    groups: dict[tuple, list[Model]] = {}  # models whose arrays an engine can stack, the longest first
    for model in sorted(models, key=lambda model: -model.setting.steps * model.setting.batch_size):
        groups.setdefault(runner.key(model.setting), []).append(model)
    most = runner.at_once
    batches = [group[start : start + most] for group in groups.values() for start in range(0, len(group), most)]
    of_model: list[Any] = [None] * len(models)
    look = {"unit": "step", "unit_scale": True, "desc": "toy nets", "delay": 2}
    # disable=None: shown in a terminal only, so that nothing of it reaches an executed page.
    with tqdm(total=sum(model.setting.steps for model in models), disable=None if progress else True, **look) as bar:
        for batch in batches:
            found = runner.run(batch, checkpoints, trace_every, keep_nets)
            for model, errors, heads, nets, traces, diverged in zip(batch, *found, strict=True):
                traces = traces[: math.ceil(model.setting.steps / (trace_every or math.inf))]
                of_model[model.number] = errors, heads, nets, traces, diverged
            bar.update(sum(model.setting.steps for model in batch))
    starts = range(0, len(models), len(seeds))
    errors, heads, nets, traces, diverged = (
        [np.stack(values[start : start + len(seeds)]) for start in starts] for values in zip(*of_model)
    )
    errors, heads, diverged = np.stack(errors), np.stack(heads), np.stack(diverged)
    errors[diverged] = np.nan
    kept = traces if trace_every else None, nets if keep_nets else None
    return ToyResult(settings, seeds, checkpoints, errors, heads, diverged, *kept)


def _engine(kind: type, engine: str, device: str, threads: int | None) -> CompiledEngine | StackEngine:
    on_cpu = device in ("cpu", "auto")
    check.choice("engine", engine, ENGINES)
    if kind is VariantSetting:
        if engine != "auto" or not on_cpu:
            raise ValueError(f"engine must be auto on the CPU for SAM's variants, not {engine!r} on {device!r}")
        return StackEngine()
    if engine == "compiled" and not on_cpu:
        raise ValueError(f"the compiled engine runs on the CPU; device {device!r} needs engine='torch'")
    return StackEngine(device) if engine == "torch" or not on_cpu else CompiledEngine(threads)


class CompiledEngine:
    """Trains batches of models of one width on the CPU's cores."""

    def __init__(self, threads: int | None = None) -> None:
        """threads: how many (None: one a core). Raises ValueError for more than there are cores."""
        self.threads = check.whole("threads", cpu_count() if threads is None else threads, 1, cpu_count())

    key = staticmethod(attrgetter("width", "data.training_points", "data.test_points"))
    at_once = 32  # between two of which progress is shown

    def run(self, models: Sequence[Model], checkpoints: Sequence[float], trace_every: int, keep_nets: bool) -> Record:
        """Train `models` from start to end."""
        width = models[0].setting.width
        wide, kept = kernel.padded(width), len(checkpoints) * keep_nets
        data, evaluation, index = points(models)
        nets = np.stack([_resized(model.start(), wide) for model in models])
        record = Record.empty(models, len(checkpoints), trace_every, kept, nets.shape[-1])
        heads = np.array([model.setting.head for model in models], dtype=np.float64)

        def train(m: int) -> None:
            s, training = models[m].setting, data[index[m]]
            order = batch_order(models[m].seed, len(training), s.epochs)
            own = training[:, :4], training[:, 4], evaluation[index[m]], order
            found = stops(s, checkpoints), *(array[m] for array in record[:4])  # filled in place
            kernel.train(nets[m], wide, heads[m], _config(s), own, found, trace_every)

        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(train, range(len(models))))
        diverged = ~(np.isfinite(nets).all(axis=(1, 2)) & np.isfinite(heads).all(axis=1))
        return record._replace(diverged=diverged, nets=_resized(record.nets, width))


def _config(s: ToySetting) -> Any:
    """The setting in the kernel's numbers."""
    config = np.zeros((), dtype=kernel.CONFIG)
    for name in (*kernel.NUMBERS, *kernel.COUNTS):
        config[name] = getattr(s, name) or 0
    if s.phantom_shift and not s.phantom_points:
        config["phantom_points"] = min(s.batch_size, s.data.training_points)
    config["rate_easy"], config["rate_hard"] = s.rates
    config["first"], config["last"] = s.window
    for name in kernel.CODES:
        config[name] = CHOICES[name].index(getattr(s, name) or s.importance)
    config["with_bias"] = s.bias is not None
    return config[()]


def _resized(nets: np.ndarray, width: int) -> np.ndarray:
    """Flat weights (..., size) at another width: neurons that are added have zero weights, and keep them."""
    out = np.zeros((*nets.shape[:-1], net_size(width)), np.float32)
    new = unpack(out)
    for name, part in unpack(nets).items():
        common = tuple(slice(0, min(lengths)) for lengths in zip(part.shape, new[name].shape))
        new[name][common] = part[common]
    return out
