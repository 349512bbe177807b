"""What one LSAM step of one toy net costs in each engine, as ratios measured side by side in one run.

    python benchmarks/toy_engine.py [--models 64] [--rounds 5]

The engines take turns, round after round, and each figure is the median over rounds, so that a noisy
machine slows all alike.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import joblib
import numba
import numpy as np
import torch

from lib.data.toy import ToyConstants, sample
from lib.models import ToyNet
from lib.optim import LSAM
from lib.toy.ensemble import ToySetting, batch_order, lsam, train

WIDTH, BATCH = 64, 5


def arithmetic(width: int, rows: int) -> int:
    """Multiplications and additions of one LSAM step: three products with each layer's weights (but no
    slope in x), two nets."""
    return 2 * 2 * rows * (3 * width * width + 2 * 2 * width + 3 * width)


@numba.njit(fastmath={"contract"})
def _multiply_add(repeats, values, factor, term):
    for _ in range(repeats):
        for j in range(128):
            values[j] = values[j] * factor + term


def core_peak() -> float:
    """Float32 operations a second of one core: fused multiply-adds on values that stay in registers."""
    values, factor, term = np.ones(128, np.float32), np.float32(0.999), np.float32(0.001)
    _multiply_add(1, values, factor, term)
    rates = []
    for _ in range(5):
        start = time.perf_counter()
        _multiply_add(1_000_000, values, factor, term)
        rates.append(1_000_000 * 2 * 128 / (time.perf_counter() - start))
    return max(rates)


def seconds(run: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def plain_loop(setting: ToySetting, steps: int) -> None:
    """One model in the obvious way: a module, an optimizer, `steps` steps of two evaluations."""
    net = ToyNet(setting.width)
    optimizer = LSAM(net, base=torch.optim.SGD, rho=setting.rho, lr=setting.learning_rate)
    points = sample(setting.data, 0)
    x, y = torch.from_numpy(points.x), torch.from_numpy(points.y)
    order = torch.tensor(batch_order(0, len(x), setting.epochs)).flatten()
    for step in range(steps):
        chosen = order[step * setting.batch_size : (step + 1) * setting.batch_size]

        def closure(chosen=chosen):
            loss = torch.nn.functional.softplus(-y[chosen] * net(x[chosen])).mean()
            loss.backward()
            return loss

        optimizer.step(closure)


def medians(rounds: int, contenders: dict[str, tuple[Callable[[], object], float]]) -> dict[str, float]:
    """Median seconds a unit of work; each contender is (call, units of work in a call), all take turns."""
    for run, _ in contenders.values():
        run()  # compiled, cached, warm
    times = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, (run, units) in contenders.items():
            times[name].append(seconds(run) / units)
    return {name: statistics.median(values) for name, values in times.items()}


def engines(models: int, rounds: int) -> None:
    """The table of the engines at the paper's batch size and our width."""
    data = ToyConstants(test_points=100)
    full, short = lsam(0.5, data=data), lsam(0.5, data=data, epochs=2)
    plain = lsam(0.5, data=data, epochs=10)
    cores = joblib.cpu_count()
    contenders = {
        f"compiled, {cores} threads": (lambda: train([full], range(models)), models * full.steps),
        "compiled, 1 thread": (lambda: train([full], range(models // cores), threads=1), models // cores * full.steps),
        "torch, batched": (lambda: train([short], range(models), engine="torch"), models * short.steps),
        "torch, one model at a time": (lambda: plain_loop(plain, 300), 300),
    }
    times = medians(rounds, contenders)
    best = times[f"compiled, {cores} threads"]
    peak, work = core_peak(), arithmetic(WIDTH, BATCH)
    print(
        f"width {WIDTH}, batch {BATCH}, {models} models: {work / 1e3:.0f} kFLOP a model and step; "
        f"one core's peak {peak / 1e9:.0f} GFLOP/s"
    )
    columns = f"{'µs a model and step':>20} {'times compiled':>15} {'GFLOP/s a core':>15} {'of peak':>8}"
    print(f"{'engine':<28} {columns}")
    for name, value in times.items():
        used = 1 if "1 thread" in name else cores
        rate = work / value / used
        print(f"{name:<28} {1e6 * value:>20.2f} {value / best:>15.1f} {rate / 1e9:>15.1f} {rate / peak:>8.0%}")


def shapes(models: int, rounds: int) -> None:
    """Other widths and batch sizes, by the arithmetic that they do."""
    data = ToyConstants(test_points=100)
    pairs = [(64, 5), (32, 5), (100, 5), (128, 5), (256, 5), (64, 1), (64, 2), (64, 8), (64, 32), (64, 300)]
    runs = {}
    for width, batch in pairs:
        epochs = max(2, round(200 * arithmetic(64, 5) / arithmetic(width, batch) * batch / 5))
        setting = lsam(0.5, data=data, width=width, batch_size=batch, epochs=epochs)
        runs[f"{width} {batch}"] = (
            lambda setting=setting: train([setting], range(models)),
            models * setting.epochs * 300 / batch * arithmetic(width, batch),
        )
    times = medians(rounds, runs)
    print(f"\n{'width':>6} {'batch':>6} {'µs a model and step':>20} {'ns a kFLOP':>11} {'against 64, 5':>14}")
    for (width, batch), value in zip(pairs, times.values(), strict=True):
        print(
            f"{width:>6} {batch:>6} {1e6 * value * arithmetic(width, batch):>20.2f} {1e12 * value:>11.2f} "
            f"{value / times['64 5']:>14.2f}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    engines(arguments.models, arguments.rounds)
    shapes(max(2, arguments.models // 8), arguments.rounds)
