"""What a step of each variant costs: passes through the conv net, counted, and time, as ratios to SGD's."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from book.sam import interleaved_seconds
from lib.device import threads
from lib.models import ConvNet
from lib.optim.constants import CONSTANTS
from lib.optim.variants import VARIANTS, WITHOUT_RADIUS, take_step

BATCH, SIDE, CLASSES = 50, 32, 2
PERIOD = CONSTANTS.looksam_period  # steps that are counted, and timed, together


@dataclass(frozen=True)
class Passes:
    """Batches of examples that go through the body in one step, in the mean over a period."""

    forward: float
    backward: float


def passes(method: str) -> Passes:
    """Counted on the conv net: an example forward, or its gradient backward, through the first layer."""
    model, step = _prepared(method)
    examples = {"forward": 0, "backward": 0}

    def count(way: str, tensor: Tensor) -> None:
        examples[way] += len(tensor)

    def passed(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        count("forward", output)
        if output.requires_grad:
            output.register_hook(partial(count, "backward"))

    model.body[0].register_forward_hook(passed)
    with threads(1):
        step()
    return Passes(*(examples[way] / (PERIOD * BATCH) for way in ("forward", "backward")))


def time_ratios(methods: Sequence[str], seconds: float) -> dict[str, tuple[float, float, float]]:
    """Median over rounds of a step's time over SGD's of the same round, with its 95 % bootstrap interval.

    All methods on one thread by the process's clock, in turns, for about `seconds`; at least eight rounds.
    """
    steps = {name: _prepared(name)[1] for name in dict.fromkeys(("sgd", *methods))}
    with threads(1):
        times = interleaved_seconds(steps, seconds, torch.device("cpu"), time.process_time)
    found = {}
    for name in methods:
        ratios = times[name] / times["sgd"]
        draws = np.random.default_rng(0).choice(ratios, size=(4000, len(ratios)))
        low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
        found[name] = float(np.median(ratios)), float(low), float(high)
    return found


def _prepared(method: str) -> tuple[nn.Module, Callable[[], None]]:
    """A fresh conv net, and a function that takes a period's steps with one batch of noise images."""
    torch.manual_seed(0)
    model = ConvNet(CLASSES, height=SIDE, width=SIDE).to(memory_format=torch.channels_last)
    images = torch.randn(BATCH, 3, SIDE, SIDE).to(memory_format=torch.channels_last)
    labels = torch.randint(CLASSES, (BATCH,))
    rho = 0.0 if method in WITHOUT_RADIUS else 0.05
    optimizer = VARIANTS[method](model, rho, {"lr": 0.001, "momentum": 0.9, "weight_decay": 5e-4})

    def step() -> None:
        for _ in range(PERIOD):
            take_step(model, optimizer, images, labels)

    return model, step
