"""The compiled engine behind `lib.toy.ensemble.train`: prepares arrays for `lib.toy.kernel` and reads its records."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from typing import Any

import numpy as np
from joblib import cpu_count

from lib import check
from lib.toy import kernel
from lib.toy.nets import Model, Record, batch_order, net_size, points, stops, unpack
from lib.toy.setting import CHOICES, ToySetting

MODELS_AT_ONCE = 32  # between two of which progress is shown


class CompiledEngine:
    """Trains batches of models of one width on the CPU's cores."""

    def __init__(self, threads: int | None = None) -> None:
        """threads: how many (None: one a core). Raises ValueError for more than there are cores."""
        self.threads = check.whole("threads", cpu_count() if threads is None else threads, 1, cpu_count())

    key = staticmethod(attrgetter("width", "data.training_points", "data.test_points"))
    at_once = MODELS_AT_ONCE

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
