"""What a step costs: SGD, LSAM and SAM side by side on the conv net, as ratios to SGD."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lib.device import threads as device_threads
from lib.models import ConvNet
from lib.optim import LSAM, SAM

GOALS = {"LSAM": 1.10, "SAM": 2.10}  # at most this many times SGD's step: goals set here, not the paper's
WARM_UP, LEAST_ROUNDS = 2, 8


@dataclass(frozen=True)
class StepCost:
    """Seconds of a step, and its ratio to SGD's of the same round: medians over rounds."""

    seconds: float
    ratio: float
    low: float  # 95 % bootstrap interval of the median ratio
    high: float
    ratios: np.ndarray  # shape (rounds,)


def step_costs(
    seconds: float, batch_size: int = 100, threads: int = 1, device: torch.device | str = "cpu"
) -> dict[str, StepCost]:
    """The cost of a step of SGD, LSAM (fused) and SAM on `ConvNet`, measured for about `seconds`.

    Each method has a net of its own from one seed, in channels_last; all see one batch of noise images of
    64 by 32 pixels. With one thread on the CPU the clock is the process's own, which leaves out what other
    programs take; elsewhere it is the wall's. Raises ValueError for a number out of range.
    """
    for name, value in (("batch_size", batch_size), ("threads", threads)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive integer, not {value!r}")
    if not seconds >= 0:
        raise ValueError(f"seconds must be at least 0, not {seconds!r}")
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(batch_size, 3, 64, 32, generator=draw).to(device, memory_format=torch.channels_last)
    labels = torch.randint(2, (batch_size,), generator=draw).to(device)
    loss_function = partial(F.cross_entropy, target=labels)
    steps = {method: _step(method, images, loss_function) for method in ("SGD", "LSAM", "SAM")}
    alone = images.device.type == "cpu" and threads == 1
    clock = time.process_time if alone else time.perf_counter
    with device_threads(threads):
        times = interleaved_seconds(steps, seconds, images.device, clock)
    return {method: _against(times["SGD"], own) for method, own in times.items()}


def interleaved_seconds(
    steps: Mapping[str, Callable[[], object]],
    seconds: float,
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, np.ndarray]:
    """Seconds of each of `steps` in each round, shape (rounds,), in about `seconds` by the clock, eight at
    least.

    A round runs every step once, each round beginning with another, so that whatever else the machine does
    meanwhile falls on all alike. A few rounds before the first do not count.
    """
    names = list(steps)
    times: dict[str, list[float]] = {name: [] for name in names}
    begin, number = clock(), 0
    while number < WARM_UP + LEAST_ROUNDS or clock() - begin < seconds:
        first = number % len(names)
        for name in names[first:] + names[:first]:
            start = clock()
            steps[name]()
            if device.type != "cpu":
                torch.accelerator.synchronize()
            times[name].append(clock() - start)
        number += 1
    return {name: np.array(values[WARM_UP:]) for name, values in times.items()}


def verdict(method: str, cost: StepCost) -> str:
    """``"met"`` where the interval is within the goal, ``"missed"`` where beyond it, else ``"undecided"``."""
    if cost.high <= GOALS[method]:
        return "met"
    return "missed" if cost.low > GOALS[method] else "undecided"


def _step(method: str, images: Tensor, loss_function: Callable[[Tensor], Tensor]) -> Callable[[], object]:
    """One step of `method` on a fresh net, as a function without arguments."""
    torch.manual_seed(0)
    model = ConvNet().to(images.device, memory_format=torch.channels_last)
    settings = {"lr": 0.01, "momentum": 0.9}

    def closure() -> Tensor:
        loss = loss_function(model(images))
        loss.backward()
        return loss

    if method == "LSAM":
        return partial(LSAM(model, **settings).step_fused, images, loss_function)
    if method == "SAM":
        return partial(SAM(model.parameters(), **settings).step, closure)
    optimizer = torch.optim.SGD(model.parameters(), **settings)

    def step() -> None:
        optimizer.zero_grad()
        closure()
        optimizer.step()

    return step


def _against(reference: np.ndarray, own: np.ndarray) -> StepCost:
    ratios = own / reference
    draws = np.random.default_rng(0).choice(ratios, size=(4000, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return StepCost(float(np.median(own)), float(np.median(ratios)), float(low), float(high), ratios)
