"""Where the time of image training goes: ``python benchmarks/training_loop.py``.

The loop of `lib.training` on generated pairs of the real size: the share of an epoch that is spent inside
steps (forward, backward, update), and the operators that take most of it.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from lib import device, training
from lib.data.dataset import Split
from lib.models import ConvNet
from lib.training import Images


def main() -> None:
    parser = argparse.ArgumentParser(description="Profiles the training loop of the paired sets.")
    parser.add_argument("--pairs", type=int, default=9000, help="training pairs (9000, as CIFAR-MNIST has)")
    parser.add_argument("--epochs", type=int, default=2, help="epochs (2)")
    parser.add_argument("--threads", type=int, default=1, help="threads of the CPU (1)")
    parser.add_argument("--device", default="auto", help="auto, cuda, mps or cpu (auto)")
    given = parser.parse_args()
    where = device.pick(given.device)
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (given.pairs, 3, 64, 32), dtype=torch.uint8, generator=random)
    labels = torch.randint(0, 2, (given.pairs,), generator=random)
    pairs, mean = Split.of(pixels, labels), torch.full((3,), 0.5)
    train, validation = Images.of(pairs, mean, where), Images.of(pairs.take(np.arange(1000)), mean, where)
    with device.threads(given.threads):
        print(f"{given.pairs} pairs, batch 100, on {where}, {given.threads} thread(s)")
        print(f"{'':6}{'ms a step':>10}{'in steps':>10}{'in validation':>15}{'else':>7}")
        for method in ("sgd", "sam", "lsam"):
            total, inside, validating, steps = _train(method, train, validation, given.epochs, where)
            shares = inside / total, validating / total, 1 - (inside + validating) / total
            print(
                f"{method:6}{1e3 * inside / steps:10.1f}"
                + "".join(f"{share:{width}.1%}" for share, width in zip(shares, (10, 15, 7)))
            )
        with profile(activities=[ProfilerActivity.CPU]) as found:
            _train("sam", train, validation, 1, where)
        print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=10, max_name_column_width=40))


def _train(method: str, train: Images, validation: Images, epochs: int, where: torch.device) -> tuple:
    """Seconds of a training, of its steps and of its validation, and the number of steps."""
    model = training.initial_model(ConvNet, 2, seed=0, device=where)
    rho = 0.0 if method == "sgd" else 0.05
    optimizer = training.make_optimizer(method, model, rho, lr=0.05, momentum=0.9)
    spent = {"take_step": [], "evaluate": []}
    plain = {name: getattr(training, name) for name in spent}

    def timed(name: str):
        def call(*arguments):
            started = time.perf_counter()
            result = plain[name](*arguments)
            if where.type == "cuda":
                torch.cuda.synchronize()
            spent[name].append(time.perf_counter() - started)
            return result

        return call

    for name in spent:
        setattr(training, name, timed(name))
    try:
        history = training.train(model, optimizer, train, validation, epochs=epochs, batch_size=100, seed=0)
    finally:
        for name, function in plain.items():
            setattr(training, name, function)
    return history.seconds, sum(spent["take_step"]), sum(spent["evaluate"]), len(spent["take_step"])


if __name__ == "__main__":
    main()
