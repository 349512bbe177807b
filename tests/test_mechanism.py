"""What chapter 05 measures, and its rules on made data, on both sides of each border."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from book.claims import weakest
from book.mechanism import (
    Effects,
    against_rho,
    at,
    checks_c3,
    checks_c4,
    checks_c9,
    effects,
    half_phantom,
    head_change,
    log_ratio_slopes,
    through_training,
)
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


SPREAD = np.array([1.0, -0.6, 1.0, -0.6])  # over four seeds: mean 0.2, interval from -0.6 to 1


def made() -> Effects:
    """Two nets at three checkpoints, four seeds: everything that C3, C4 and C9 say holds."""
    even = np.stack([np.full((2, 3, 4), 0.8), np.full((2, 3, 4), 0.6)])
    easy, hard = (
        np.stack([np.ones((2, 3, 4)), np.zeros((2, 3, 4))]),
        np.stack([np.zeros((2, 3, 4)), np.ones((2, 3, 4))]),
    )
    return Effects(even, easy, hard, np.stack([np.ones((2, 3, 4)), -np.ones((2, 3, 4))], axis=-1))


def judged(found: Effects, epochs: tuple[int, ...] = (0, 1, 2)) -> list[list[bool]]:
    """Outcomes of C3, C4 and C9."""
    return [
        [check.holds for check in checks] for checks in (checks_c3(found), checks_c4(found), checks_c9(found, epochs))
    ]


def test_the_claims_hold_where_every_effect_has_its_sign():
    assert judged(made()) == [[True] * 3, [True] * 8, [True] * 6]
    assert checks_c3(made())[0].effect.mean == pytest.approx(0.2)


@pytest.mark.parametrize("change", [0.0, -0.2, "spread"])
@pytest.mark.parametrize(("net", "fails_c3", "fails_c9"), [(0, [0], [0]), (1, [1], [0]), (None, [0, 1, 2], [0, 1])])
def test_weights_have_to_be_more_even_at_the_phantom_beyond_the_interval(net, change, fails_c3, fails_c9):
    found = made()
    gap = SPREAD if change == "spread" else change
    if net == 0:  # the phantom's coefficient; between the nets stays what it is
        found.even[1, 0, -1] = found.even[0, 0, -1] - gap
    elif net == 1:  # the real one's
        found.even[0, 1, -1] = found.even[1, 1, -1] + gap
    else:
        found.even[1, :, -1] = found.even[0, :, -1] - gap
    c3, c4, c9 = judged(found)
    assert [i for i, holds in enumerate(c3) if not holds] == fails_c3 and all(c4)
    assert [i for i, holds in enumerate(c9) if not holds] == fails_c9


@pytest.mark.parametrize("effect", ["none", "wrong", "spread"])
@pytest.mark.parametrize("net", [0, 1])
@pytest.mark.parametrize("part", range(4))
def test_each_part_of_which_points_gain_fails_alone_in_its_net(part, net, effect):
    found, sign = made(), (-1, 1, 1, -1)[part]
    value = sign * {"none": np.zeros(4), "wrong": -np.ones(4), "spread": SPREAD}[effect]
    if part < 2:
        shares = (found.easy, found.hard)[part]
        shares[1, net, -1] = shares[0, net, -1] + value
    else:
        found.slopes[net, -1, :, part - 2] = value
    c3, c4, c9 = judged(found)
    assert all(c3) and [i for i, holds in enumerate(c4) if not holds] == [2 * part + net]
    assert [i for i, holds in enumerate(c9) if not holds] == [2 + part]
    assert checks_c9(found, (0, 1, 2))[2 + part].what.endswith("(3 of 4)")


def test_through_training_is_judged_after_the_first_step_only():
    found = made()
    found.even[1, :, 0], found.slopes[:, 0] = 0.9, 0
    assert judged(found) == [[True] * 3, [True] * 8, [True] * 6]
    assert judged(found, (1, 2, 3))[2] == [False, False, True, True, False, False]
    found.slopes[1, 1, :, 0] = -1  # an early checkpoint counts for C9, not for C4
    assert judged(found)[1:] == [[True] * 8, [True, True, True, True, False, True]]


def test_effects_are_of_real_and_phantom_weights(well_fitted):
    nets = at(well_fitted, None)
    found = effects(nets)
    assert found.even.shape == found.easy.shape == (2, 1, 3) and found.slopes.shape == (1, 3, 2)
    np.testing.assert_array_equal(found.hard[1], worst_share(nets.hard, nets.phantom))
    np.testing.assert_array_equal(found.easy[0], worst_share(nets.easy, nets.real))


def test_what_hangs_on_the_radius_is_measured_with_the_radius_of_each_net():
    small = ToyConstants(training_points=20, test_points=20)
    settings = [sgd(data=small, epochs=1), lsam(0.5, data=small, epochs=1), lsam(1.0, data=small, epochs=1)]
    result = train(settings, range(3), keep_nets=True)
    differences, slopes = against_rho(result)
    for k, rho in enumerate((0.5, 1.0)):
        found = effects(at(through_training(result, rho, (0, k + 1))[0], slice(None), -1))
        expected = {"SGD-trained": found.within[0], "LSAM-trained": found.within[1], "between": found.between}
        for values, known in zip(differences.values(), expected.values(), strict=True):
            np.testing.assert_array_equal(values[k], known)
        np.testing.assert_array_equal(slopes[k], found.slopes[1])
