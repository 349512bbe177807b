"""What both engines share: the nets' flat weights, their start, order of batches, data and record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from lib.data.toy import SPLITS, ToyConstants, sample
from lib.toy.setting import Training


def net_size(width: int) -> int:
    """Parameters of one of the two nets."""
    return width * width + 5 * width + 1


def unpack(net: Any) -> dict[str, Any]:
    """Views into flat weights (..., size), of NumPy or torch: W1 (2, H), b1 (H), W2 (H, H), b2 (H), w3 (H), b3 ();
    weights as (input, output)."""
    width = int(round((-5 + np.sqrt(25 + 4 * (net.shape[-1] - 1))) / 2))
    lengths = {"W1": (2, width), "b1": (width,), "W2": (width, width), "b2": (width,), "w3": (width,), "b3": ()}
    parts, start = {}, 0
    for name, shape in lengths.items():
        stop = start + int(np.prod(shape))
        parts[name] = net[..., start:stop].reshape((*net.shape[:-1], *shape))
        start = stop
    return parts


@dataclass(frozen=True)
class Model:
    """One net, how it is trained, and its place among all."""

    setting: Any
    seed: int
    number: int = 0

    def start(self) -> np.ndarray:
        """Its `initial_nets`."""
        return initial_nets(self.seed, self.setting.width, self.setting.gain, self.setting.bias)


def initial_nets(seed: int, width: int, gain: float = 1.0, bias: float | None = 1.0) -> np.ndarray:
    """Flat weights (2, size) at the start: PyTorch's default for linear layers, uniform within 1 / sqrt(inputs), times
    `gain`, and biases times `bias` besides (None: 0)."""
    generator = np.random.default_rng([seed, 0x5EED])
    nets = np.empty((2, net_size(width)), dtype=np.float32)
    for net in nets:
        for name, part in unpack(net).items():
            inputs = 2 if name in ("W1", "b1") else width
            part[...] = generator.uniform(-1, 1, size=part.shape) / np.sqrt(inputs)
            part *= np.float32(gain * (bias or 0.0) if name.startswith("b") else gain)
    return nets


@lru_cache(maxsize=64)
def batch_order(seed: int, points: int, epochs: int) -> np.ndarray:
    """(epochs, points) int32, read-only: a permutation an epoch; a longer training begins with a shorter one's
    order."""
    generator = np.random.default_rng([seed, 0xBA7C])
    order = np.stack([generator.permutation(points) for _ in range(epochs)]).astype(np.int32)
    order.setflags(write=False)
    return order


def features(net: np.ndarray, x: np.ndarray) -> np.ndarray:
    """f(x) (..., n) of flat weights (..., size) of one feature's net on its inputs (n, 2), float32."""
    part = unpack(np.asarray(net))
    hidden = np.maximum(np.asarray(x, np.float32) @ part["W1"] + part["b1"][..., None, :], 0)
    hidden = np.maximum(hidden @ part["W2"] + part["b2"][..., None, :], 0)
    return (hidden @ part["w3"][..., None])[..., 0] + part["b3"][..., None]


def stops(setting: Training, checkpoints: Sequence[float]) -> np.ndarray:
    """The steps nearest to the checkpoints, given as fractions of training."""
    return np.array([round(fraction * setting.steps) for fraction in checkpoints], dtype=np.int64)


def points(models: Sequence[Model]) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Data of a batch of models, each set drawn once: training (d, n, 5), validation and test (d, 2, points, 5), and
    each model's d.

    The five columns are x_e, x_h and y, float32.
    """
    where: dict = {}
    index = [where.setdefault((model.setting.data, model.seed), len(where)) for model in models]
    drawn = [_points(*key) for key in where]
    return np.stack([pair[0] for pair in drawn]), np.stack([pair[1] for pair in drawn]), index


@lru_cache(maxsize=256)
def _points(constants: ToyConstants, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Training (n, 5) and validation and test (2, points, 5) of one set; kept, since neighbours in a grid share it."""
    columns = [np.column_stack([split.x, split.y]) for split in (sample(constants, seed, name) for name in SPLITS)]
    return columns[0], np.stack(columns[1:])


class Record(NamedTuple):
    """What an engine returns for m models: as `lib.toy.ensemble.ToyResult`, with the model as first axis."""

    errors: np.ndarray
    heads: np.ndarray
    nets: np.ndarray
    traces: np.ndarray
    diverged: np.ndarray

    @classmethod
    def empty(
        cls, models: Sequence[Model], stops: int, trace_every: int, kept: int, size: int, columns: int = 4
    ) -> Record:
        """Nothing recorded yet: nets (of this `size`) at `kept` of the `stops`, heads every `trace_every` steps."""
        count, longest = len(models), max(model.setting.steps for model in models)
        rows = -(-longest // trace_every) if trace_every else 0
        nets, single = np.empty((count, kept, 2, size), np.float32), np.float32 if columns == 4 else np.float64
        traces = np.full((count, rows, columns), np.nan, single)
        errors, heads = np.empty((count, stops, len(SPLITS), 3)), np.empty((count, stops, 2))
        return cls(errors, heads, nets, traces, np.empty(count, bool))
