"""Settings are chosen on validation data, each seed's on the other seeds', and only whole seeds are compared."""

import numpy as np
import pytest

from lib.selection import at_choice, best_record, choose, whole_seeds


def record(error: float, loss: float, status: str = "finished") -> dict:
    return {"status": status, "metrics": {"validation_error": error, "validation_loss": loss}}


def test_best_record_has_the_lowest_error_then_loss_and_did_not_diverge():
    records = [record(0.2, 0.1), record(0.1, 0.5), record(0.1, 0.4), {"status": "diverged", "metrics": None}]
    assert best_record(records) is records[2]
    assert best_record(records[3:]) is None


def test_seeds_of_which_a_net_diverged_are_left_out():
    errors = np.array([[0.1, np.nan, 0.3], [0.4, 0.5, 0.6]])
    assert np.array_equal(whole_seeds(errors), [[0.1, 0.3], [0.4, 0.6]])
    with pytest.raises(ValueError, match="errors must have a seed"):
        whole_seeds(np.array([[np.nan, 0.1], [0.1, np.nan]]))


def test_a_choice_does_not_depend_on_its_own_seed():
    validation = np.random.default_rng(0).uniform(size=(4, 3, 6))
    changed = validation.copy()
    changed[..., 2] = np.random.default_rng(1).uniform(size=(4, 3))
    assert np.array_equal(choose(validation)[..., 2], choose(changed)[..., 2])


def test_a_seed_gets_what_is_best_for_the_others_though_not_for_itself():
    validation = np.array([[0.0, 0.3, 0.3], [0.2, 0.2, 0.2]])  # by all three seeds, a tie
    assert choose(validation).tolist() == [1, 0, 0]


def test_the_setting_that_is_best_for_all_is_chosen_for_all():
    validation = np.random.default_rng(0).uniform(0.5, 1, size=(3, 8))
    validation[1] = 0.1
    assert np.array_equal(choose(validation), np.ones(8, dtype=int))


def test_of_a_tie_the_first_is_chosen_whatever_the_order_of_the_sum():
    validation = np.tile([0.1, 0.2, 0.3, 0.7], (2, 1))
    assert np.array_equal(choose(np.stack([validation[0], validation[1][::-1]]))[[0, 3]], [1, 0])
    assert not choose(validation).any()


def test_a_choice_among_equals_does_not_flatter():
    values = np.random.default_rng(0).normal(size=(2000, 7, 10))  # noise: no setting is better than another
    assert at_choice(values, choose(values)).mean() > -0.02
    assert values.mean(axis=-1).min(axis=-1).mean() < -0.3  # what a choice by the same seeds would report


def test_values_at_a_choice_are_each_seeds_own():
    values = np.arange(12.0).reshape(3, 4)
    assert np.array_equal(at_choice(values, np.array([0, 2, 1, 0])), [0, 9, 6, 3])


def test_a_single_seed_leaves_nothing_to_choose_by():
    with pytest.raises(ValueError, match="validation must have two seeds or more"):
        choose(np.zeros((3, 1)))
