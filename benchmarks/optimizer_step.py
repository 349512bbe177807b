"""What a step of SGD, LSAM and SAM costs on the conv net: ``python benchmarks/optimizer_step.py``."""

from __future__ import annotations

import argparse

from book.sam import GOALS, costs, step_times, verdict
from lib import device


def main() -> None:
    parser = argparse.ArgumentParser(description="Times steps of SGD, LSAM and SAM on the conv net in turn.")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to measure (default 20)")
    parser.add_argument("--batch-size", type=int, default=100, help="images a batch (default 100)")
    parser.add_argument("--threads", type=int, default=1, help="threads of the CPU (default 1)")
    parser.add_argument("--device", default="cpu", help="auto, cuda, mps or cpu (default cpu)")
    given = parser.parse_args()
    try:
        where = device.pick(given.device)
        times = step_times(given.seconds, given.batch_size, given.threads, where)
    except ValueError as error:
        parser.error(str(error))
    print(
        f"conv net at 64 by 32 pixels, batch {given.batch_size}, on {where}: {len(times)} rounds, "
        f"{given.threads} thread{'s' if given.threads > 1 else ''}"
    )
    print(f"{'':6}{'ms a step':>10}{'times SGD':>11}{'95 % interval':>18}{'goal':>8}")
    for method, cost in costs(times).iterrows():
        row = f"{method:6}{1e3 * cost.seconds:10.1f}{cost.ratio:11.3f}"
        if method in GOALS:
            interval = f"[{cost.low:.3f}, {cost.high:.3f}]"
            row += f"{interval:>18}{GOALS[method]:8.2f}  {verdict(method, cost.low, cost.high)}"
        print(row)


if __name__ == "__main__":
    main()
