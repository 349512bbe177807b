"""What a step costs: the measurement is fair, whatever the machine."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from book.sam_cost import LEAST_ROUNDS, StepCost, interleaved_seconds, step_costs, verdict

BENCHMARK = Path(__file__).resolve().parents[1] / "benchmarks" / "optimizer_step.py"


def test_every_round_runs_every_step_once_and_begins_with_another() -> None:
    order: list[str] = []
    steps = {name: partial(order.append, name) for name in "abc"}
    times = interleaved_seconds(steps, 0, torch.device("cpu"))
    rounds = ["".join(order[i : i + 3]) for i in range(0, len(order), 3)]
    assert rounds[:4] == ["abc", "bca", "cab", "abc"]
    assert {len(values) for values in times.values()} == {LEAST_ROUNDS}


def test_ratios_are_to_sgd_in_the_same_round() -> None:
    costs = step_costs(0, batch_size=2)
    assert list(costs) == ["SGD", "LSAM", "SAM"] and np.all(costs["SGD"].ratios == 1)
    for cost in costs.values():
        assert cost.low <= cost.ratio <= cost.high and len(cost.ratios) == LEAST_ROUNDS


INTERVALS = [(1.0, 1.05, "met"), (1.05, 1.2, "undecided"), (1.2, 1.3, "missed")]


@pytest.mark.parametrize("low, high, expected", INTERVALS)
def test_verdict_needs_the_whole_interval(low: float, high: float, expected: str) -> None:
    assert verdict("LSAM", StepCost(0.1, (low + high) / 2, low, high, np.ones(3))) == expected


@pytest.mark.parametrize(
    "arguments, name",
    [
        ({"seconds": -1}, "seconds"),
        ({"seconds": float("nan")}, "seconds"),
        ({"seconds": 1, "batch_size": 0}, "batch_size"),
        ({"seconds": 1, "batch_size": 1.5}, "batch_size"),
        ({"seconds": 1, "threads": 0}, "threads"),
    ],
)
def test_bad_argument_is_one_line_that_names_it(arguments: dict, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be"):
        step_costs(**arguments)


def benchmark(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, BENCHMARK, *arguments], capture_output=True, text=True)


def test_command_line_prints_one_row_a_method() -> None:
    run = benchmark("--seconds", "0", "--batch-size", "2")
    assert run.returncode == 0, run.stderr
    assert [line.split()[0] for line in run.stdout.splitlines()[2:]] == ["SGD", "LSAM", "SAM"]


def test_command_line_refuses_a_bad_argument_in_one_line() -> None:
    run = benchmark("--batch-size", "0")
    assert run.returncode == 2 and "Traceback" not in run.stderr
    assert run.stderr.splitlines()[-1].endswith("batch_size must be a positive integer, not 0")
