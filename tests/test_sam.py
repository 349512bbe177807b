"""Chapter 01: the surface agrees with autograd, walks and invariants are what optimizers promise, times are fair."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from torch.nn import functional as F

from book import sam
from book.sam import GOALS, LEAST_ROUNDS, METHODS, STEPS, Surface, costs, verdict, walk, walks

SURFACE = Surface()
BENCHMARK = Path(__file__).resolve().parents[1] / "benchmarks" / "optimizer_step.py"


def test_surface_is_the_loss_of_the_net_that_walks_on_it():
    points = np.array([[3.0, 0.3], [1.2, 2.0], [-0.5, 1.0]])
    x, y = SURFACE.sample
    losses = [F.softplus(-y * sam.product_net(*point)(x[:, None])).mean().item() for point in points]
    np.testing.assert_allclose(SURFACE.loss(points), losses, rtol=1e-6)
    step = 1e-5 * np.eye(2)[:, None]
    slopes = (SURFACE.loss(points + step) - SURFACE.loss(points - step)) / 2e-5
    np.testing.assert_allclose(SURFACE.gradient(points), slopes.T, rtol=1e-5, atol=1e-9)
    assert SURFACE.loss(points.reshape(3, 1, 2)).shape == SURFACE.sharpness(points.reshape(3, 1, 2)).shape == (3, 1)


def test_loss_is_least_in_the_valley_and_flattest_where_it_is_balanced():
    best = SURFACE.valley
    assert np.abs(SURFACE.gradient(np.array([best, 1.0]))).max() < 1e-9
    along = np.linspace(0.5, 4, 50)
    sharpest = SURFACE.sharpness(np.stack([along, best / along], axis=-1))
    assert SURFACE.sharpness(np.full(2, best**0.5)) <= sharpest.min() + 1e-9


@pytest.mark.parametrize("method", METHODS)
def test_phantoms_lie_at_rho_along_what_the_method_perturbs(method):
    weights, phantoms = walk(method, 0.4, 20, 0)
    offsets = phantoms - weights[:-1]
    assert np.linalg.norm(offsets, axis=1) == pytest.approx(0.0 if method == "SGD" else 0.4, rel=1e-5)
    assert (offsets[:, 0] == 0).all() == (method != "SAM")


def test_walks_are_those_of_their_seeds_and_without_radius_one():
    runs = walks("SAM", 0.3, 5, 3)
    assert runs.shape == (3, 6, 2)
    assert np.array_equal(runs[2], walk("SAM", 0.3, 5, 2)[0]) and not np.array_equal(runs[0], runs[1])
    same = [walk(method, 0.0, 20, 3)[0] for method in METHODS]
    assert all(np.array_equal(run, same[0]) for run in same)


def test_unknown_method_is_one_line():
    with pytest.raises(ValueError, match="^method must be one of SGD, SAM, LSAM, not 'sam'$"):
        walk("sam", 0.1, 1, 0)


@pytest.mark.parametrize("method", ["SAM", "LSAM"])
@pytest.mark.parametrize("rho", [0.0, 0.05, 2.0])
def test_invariants_hold(method, rho):
    found = sam.measure(method, rho)
    assert sam.hold(found) and found["batch_norm_steps"] == STEPS
    assert found["fused"] < 1e-5


@pytest.mark.parametrize("broken", ["distance", "restoration", "rho_zero", "resumed"])
def test_one_broken_invariant_is_told(broken):
    exact = {"distance": 9e-6, "restoration": 0.0, "rho_zero": 0.0, "resumed": 0.0}
    assert sam.hold(exact) and not sam.hold(exact | {broken: 1e-5})


@pytest.mark.parametrize("rho", [0.0, 0.5])
def test_figures_have_a_panel_for_each_method_whatever_the_radius(rho):
    runs = {method: walk(method, rho, 3, 0) for method in METHODS}
    for fig in (sam.anatomy((2.4, 1.25), rho), sam.trajectories(runs)):
        assert [ax.get_title(loc="left") or ax.get_title() for ax in fig.axes] == list(METHODS)
        plt.close(fig)
    fig = sam.drift({method: run[0][None] for method, run in runs.items()})
    assert len(fig.axes[0].get_legend().get_texts()) == len(METHODS)
    plt.close(fig)


def test_times_are_of_turns_of_a_period_each_round_beginning_with_another(monkeypatch):
    taken: list[str] = []
    monkeypatch.setattr(sam, "prepared", lambda name, *_: (None, partial(taken.append, name)))
    times = sam.step_times(0, methods=["A", "B", "C"], period=2)
    rounds = ["".join(taken[i : i + 6]) for i in range(0, len(taken), 6)]
    assert rounds[:4] == ["aabbcc", "bbccaa", "ccaabb", "aabbcc"]
    assert list(times) == ["A", "B", "C"] and len(times) == LEAST_ROUNDS == len(rounds) - sam.WARM_UP


def test_figure_of_costs_has_a_row_for_each_method_but_the_first():
    fig = sam.cost(sam.step_times(0, batch_size=2))
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ["LSAM", "SAM"]
    *dots, interval = (fig.axes[0].collections[k].get_zorder() for k in range(3))
    assert max(dots) < interval, "no round lies over the interval"
    plt.close(fig)


def test_cost_is_the_median_of_ratios_in_the_same_round_with_the_interval_of_ordered_rounds():
    """About the binomial one: of 101 rounds the 41st and the 61st ratio, whatever the reference's own time."""
    ratios, slow = np.random.default_rng(0).permutation(np.linspace(1, 2, 101)), np.linspace(0.1, 0.2, 101)
    first, found = (one for _, one in costs(pd.DataFrame({"SGD": slow, "SAM": ratios * slow})).iterrows())
    assert (first["ratio"], first["low"], first["high"]) == (1, 1, 1) and first["seconds"] == pytest.approx(0.15)
    assert found["ratio"] == pytest.approx(1.5) and found["seconds"] == np.median(ratios * slow)
    assert found["low"] == pytest.approx(1.40, abs=0.02) and found["high"] == pytest.approx(1.60, abs=0.02)
    assert costs(pd.DataFrame({"SGD": [1.0, 2.0, 3.0], "SAM": [2.0, 6.0, 3.0]})).ratio["SAM"] == 2


BORDER = GOALS["LSAM"]
INTERVALS = {
    "met": [(1.0, 1.05), (1.0, BORDER)],
    "undecided": [(1.05, 1.1001), (BORDER, 1.2)],
    "missed": [(1.1001, 1.2)],
}


@pytest.mark.parametrize("expected, low, high", [(word, *ends) for word, all_ in INTERVALS.items() for ends in all_])
def test_verdict_needs_the_whole_interval(expected, low, high):
    assert verdict("LSAM", low, high) == expected


@pytest.mark.parametrize(
    "arguments", [{"seconds": -1}, {"seconds": float("nan")}, {"batch_size": 1.5}, {"batch_size": 0}, {"threads": 0}]
)
def test_bad_argument_is_one_line_that_names_it(arguments):
    with pytest.raises(ValueError, match=f"^{[*arguments][0]} must be"):
        sam.step_times(**{"seconds": 1} | arguments)


@pytest.mark.parametrize("batch_size, rows", [(2, ["SGD", "LSAM", "SAM"]), (0, [])])
def test_command_line_prints_one_row_a_method_or_one_line(batch_size, rows):
    command = [sys.executable, BENCHMARK, "--seconds", "0", "--batch-size", str(batch_size)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert [line.split()[0] for line in run.stdout.splitlines()[2:]] == rows
    assert run.returncode == (0 if rows else 2) and "Traceback" not in run.stderr
    if not rows:
        assert run.stderr.splitlines()[-1].endswith("batch_size must be a whole number of at least 1, not 0")
