"""Chapter 10: its trials under either budget, the rule of C11 on either side of its borders, its figures."""

import numpy as np
import pytest
from matplotlib import pyplot as plt

from book import batch_size, toy
from book.batch_size import BUDGETS, RADII, SIZES, epochs_of, largest_over_smallest, more_sensitive, plan, sensitivity
from book.claims import MARGIN, Outcome
from lib import stats
from lib.stats import bootstrap_means
from lib.toy.ensemble import ToySetting

# The trials


def test_each_budget_fixes_what_it_is_named_for():
    for budget, fixed in BUDGETS.items():
        settings = [trial.settings[0] for trial in plan(budget)]
        assert {getattr(setting, budget) for setting in settings} == {fixed}
        assert {(s.batch_size, s.rho) for s in settings} == {(size, rho) for size in SIZES for rho in RADII}
        assert len({(s.learning_rate, s.width, s.data) for s in settings}) == 1


def test_sizes_go_from_one_point_to_all_and_the_papers_is_the_same_trial_under_both_budgets():
    assert SIZES[0] == 1 and SIZES[-1] == ToySetting().data.training_points and batch_size.PAPER == 5
    at = slice(SIZES.index(5) * len(RADII), (SIZES.index(5) + 1) * len(RADII))
    of_epochs, of_steps = (plan(budget)[at] for budget in BUDGETS)
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
    np.testing.assert_allclose(toy.by_radius(records, (0.0, 2.0), "hard", "test"), expected)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: plan("hours"), "budget must be one of epochs, steps"),
        (lambda: epochs_of("steps", 5, 100), "steps must be a multiple of the 60"),
        (lambda: epochs_of("steps", 5, 0), "steps must be a multiple"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, named):
    with pytest.raises(ValueError, match=named) as error:
        call()
    assert "\n" not in str(error.value)


# The measures of the rule


def test_a_clear_best_is_the_best_in_every_draw_and_equals_share_the_draws():
    rng = np.random.default_rng(0)
    clear = np.array([0.5, 0.1, 0.4])[:, None] + 0.01 * rng.normal(size=(3, 20))
    draws = batch_size.best(bootstrap_means(np.stack([clear, rng.normal(size=(3, 20))])))
    assert np.all(draws[0] == 1)
    assert set(np.unique(draws[1])) == {0, 1, 2}


def minima(*best: int) -> np.ndarray:
    """Validation errors (size, radius, seed) of four radii whose clear minimum is at these indices."""
    validation = np.full((len(best), 4, 10), 0.5)
    validation[range(len(best)), best] = 0.1
    return validation


def test_largest_over_smallest_best_radius_of_clear_minima_has_no_width():
    found = largest_over_smallest((0.7, 1.4, 2.0, 2.8), minima(1, 2, 3))
    assert (found.mean, found.low, found.high) == (2.0, 2.0, 2.0) and found.n == 10
    assert largest_over_smallest((0.7, 1.4, 2.0, 2.8), minima(1)).high == 1


def test_intervals_leave_out_a_fortieth_of_the_draws_on_either_side():
    errors = np.random.default_rng(0).uniform(size=(3, 4, 20))
    large, drawn = np.array([False, False, True, True]), np.std(bootstrap_means(errors), axis=0, ddof=1)
    found = more_sensitive(errors, large)
    drawn = drawn[large].mean(axis=0) - drawn[~large].mean(axis=0)
    for end, share in ((found.low, 0.025), (found.high, 0.975)):
        assert (drawn < end + 1e-9).mean() == pytest.approx(share, abs=2 / len(drawn))

    radii = np.geomspace(1, 1000, 4)  # a flat minimum: every ratio is drawn, so that a quantile tells
    errors[1:] = minima(0, 0)[:, :, :1]  # and the smallest best radius is the first
    found, drawn = largest_over_smallest(radii, errors), radii[bootstrap_means(errors[0]).argmin(axis=0)]
    assert (drawn <= found.low).mean() >= 0.025 > (drawn < found.low).mean()
    assert (drawn <= found.high).mean() >= 0.975 > (drawn < found.high).mean()


def test_ends_of_the_ratios_interval_are_ratios_that_were_drawn(monkeypatch):
    drawn = np.array([[[0.0] * 4, [1.0] * 4], [[0, 0, 0, 1], [1, 1, 1, 0]]])  # (size, radius, draw)
    monkeypatch.setattr(stats, "bootstrap_means", lambda values: drawn)
    found = largest_over_smallest((1.0, 2.0), np.zeros((2, 2, 5)))
    assert (found.low, found.high) == (1.0, 2.0)


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


def test_one_radius_costs_what_its_error_is_above_that_of_each_sizes_own():
    validation = minima(2, 2, 1)
    validation[:, 0] = 0.0  # SGD is no radius to choose
    hard = validation + np.arange(10) / 100
    found = batch_size.price_of_one(
        hard, validation
    )  # the common best is the second; the last size would have the first
    assert found.mean == pytest.approx(0.4) and found.high == pytest.approx(0.4) and found.n == 10


def test_one_radius_costs_most_where_the_interval_ends_highest():
    validation = minima(1, 2, 3)
    hard, rare = np.zeros((3, 4, 10)), np.arange(10) == 0
    hard[1, 1], hard[2, 1] = 0.1, 0.8 * rare  # above the second size's only at the end of the interval
    found = batch_size.price_of_one(hard, validation)
    assert found.mean == pytest.approx(0.08) and found.high > 0.1


# The rule of C11

HOLDS, UNDECIDED, CONTRADICTED, NOT_RUN = Outcome
SEEDS, RHO, FEW, GRID = 8, 1.5, (5, 50, 300), (0.0, 1.5, 3.0, 4.5)
FIRST = np.arange(SEEDS) == 0
TOUCHING = np.where(FIRST, 1.0, 0.0)  # above 0 in the mean, not by its interval
SEEN = np.array([0.5, 0.125, 0.25, 0.25])  # by radius: that of the other chapters is the best at every size


def made() -> tuple[np.ndarray, np.ndarray]:
    """Hard errors and validation errors (size, radius, seed) at which every part of C11 holds; the sizes differ at the
    large radii only, and SGD's lead shrinks."""
    validation = np.tile(SEEN[:, None], (3, 1, SEEDS))
    hard = validation.copy()
    hard[:2, 0] += np.array([0.1, 0.2])[:, None]
    hard[:, 3] += np.array([-0.2, 0.0, 0.2])[:, None]
    return hard, validation


def outcomes(hard: np.ndarray, validation: np.ndarray) -> list[Outcome]:
    """Of: radii are alike, one serves all, the gain shrinks, a large radius is more sensitive."""
    return [
        check.outcome for check in batch_size.checks(FEW, GRID, RHO, {"200 epochs": hard}, {"200 epochs": validation})
    ]


def test_c11_holds_in_all_its_parts_and_stands_with_the_best_radii_under_the_first_budget():
    hard, validation = made()
    budgets = ["200 epochs", "12,000 steps"]
    found = batch_size.checks(FEW, GRID, RHO, dict.fromkeys(budgets, hard), dict.fromkeys(budgets, validation))
    assert len(found) == 8 and all(check.outcome is HOLDS for check in found)
    alike = "200 epochs: largest best radius over the smallest at most 2"
    assert [check.what for check in found if check.main] == [alike]


@pytest.mark.parametrize(("best", "outcome"), [((2, 1, 1), HOLDS), ((3, 1, 1), CONTRADICTED)])
def test_best_radii_may_differ_by_a_factor_of_two_and_not_by_three(best, outcome):
    hard, validation = made()
    validation[:, 1:] = 0.3
    validation[range(3), best] = 0.1
    assert outcomes(hard, validation)[0] is outcome


def test_best_radii_are_undecided_where_only_the_end_of_the_interval_is_too_far():
    hard, validation = made()
    validation[0, 3] = SEEN[1] + 0.01 * (1 - 3 * TOUCHING)  # better where the first seed is drawn often: rarely
    assert outcomes(hard, validation)[0] is UNDECIDED
    validation[0, 3] += 0.02
    assert outcomes(hard, validation)[0] is HOLDS


@pytest.mark.parametrize(
    ("cost", "outcome"),
    [(0.0499, HOLDS), (0.0501, CONTRADICTED), (0.2 * TOUCHING, UNDECIDED), (0.06 + 0.01 * TOUCHING, CONTRADICTED)],
)
def test_one_radius_may_cost_less_than_the_tolerance(cost, outcome):
    hard, validation = made()
    validation[2, 2] = 0.09  # the largest batch would have another radius,
    hard[2, 1] = hard[2, 2] + cost  # at which it loses `cost` less
    assert outcomes(hard, validation)[1] is outcome


def test_sizes_without_a_gain_have_no_best_radius():
    hard, validation = made()
    validation[2, 3] = 0.05  # three times the radius of the other sizes, and at a cost of
    hard[2, 1] = hard[2, 3] + 0.1
    hard[2, 0] = hard[2, 3]  # but no better than SGD
    assert outcomes(hard, validation)[:2] == [HOLDS, HOLDS]
    hard[2, 0] += 0.1 * TOUCHING
    assert outcomes(hard, validation)[:2] == [HOLDS, HOLDS], "the interval of its gain reaches 0"
    hard[2, 0] += 0.05
    assert outcomes(hard, validation)[:2] == [CONTRADICTED, CONTRADICTED]
    hard[:, 0] = 0.0
    assert outcomes(hard, validation)[:2] == [NOT_RUN, NOT_RUN]
    found = batch_size.checks(FEW, GRID, RHO, {"a": hard, "b": hard}, {"a": validation, "b": validation})
    assert [check.main for check in found] == [True] + 7 * [False], "a main check that was not run stays one"


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        (TOUCHING, UNDECIDED),
        (TOUCHING + 0.5, HOLDS),
        (-TOUCHING - 0.5, CONTRADICTED),
        (10 * MARGIN - 1e-6, CONTRADICTED),  # above 0 and too small to matter
        (10 * MARGIN + 1e-6, HOLDS),
    ],
)
def test_gain_shrinks_where_the_whole_interval_says_so(change, outcome):
    hard, validation = made()
    hard[0, 0] = hard[2, 0] + 0.1 * change
    assert outcomes(hard, validation)[2] is outcome


@pytest.mark.parametrize(
    ("large", "small", "outcome"),  # how far the batch size moves the error at the largest radius and at the others
    [
        (0.2 * TOUCHING, 0, UNDECIDED),
        (0.2 * TOUCHING + 0.1, 0, HOLDS),
        (0.0, 0.1, CONTRADICTED),
        (0.0, 0, CONTRADICTED),
        (1.99 * MARGIN, 0, CONTRADICTED),  # the mean over both large radii is too small to matter
        (2.01 * MARGIN, 0, HOLDS),
        (0.3, 0.1, HOLDS),
    ],
)
def test_large_radii_are_more_sensitive_where_the_whole_interval_says_so(large, small, outcome):
    hard, validation = made()
    moves = np.array([-1.0, 0.0, 1.0])[:, None]
    hard[:, 0], hard[:, 1], hard[:, 3] = SEEN[0], SEEN[1] + moves * small, SEEN[3] + moves * large
    assert outcomes(hard, validation)[3] is outcome


# Figures


def test_figure_shows_the_mean_of_every_size_under_every_budget():
    rng = np.random.default_rng(0)
    rows = {
        row: {budget: rng.uniform(0, 0.5, size=(2, 3, 5)) for budget in ("epochs", "steps")}
        for row in ("hard", "training")
    }
    fig = batch_size.against_radius((0.0, 1.0, 2.0), (5, 300), rows)
    for axes, error in zip(fig.axes, [error for of_budget in rows.values() for error in of_budget.values()]):
        assert [line.get_label() for line in axes.lines] == ["5", "300"]
        np.testing.assert_allclose([line.get_ydata() for line in axes.lines], error.mean(axis=-1))
    plt.close(fig)


def test_summary_has_a_row_for_every_budget():
    rng = np.random.default_rng(0)
    hard, validation = ({name: rng.uniform(0, 0.5, size=(3, 4, 6)) for name in ("a", "b")} for _ in range(2))
    fig = batch_size.summary((0.0, 0.7, 1.4, 2.8), (1, 5, 300), 1.4, hard, validation)
    for row, (name, errors) in zip(np.reshape(fig.axes, (2, 3)), hard.items()):
        lines = {line.get_label(): line.get_ydata() for line in row[1].lines}
        tuned = toy.tuned(errors, validation[name])
        np.testing.assert_allclose(lines["chosen ρ"], (errors[:, 0] - tuned).mean(axis=-1))
        np.testing.assert_allclose(lines["ρ = 1.4"], (errors[:, 0] - errors[:, 2]).mean(axis=-1))
        np.testing.assert_allclose(row[2].lines[0].get_ydata(), sensitivity(errors.mean(axis=-1)))
    plt.close(fig)
