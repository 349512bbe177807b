"""Chapter 10: its trials under either budget, the rule of C11 on either side of its borders, its figures."""

import numpy as np
import pytest
from matplotlib import pyplot as plt

from book import batch_size, toy
from book.batch_size import epochs_of, largest_over_smallest, more_sensitive, sensitivity
from book.claims import MARGIN, Outcome
from book.notebook import ParameterError
from lib.stats import bootstrap_means


def test_a_last_smaller_batch_is_a_step_too():
    assert epochs_of("steps", 7, 430) == 10  # 42 batches of seven and one of six


@pytest.mark.parametrize("steps", [100, 0])
def test_steps_that_are_no_whole_epochs_are_refused(steps, refuses):
    refuses(ParameterError, epochs_of, "steps", 5, steps, match="steps must be a multiple of the 60")


# The measures of the rule


def minima(*best: int) -> np.ndarray:
    """Validation errors (size, radius, seed) of four radii whose clear minimum is at these indices."""
    validation = np.full((len(best), 4, 10), 0.5)
    validation[range(len(best)), best] = 0.1
    return validation


def test_largest_over_smallest_best_radius_of_clear_minima_has_no_width():
    found = largest_over_smallest((0.7, 1.4, 2.0, 2.8), minima(1, 2, 3))
    assert (found.mean, found.low, found.high, found.n) == (2.0, 2.0, 2.0, 10)


def test_ends_of_the_ratios_interval_are_ratios_that_were_drawn_with_a_fortieth_on_either_side():
    errors, radii = np.random.default_rng(0).uniform(size=(3, 4, 20)), np.geomspace(1, 1000, 4)
    errors[1:] = minima(0, 0)[:, :, :1]  # the smallest best radius is the first, and that of a flat minimum is drawn
    found, drawn = largest_over_smallest(radii, errors), radii[bootstrap_means(errors[0]).argmin(axis=0)]
    assert {found.low, found.high} <= set(radii)
    assert (drawn <= found.low).mean() >= 0.025 > (drawn < found.low).mean()
    assert (drawn <= found.high).mean() >= 0.975 > (drawn < found.high).mean()


def test_more_sensitive_is_the_difference_of_the_spreads_and_pairing_takes_the_seeds_noise_away():
    shared = np.random.default_rng(0).uniform(size=(1, 1, 12))
    errors = shared + np.outer([-0.1, 0.0, 0.1], [0.0, 1.0, 2.0, 4.0])[..., None]
    found = more_sensitive(errors, [False, False, True, True])
    assert found.mean == pytest.approx(0.3 - 0.05)
    assert found.high - found.low == pytest.approx(0, abs=1e-12)


def test_one_radius_costs_most_where_the_interval_of_what_it_adds_to_each_sizes_own_ends_highest():
    validation = minima(2, 2, 1)  # the common best is the second; the last size would have the first
    validation[:, 0] = 0.0  # SGD is no radius to choose
    found = batch_size.price_of_one(validation + np.arange(10) / 100, validation)
    assert found.mean == pytest.approx(0.4) and found.high == pytest.approx(0.4) and found.n == 10
    hard, rare = np.zeros((3, 4, 10)), np.arange(10) == 0
    hard[1, 1], hard[2, 1] = 0.1, 0.8 * rare  # above the second size's only at the end of the interval
    found = batch_size.price_of_one(hard, minima(1, 2, 3))
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
    hard, validation = (dict.fromkeys(["200 epochs", "12,000 steps"], errors) for errors in made())
    found = batch_size.checks(FEW, GRID, RHO, hard, validation)
    assert len(found) == 8 and all(check.outcome is HOLDS for check in found)
    alike = "200 epochs: largest best radius over the smallest at most 2"
    assert [check.what for check in found if check.main] == [alike]


@pytest.mark.parametrize(("best", "outcome"), [((2, 1, 1), HOLDS), ((3, 1, 1), CONTRADICTED)])
def test_best_radii_may_differ_by_a_factor_of_two_and_not_by_three(best, outcome):
    hard, validation = made()
    validation[:, 1:] = 0.3
    validation[range(3), best] = 0.1
    assert outcomes(hard, validation)[0] is outcome


def test_the_ratio_of_best_radii_is_judged_by_its_whole_interval():
    hard, validation = made()
    validation[0, 3] = SEEN[1] + 0.01 * (1 - 3 * TOUCHING)  # better where the first seed is drawn often: rarely
    assert outcomes(hard, validation)[0] is UNDECIDED
    validation[0, 3] += 0.02
    assert outcomes(hard, validation)[0] is HOLDS


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
    found = batch_size.checks(FEW, GRID, RHO, {"a": hard, "b": hard}, {"a": validation, "b": validation})
    assert [check.outcome for check in found[:2]] == [NOT_RUN, NOT_RUN]
    assert [check.main for check in found] == [True] + 7 * [False], "a main check that was not run stays one"


def costs(hard, validation, value):
    """One radius costs so much at the largest batch, which would have another."""
    validation[2, 2] = 0.09
    hard[2, 1] = hard[2, 2] + value


def shrinks(hard, validation, value):
    """The gain at batch 5 is so much, times 0.1, above that at full batch."""
    hard[0, 0] = hard[2, 0] + 0.1 * value


def moves(hard, validation, value):
    """The batch size moves the error by so much at the largest radius, and by 0.1 at a small one where it is less."""
    small = 0.1 * (np.max(value) in (0.0, 0.3))
    steps = np.array([-1.0, 0.0, 1.0])[:, None]
    hard[:, 0], hard[:, 1], hard[:, 3] = SEEN[0], SEEN[1] + steps * small, SEEN[3] + steps * value


@pytest.mark.parametrize(
    ("part", "change", "value", "outcome"),
    [
        (1, costs, 0.0499, HOLDS),
        (1, costs, 0.0501, CONTRADICTED),
        (1, costs, 0.2 * TOUCHING, UNDECIDED),
        (1, costs, 0.06 + 0.01 * TOUCHING, CONTRADICTED),
        (2, shrinks, TOUCHING, UNDECIDED),
        (2, shrinks, TOUCHING + 0.5, HOLDS),
        (2, shrinks, -TOUCHING - 0.5, CONTRADICTED),
        (2, shrinks, 10 * MARGIN - 1e-6, CONTRADICTED),  # above 0 and too small to matter
        (2, shrinks, 10 * MARGIN + 1e-6, HOLDS),
        (3, moves, 0.2 * TOUCHING, UNDECIDED),
        (3, moves, 0.2 * TOUCHING + 0.1, HOLDS),
        (3, moves, 0.0, CONTRADICTED),
        (3, moves, 1.99 * MARGIN, CONTRADICTED),  # the mean over both large radii is too small to matter
        (3, moves, 2.01 * MARGIN, HOLDS),
        (3, moves, 0.3, HOLDS),
    ],
)
def test_each_part_is_judged_by_its_whole_interval(part, change, value, outcome):
    hard, validation = made()
    change(hard, validation, value)
    assert outcomes(hard, validation)[part] is outcome


# Figures


def test_figures_show_the_mean_of_every_size_under_every_budget_and_a_row_a_budget():
    hard, seen = np.random.default_rng(0).uniform(0, 0.5, size=(2, 2, 3, 4, 6))  # (budget, size, radius, seed)
    hard, seen = (dict(zip("ab", errors)) for errors in (hard, seen))
    fig = batch_size.against_radius(GRID, FEW, {"hard": hard, "seen": seen})
    for axes, error in zip(fig.axes, (*hard.values(), *seen.values())):
        np.testing.assert_allclose([line.get_ydata() for line in axes.lines], error.mean(axis=-1))
    fig = batch_size.summary(GRID, FEW, RHO, hard, seen)
    for row, (name, errors) in zip(np.reshape(fig.axes, (2, 3)), hard.items()):
        gained = errors[:, 0] - toy.tuned(errors, seen[name])
        chosen, fixed, _, moves, _ = (line.get_ydata() for panel in row[1:] for line in panel.lines)
        expected = gained.mean(axis=-1), (errors[:, 0] - errors[:, 1]).mean(axis=-1)
        np.testing.assert_allclose([chosen, fixed], expected)
        np.testing.assert_allclose(moves, sensitivity(errors.mean(axis=-1)))
        filled = [bool((face[:3] < 1).any()) for face in row[0].collections[0].get_facecolors()]
        assert filled == batch_size.has_gain(gained).tolist()
    plt.close("all")
