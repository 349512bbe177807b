"""Chapter 10: its trials under either budget, best radii, sensitivity, and its figures."""

from __future__ import annotations

import numpy as np
import pytest

from book import figures_batch_size as figures
from book.batch_size import (
    EPOCHS,
    RADII,
    SIZES,
    STEPS,
    best_draws,
    by_size,
    epochs_of,
    largest_over_smallest,
    more_sensitive,
    plan,
    sensitivity,
)
from lib.toy.ensemble import ToySetting


def test_each_budget_fixes_what_it_is_named_for():
    for budget, fixed in (("epochs", EPOCHS), ("steps", STEPS)):
        settings = [trial.settings[0] for trial in plan(budget)]
        assert {getattr(setting, budget) for setting in settings} == {fixed}
        assert {(s.batch_size, s.rho) for s in settings} == {(size, rho) for size in SIZES for rho in RADII}
        assert len({(s.learning_rate, s.width, s.data) for s in settings}) == 1


def test_sizes_go_from_one_point_to_all_and_the_papers_is_the_same_trial_under_both_budgets():
    assert SIZES[0] == 1 and SIZES[-1] == ToySetting().data.training_points
    at = slice(SIZES.index(5) * len(RADII), (SIZES.index(5) + 1) * len(RADII))
    of_epochs, of_steps = (plan(budget)[at] for budget in ("epochs", "steps"))
    assert [trial.identity for trial in of_epochs] == [trial.identity for trial in of_steps]
    assert {trial.settings[0].batch_size for trial in of_epochs} == {5}


def test_a_last_smaller_batch_is_a_step_too():
    assert epochs_of("steps", 7, 430) == 10  # 42 batches of seven and one of six


def test_errors_come_to_their_size_and_radius_without_diverged_seeds():
    trials = plan("epochs", 10, (0.0, 2.0), (1, 5), seeds=3)
    assert [(t.settings[0].batch_size, t.settings[0].rho) for t in trials] == [(1, 0), (1, 2), (5, 0), (5, 2)]
    wrong = [[10, 20, 30], [40, None, 60], [70, 80, 90], [100, 110, 120]]
    records = [
        {"configuration": trial.configuration, "metrics": {"wrong": {"test": {"hard": [counts]}}}}
        for trial, counts in zip(trials, wrong)
    ]
    expected = np.array([[[10, 30], [40, 60]], [[70, 90], [100, 120]]]) / 2000
    np.testing.assert_allclose(by_size(records, (0.0, 2.0), "hard", "test"), expected)


def test_a_clear_best_is_the_best_in_every_draw_and_equals_share_the_draws():
    rng = np.random.default_rng(0)
    clear = np.array([0.5, 0.1, 0.4])[:, None] + 0.01 * rng.normal(size=(3, 20))
    equal = rng.normal(size=(3, 20))
    draws = best_draws(np.stack([clear, equal]))
    assert np.all(draws[0] == 1)
    assert set(np.unique(draws[1])) == {0, 1, 2}


def test_largest_over_smallest_best_radius_of_clear_minima_has_no_width():
    validation = np.full((3, 4, 10), 0.5)
    for size, best in enumerate((1, 2, 3)):
        validation[size, best] = 0.1
    found = largest_over_smallest((0.7, 1.4, 2.0, 2.8), validation)
    assert (found.mean, found.low, found.high) == (2.0, 2.0, 2.0) and found.n == 10
    assert largest_over_smallest((0.7, 1.4, 2.0, 2.8), validation[:1]).high == 1


def test_largest_over_smallest_is_uncertain_where_the_minimum_is_flat():
    validation = np.random.default_rng(0).normal(size=(3, 4, 20))
    found = largest_over_smallest((0.7, 1.4, 2.0, 2.8), validation)
    assert 1 <= found.low < found.high <= 4


def test_sensitivity_is_zero_where_the_batch_size_changes_nothing():
    errors = np.broadcast_to(np.random.default_rng(0).uniform(size=(4, 6)), (5, 4, 6))
    np.testing.assert_allclose(sensitivity(errors), 0, atol=1e-12)


def test_more_sensitive_is_the_difference_of_the_spreads_and_pairing_takes_the_seeds_noise_away():
    shared = np.random.default_rng(0).uniform(size=(1, 1, 12))
    sizes = np.array([-0.1, 0.0, 0.1])[:, None, None]
    errors = shared + sizes * np.array([0.0, 1.0, 2.0, 4.0])[None, :, None]
    found = more_sensitive(errors, [False, False, True, True])
    assert found.mean == pytest.approx(0.3 - 0.05)
    assert found.high - found.low == pytest.approx(0, abs=1e-12)
    assert more_sensitive(errors, [True, True, False, False]).mean == pytest.approx(-0.25)


def test_figure_shows_the_mean_of_every_size_under_every_budget():
    rng = np.random.default_rng(0)
    rows = {
        row: {budget: rng.uniform(0, 0.5, size=(2, 3, 5)) for budget in ("epochs", "steps")}
        for row in ("hard", "training")
    }
    fig = figures.against_radius((0.0, 1.0, 2.0), (5, 300), rows)
    for axes, error in zip(fig.axes, [error for of_budget in rows.values() for error in of_budget.values()]):
        assert [line.get_label() for line in axes.lines] == ["5", "300"]
        np.testing.assert_allclose([line.get_ydata() for line in axes.lines], error.mean(axis=-1))
    figures.plt.close(fig)


def test_dots_of_a_batch_size_have_the_areas_of_their_shares_and_are_hollow_without_a_gain():
    rng = np.random.default_rng(0)
    validation = rng.uniform(size=(2, 3, 20))
    validation[0, 1] = 0
    fig, axes = figures.plt.subplots()
    figures.best_radii(axes, (1.0, 2.0, 4.0), (5, 300), validation, np.array([True, False]))
    certain, spread = (dots.get_sizes() for dots in axes.collections)
    assert certain[1] > 0 and not certain[[0, 2]].any()
    assert spread.sum() == pytest.approx(certain.sum()) and (spread > 0).sum() > 1
    filled, hollow = (dots.get_facecolors() for dots in axes.collections)
    assert len(filled) and not len(hollow)
    assert axes.lines[0].get_ydata()[0] == 2.0
    figures.plt.close(fig)


def test_summary_has_a_row_for_every_budget():
    rng = np.random.default_rng(0)
    budgets = {name: tuple(rng.uniform(0, 0.5, size=(3, 4, 6)) for _ in range(2)) for name in ("a", "b")}
    gains = {name: {line: rng.uniform(size=(3, 6)) for line in ("chosen", "fixed")} for name in budgets}
    judged = {name: np.array([True, True, False]) for name in budgets}
    fig = figures.summary((0.0, 0.7, 1.4, 2.8), (1, 5, 300), budgets, gains, judged, 1.4)
    panels = np.reshape(fig.axes, (2, 3))
    for row, name in zip(panels, budgets):
        lines = {line.get_label(): line.get_ydata() for line in row[1].lines}
        np.testing.assert_allclose(lines["chosen"], gains[name]["chosen"].mean(axis=-1))
        np.testing.assert_allclose(row[2].lines[0].get_ydata(), sensitivity(budgets[name][1].mean(axis=-1)))
    figures.plt.close(fig)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: epochs_of("hours", 5, 10), "budget"),
        (lambda: plan("hours"), "budget"),
        (lambda: epochs_of("steps", 5, 100), "steps"),
        (lambda: epochs_of("steps", 5, 0), "steps"),
        (lambda: more_sensitive(np.zeros((2, 3, 4)), [True] * 3), "large"),
        (lambda: more_sensitive(np.zeros((2, 3, 4)), [False] * 3), "large"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, name):
    with pytest.raises(ValueError) as error:
        call()
    assert name in str(error.value) and "\n" not in str(error.value)
