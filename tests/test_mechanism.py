"""What chapter 05 measures: shares of the worst-fitted points, slopes of the log ratio, weakest effects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from book.claims import weakest
from book.mechanism import at, half_phantom, head_change, log_ratio_slopes, through_training
from lib.data.toy import ToyConstants
from lib.importance import worst_share
from lib.toy.decomposition import Decomposition, decompose
from lib.toy.ensemble import lsam, sgd, train


def parts_of(easy: np.ndarray, hard: np.ndarray, head: np.ndarray, phantom_head: np.ndarray) -> Decomposition:
    """Of nets (seeds, n) whose batches all have the same phantom head."""
    ratio = phantom_head / head
    return Decomposition(
        easy=easy,
        hard=hard,
        real=expit(-(easy + hard)),
        phantom=expit(-(ratio[0] * easy + ratio[1] * hard)),
        phantom_head=np.broadcast_to(phantom_head, (*easy.shape, 2)),
    )


@pytest.fixture
def well_fitted() -> Decomposition:
    rng = np.random.default_rng(0)
    return parts_of(
        rng.uniform(15, 30, (3, 200)), rng.uniform(-2, 2, (3, 200)), np.array([2.0, 1.0]), np.array([1.2, 1.1])
    )


def test_worst_share_of_equal_weights_is_the_size_of_the_group():
    contribution = np.random.default_rng(0).normal(size=(4, 200))
    np.testing.assert_allclose(worst_share(contribution, np.full((4, 200), 0.3)), 0.25)


def test_worst_share_is_everything_where_only_the_worst_point_has_weight():
    contribution = np.arange(8.0)
    assert worst_share(contribution, np.eye(8)[0]) == 1
    assert worst_share(contribution, np.eye(8)[7]) == 0


def test_slopes_of_well_fitted_points_are_the_change_of_the_head(well_fitted):
    heads = np.tile([2.0, 1.0], (3, 1))
    np.testing.assert_allclose(head_change(well_fitted, heads), [[0.4, -0.1]] * 3)
    np.testing.assert_allclose(log_ratio_slopes(well_fitted), [[0.4, -0.1]] * 3, atol=1e-3)


def test_half_phantoms_are_the_phantom_where_the_other_half_does_not_move(well_fitted):
    heads = np.tile([2.0, 1.0], (3, 1))
    only_easy, only_hard = half_phantom(well_fitted, heads)
    easy = replace(well_fitted, phantom_head=np.broadcast_to([1.2, 1.0], (3, 200, 2)))
    assert np.array_equal(half_phantom(easy, heads)[0], only_easy)
    np.testing.assert_allclose(half_phantom(easy, heads)[1], well_fitted.real)
    np.testing.assert_allclose(
        np.log(only_easy) + np.log(only_hard) - np.log(well_fitted.real), np.log(well_fitted.phantom), atol=1e-4
    )


def test_weakest_effect_is_reported_and_every_one_has_to_hold():
    strong, weak = np.array([1.0, 1.1, 0.9]), np.array([0.1, -0.1, 0.05])
    check = weakest("above 0", np.stack([strong, weak]), +1)
    assert not check.holds and check.what == "above 0 (1 of 2)"
    assert check.effect.mean == pytest.approx(weak.mean())
    assert weakest("above 0", strong, +1).holds and not weakest("below 0", strong, -1).holds
    assert weakest("below 0", -strong, -1).holds


def test_seeds_with_a_diverged_net_are_left_out_of_every_net():
    small = ToyConstants(training_points=20, test_points=20)
    settings = [sgd(data=small, epochs=1), lsam(0.5, data=small, epochs=1)]
    result = train(settings, range(3), (0, 1), keep_nets=True)
    diverged = np.zeros((2, 3), dtype=bool)
    diverged[1, 1] = True
    parts, heads = through_training(replace(result, diverged=diverged), 0.5)
    assert parts.real.shape == (2, 2, 2, 20) and heads.shape == (2, 2, 2, 2)
    assert np.array_equal(at(parts, 1, -1).phantom, decompose(result, 1, 1, 0.5).phantom[[0, 2]])
    assert np.array_equal(heads[0, 1], result.heads[0, [0, 2], 1])
