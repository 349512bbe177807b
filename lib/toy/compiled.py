"""The compiled engine behind `lib.toy.ensemble.train`: prepares arrays for `lib.toy.kernel` and reads its records."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

import numpy as np

from lib.device import threads as torch_threads
from lib.toy import kernel
from lib.toy.nets import Model, Record, batch_order, net_size, points, stops, unpack
from lib.toy.setting import CHOICES

MODELS_PER_CALL = 32  # a compiled call cannot be interrupted: about a second of work


class CompiledEngine:
    """Trains batches of models of one width on the CPU's cores."""

    def __init__(self, threads: int | None = None) -> None:
        """threads: how many (None: one a core). Raises ValueError for more than there are cores."""
        self.threads = kernel.threads(threads)

    key = staticmethod(attrgetter("width", "data.training_points", "data.test_points"))
    at_once = MODELS_PER_CALL

    def run(self, models: Sequence[Model], checkpoints: Sequence[float], trace_every: int, keep_nets: bool) -> Record:
        """Train `models` from start to end."""
        width = models[0].setting.width
        wide = kernel.padded(width)
        count, seeds = len(models), sorted({model.seed for model in models})
        training, evaluation, data_index = points(models)
        epochs = max(model.setting.epochs for model in models)
        orders = np.stack([batch_order(seed, training.shape[1], epochs) for seed in seeds])
        nets = np.stack([_resized(model.start(), wide) for model in models])
        heads = np.array([model.setting.head for model in models], dtype=np.float64)
        at = np.stack([stops(model.setting, checkpoints) for model in models])
        configs = np.zeros(count, dtype=kernel.CONFIG)
        for config, model, data in zip(configs, models, data_index, strict=True):
            s = model.setting
            for name in (*kernel.NUMBERS, *kernel.COUNTS):
                config[name] = getattr(s, name) or 0
            if s.phantom_shift and not s.phantom_points:
                config["phantom_points"] = min(s.batch_size, s.data.training_points)
            config["rate_easy"], config["rate_hard"] = s.rates
            config["first"], config["last"] = s.window
            for name in kernel.CODES:
                config[name] = CHOICES[name].index(getattr(s, name) or s.importance)
            config["with_bias"] = s.bias is not None
            config["data"], config["order"] = data, seeds.index(model.seed)
        record = Record.empty(models, len(checkpoints), trace_every, len(checkpoints) * keep_nets, nets.shape[-1])
        out = record[:4]  # errors, heads, nets and traces are filled in place
        with torch_threads():  # Numba's threads are OpenMP's, whose number torch goes by too
            kernel.train(nets, wide, heads, configs, training, evaluation, orders, at, *out, trace_every)
        diverged = ~(np.isfinite(nets).all(axis=(1, 2)) & np.isfinite(heads).all(axis=1))
        return record._replace(diverged=diverged, nets=_resized(record.nets, width))


def _resized(nets: np.ndarray, width: int) -> np.ndarray:
    """Flat weights (..., size) at another width: neurons that are added have zero weights, and keep them."""
    out = np.zeros((*nets.shape[:-1], net_size(width)), np.float32)
    new = unpack(out)
    for name, part in unpack(nets).items():
        common = tuple(slice(0, min(lengths)) for lengths in zip(part.shape, new[name].shape))
        new[name][common] = part[common]
    return out
