"""One interface to train any number of toy nets at once: settings x seeds, each with its own rho,
complexity, noise, intervention.

    result = train([sgd(), lsam(0.5)], seeds=range(20))
    result.error("hard")[:, :, -1]        # (settings, seeds), at the end of training

Two engines agree behind it: ``lib.toy.kernel`` (compiled, the default on the CPU) and ``lib.toy.reference``
(torch, any device). All settings of one seed share their labels and latents, the nets' initial weights and
the order of the batches.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from lib.data.toy import SPLITS
from lib.toy.compiled import CompiledEngine
from lib.toy.nets import Model, batch_order, features, initial_nets, net_size, stops, unpack
from lib.toy.reference import TorchEngine
from lib.toy.setting import ANCHORS, FACTORS, ToySetting, intervention, lsam, sgd

__all__ = [
    "ANCHORS",
    "FACTORS",
    "FEATURES",
    "ToyResult",
    "ToySetting",
    "batch_order",
    "features",
    "initial_nets",
    "intervention",
    "lsam",
    "net_size",
    "sgd",
    "stops",
    "train",
    "unpack",
]

FEATURES = ("easy", "hard", "model")
ENGINES = ("auto", "compiled", "torch")


@dataclass(frozen=True)
class ToyResult:
    """Records of an ensemble; axes in this order: setting, seed, checkpoint, ...

    errors: (setting, seed, checkpoint, split, feature), feature one of `FEATURES`, split one of train,
        validation, test; errors against the true attributes for "easy" and "hard" (on the clean splits),
        against the label for "model". NaN where diverged.
    heads: (setting, seed, checkpoint, 2), the real (w_e, w_h).
    diverged: (setting, seed), True where any weight is not finite at the last checkpoint.
    traces: [setting] -> (seed, step / trace_every, 4): w_e, w_h and the phantom's, before the step's
    update; or None.
    nets: [setting] -> (seed, checkpoint, 2, size), flat weights of f_e and f_h (layout: `unpack`); or None.
    """

    settings: tuple[ToySetting, ...]
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
    settings: Iterable[ToySetting],
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
    """Train every setting from every seed.

    checkpoints: increasing fractions of training in [0, 1] (0: before the first step) at which errors and
    heads are recorded.
    trace_every: 0, or every how many steps the real and the phantom head are recorded. keep_nets: keep
    weights at checkpoints.
    engine: "compiled" (CPU), "torch" (`device`), or "auto": compiled on the CPU, torch on any other device.
    threads: of the compiled engine (None: one a core); it changes no result. Raises ValueError for what is
    not allowed.
    """
    settings, seeds, checkpoints = (
        tuple(settings),
        tuple(int(seed) for seed in seeds),
        tuple(float(c) for c in checkpoints),
    )
    if not settings or not all(isinstance(setting, ToySetting) for setting in settings):
        raise ValueError("settings must be one ToySetting or more")
    if not seeds or min(seeds) < 0:
        raise ValueError(f"seeds must be one whole number or more, none negative, not {seeds!r}")
    if not checkpoints or min(checkpoints) < 0 or max(checkpoints) > 1 or list(checkpoints) != sorted(set(checkpoints)):
        raise ValueError(f"checkpoints must be increasing fractions between 0 and 1, not {checkpoints!r}")
    if trace_every < 0:
        raise ValueError(f"trace_every must be 0 or more steps, not {trace_every!r}")
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, not {engine!r}")
    if engine == "compiled" and device not in ("cpu", "auto"):
        raise ValueError(f"the compiled engine runs on the CPU; device {device!r} needs engine='torch'")
    on_torch = engine == "torch" or (engine == "auto" and device not in ("cpu", "auto"))
    runner: TorchEngine | CompiledEngine = TorchEngine(device) if on_torch else CompiledEngine(threads)
    count = len(settings), len(seeds), len(checkpoints)
    errors, heads = np.full((*count, len(SPLITS), 3), np.nan), np.full((*count, 2), np.nan)
    diverged = np.zeros(count[:2], dtype=bool)
    nets = [np.empty((*count[1:], 2, net_size(s.width)), np.float32) for s in settings] if keep_nets else None
    traces = (
        [np.empty((count[1], -(-s.steps // trace_every), 4), np.float32) for s in settings] if trace_every else None
    )
    total = sum(setting.steps for setting in settings) * len(seeds)
    # disable=None: shown in a terminal only, so that nothing of it reaches an executed page.
    with tqdm(
        total=total, unit="step", unit_scale=True, desc="toy nets", delay=2, disable=None if progress else True
    ) as bar:
        for group in _groups(settings, seeds, runner.key):
            for batch in runner.batches(group):
                record = runner.run(batch, checkpoints, trace_every, keep_nets)
                for m, model in enumerate(batch):
                    at = model.setting_index, model.seed_index
                    errors[at], heads[at], diverged[at] = (record.errors[m], record.heads[m], record.diverged[m])
                    if traces is not None:
                        traces[at[0]][at[1]] = record.traces[m][: traces[at[0]].shape[1]]
                    if nets is not None:
                        nets[at[0]][at[1]] = record.nets[m]
                bar.update(sum(model.setting.steps for model in batch))
    errors[diverged] = np.nan
    return ToyResult(settings, seeds, checkpoints, errors, heads, diverged, traces, nets)


def _groups(settings, seeds, key) -> list[list[Model]]:
    """All models, those together whose arrays an engine can stack."""
    groups: dict = {}
    for i, setting in enumerate(settings):
        for j, seed in enumerate(seeds):
            groups.setdefault(key(setting), []).append(Model(setting, seed, i, j))
    return list(groups.values())
