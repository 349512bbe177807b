"""Chapter 15: the windows, what is kept of a gain on either side of one half, the border of the hard rate, SAM with two
radii, figures."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

from book import when
from book.claims import Outcome
from book.when import FIRST, LAST, REST, checks, kept, least_error, share_kept, tenths, windows
from lib.stats import FEW, mean_interval
from lib.toy.ensemble import ToySetting, lsam, sgd, train

SEEDS = np.linspace(-0.01, 0.01, FEW)  # what differs between paired seeds, and its mean is 0
BEFORE = 0.3 + 5 * SEEDS
HOLDS, UNDECIDED, CONTRADICTED, NOT_RUN = Outcome.HOLDS, Outcome.UNDECIDED, Outcome.CONTRADICTED, Outcome.NOT_RUN


def test_windows_are_both_sides_of_every_switch_and_the_last_tenth():
    assert windows(20, (1, 5)) == [(0, 1), (1, 20), (0, 5), (5, 20), (18, 20)]


@pytest.mark.parametrize("epochs", [20, 60, 25])
def test_tenths_are_at_either_end_and_whole_epochs_where_they_can_be(epochs):
    first = {20: 2, 60: 6, 25: 2.5}[epochs]
    found = tenths(epochs)
    assert found == {FIRST: (0, first), LAST: (epochs - first, epochs), REST: (first, epochs)}
    assert {type(end) for window in found.values() for end in window if end == round(end)} == {int}


# What is kept


def test_share_kept_is_that_of_the_means_and_its_ends_are_where_the_rule_turns():
    whole, part = BEFORE - 0.1 + SEEDS, BEFORE - 0.07 + SEEDS[::-1]
    found = share_kept(BEFORE, whole, part)
    assert found.mean == pytest.approx(0.7) and found.n == FEW
    for end, bound in ((found.low, 1), (found.high, 2)):
        assert mean_interval(kept(BEFORE, whole, part, end))[bound] == pytest.approx(0, abs=1e-4)
    assert found.low < 0.7 < found.high


def test_share_of_no_gain_is_not_bounded():
    for whole in (BEFORE + SEEDS, BEFORE + 0.1):
        found = share_kept(BEFORE, whole, BEFORE)
        assert np.isnan(found.mean) and (found.low, found.high) == (-np.inf, np.inf)


def test_seeds_that_lack_a_training_are_left_out():
    whole, part = BEFORE - 0.1 + SEEDS, np.r_[np.nan, BEFORE[1:] - 0.1]
    assert share_kept(BEFORE, whole, part).n == when.keeps("it", BEFORE, whole, part).effect.n == FEW - 1


@pytest.mark.parametrize(
    ("shares", "gain", "seeds", "outcomes"),  # of the first tenth, the last, the rest; H: holds, ...
    [
        ((0.8, 0.1, 0.3), 0.1, FEW, "hhcch"),
        ((0.502, 0.502, 0.3), 0.1, FEW, "hhhch"),
        ((0.498, 0.1, 0.502), 0.1, FEW, "hcchc"),
        ((0.5, 0.1, 0.3), 0.1, FEW, "hucch"),
        ((0.8, 0.1, 0.3), 0.0049, FEW, "cnnnn"),  # too small a gain
        ((0.8, 0.1, 0.3), 0.0051, FEW, "hhccc"),
        ((0.8, 0.1, 0.3), -0.1, FEW, "cnnnn"),
        ((0.8, 0.1, 0.3), 0.1, FEW - 1, "uuuuu"),
    ],
)
def test_half_of_the_gain_is_kept_or_not(shares, gain, seeds, outcomes):
    named = zip((FIRST, LAST, REST), shares)
    parts = {name: (BEFORE - share * gain + SEEDS / 100)[:seeds] for name, share in named}
    found = checks("here", BEFORE[:seeds], (BEFORE - gain + SEEDS[::-1] / 100)[:seeds], parts)
    assert "".join(check.outcome.value[0] for check in found) == outcomes
    assert [check.main for check in found] == [False, True, False, False, False]


def test_a_share_of_a_gain_that_may_be_none_is_undecided_and_one_that_was_not_trained_is_not_run():
    parts, none = {FIRST: BEFORE - 0.2, LAST: BEFORE, REST: BEFORE}, np.full(FEW, np.nan)
    premise, *shares = checks("here", BEFORE, BEFORE - 0.01 + 5 * SEEDS, parts)
    assert premise.outcome is UNDECIDED and [one.outcome for one in shares] == [UNDECIDED] * 4
    found = checks("here", BEFORE, BEFORE - 0.1 + SEEDS / 100, parts | {LAST: none, REST: none})
    assert [check.outcome for check in found] == [HOLDS, HOLDS, NOT_RUN, NOT_RUN, NOT_RUN]


def record_of(**wrong: np.ndarray) -> dict:
    """A stored record of these wrong points of 1000, "split feature" -> (setting, seed)."""
    found: dict = {}
    for name, counts in wrong.items():
        found.setdefault(name.split("_")[0], {})[name.split("_")[1]] = np.asarray(counts).tolist()
    settings, seeds = np.shape(counts)
    shared = {
        "experiment": "toy",
        "seeds": seeds,
        "shared": {"test_points": 1000, "training_points": 1000},
        "settings": [{}] * settings,
    }
    return {"configuration": shared, "metrics": {"wrong": found}}


def test_points_without_enough_to_gain_are_not_judged():
    def record(*whole):
        after = np.array([300, 300, 300, 300, 300])[:, None] + np.arange(FEW)
        after[1:3] = np.array(whole)[:, None] + np.arange(FEW) if len(whole) == 1 else whole
        return record_of(test_hard=after)

    found = when.judged_points([record(249), record(251), record(100)])
    np.testing.assert_allclose(found["gain"], [0.051, 0.049, 0.2])
    assert list(found[f"outcome of {FIRST}"]) == ["holds", "", "holds"]
    assert list(found[f"outcome of {LAST}"]) == ["contradicted", "", "contradicted"]
    np.testing.assert_allclose(found[f"share of {FIRST}"], [1, np.nan, 1])
    unsure = record(*[[100, 500] * (FEW // 2 - 1) + [100, 100]] * 2)  # a gain, but of few seeds
    (gain,), (outcome,) = (when.judged_points([unsure])[name] for name in ("gain", f"outcome of {FIRST}"))
    assert gain > when.TO_GAIN and outcome == ""


def test_each_seeds_strength_is_the_others_choice():
    strengths = [len(some) for _, some in when.BASELINES.values()]
    validation = np.full((sum(strengths), 3), 400)
    validation[1], validation[strengths[0]] = 100, 100  # LSAM's second radius, the first constant rate
    test = np.arange(sum(strengths) * 3, dtype=object).reshape(-1, 3)
    hard = test.copy()
    hard[-strengths[-1], 0] = None  # that net diverged
    others = {"validation_easy": validation, "test_easy": 10 * test, "train_model": test}
    found = when.at_best(record_of(validation_hard=validation, test_hard=hard, **others))
    (lsam, rho), (_, rate) = found["LSAM"], found["constant easy rate"]
    np.testing.assert_allclose(np.array([lsam.hard, lsam.easy / 10]) * 1000, [test[1].astype(float)] * 2)
    assert found["label smoothing"][0].hard[0] == 0.5 and (rho, rate) == (1.4, 0.03)


# The hard rate


@pytest.mark.parametrize("batch", [1, 5, 20, 50])
def test_least_error_is_where_half_of_the_batches_have_a_wrong_point(batch):
    assert 1 - (1 - least_error(batch)) ** batch == pytest.approx(0.5)


def test_a_step_is_raised_where_the_phantoms_hard_weight_is_larger_whatever_its_sign():
    trace = np.array([[[1, 2, 1, 2.1], [1, 2, 1, 1.9], [1, -2, 1, -2.1], [1, 2, 1, 2]]])
    np.testing.assert_allclose(when.raised(trace, 2), [[0.5, 0.5]])


def test_hard_rate_identity_holds_for_sgds_steps():
    watched = ToySetting(rho=1.4, importance="real", effective="real", epochs=4)
    result = train([watched, sgd(epochs=4)], range(3), trace_every=1, threads=1)
    np.testing.assert_array_equal(result.heads[0], result.heads[1])  # the phantom is only watched
    left, right, weighted = when.hard_rate_identity(result.traces[0], 0.05, 1.4)
    np.testing.assert_allclose(left, right, rtol=0.02)
    np.testing.assert_array_equal(weighted < 1, right < 0)


def border(share: float, error: float = 0.05) -> list[Outcome]:
    """Of checks with batches of 5, none of whose steps is raised, and of 50, whose `share` is, at this error."""
    errors, epochs = np.full((FEW, 2), error) + SEEDS[:, None] / 10, np.ones((FEW, 2))
    found = when.border_checks({5: errors, 50: errors}, {5: 0 * epochs, 50: share * epochs + SEEDS[:, None] / 10})
    assert [one.trivial for one in found] == [True, False, False]
    return [one.outcome for one in found]


@pytest.mark.parametrize(("share", "majority"), [(0.49, CONTRADICTED), (0.51, HOLDS), (0.5, UNDECIDED)])
def test_the_border_moves_where_a_majority_is_raised_below_it(share, majority):
    assert border(share) == [HOLDS, majority, HOLDS]


def test_the_border_is_judged_below_it_only():
    assert border(0.9, least_error(5) + 0.0001)[1] is NOT_RUN
    assert border(0.9, least_error(5) - 0.0001)[1] is HOLDS
    assert border(0.9, least_error(50) - 0.002)[2] is NOT_RUN


def test_more_raised_steps_than_batches_with_a_wrong_point_contradict_the_bound():
    bound = 1 - 0.95**50
    assert (border(bound - 0.001)[0], border(bound + 0.001)[0]) == (HOLDS, CONTRADICTED)


def test_two_radii_give_sgd_and_lsam_where_the_ascent_stays_on_the_head_and_else_another_training():
    seeds, epochs = range(2), 2
    found = when.two_radii([(0, 0), (1.4, 0), (1.4, 0.4)], seeds, epochs=epochs)
    other = train([sgd(epochs=epochs), lsam(1.4, epochs=epochs)], seeds, threads=1)
    np.testing.assert_allclose(found[:2, :, :2], other.errors[:, :, 0, 2, :2], atol=0.01)
    assert not np.allclose(found[0], found[1]) and not np.allclose(found[1], found[2])


def test_an_ascent_of_two_lengths_has_one_on_the_head_and_the_other_below():
    gradient, lengths = torch.randn(3, 2, 7, generator=torch.Generator().manual_seed(0)), torch.tensor([0.0, 0.5, 2.0])
    ascent = when.of_two_lengths(gradient, lengths[:, None, None], 3 - lengths[:, None, None])
    torch.testing.assert_close(ascent[..., -1].norm(dim=1), lengths)
    torch.testing.assert_close(ascent[..., :-1].flatten(1).norm(dim=1), 3 - lengths)
    assert ((ascent * gradient)[1:] > 0).all()


# Figures


def test_figures_of_windows_and_of_the_switch_in_either_direction_show_the_means():
    many, few = 0.02 + SEEDS, np.array([0.01, 0.03])
    panel, _ = when.figure_images({name: {None: many, (0, 2): many / 2, (2, 20): few} for name in ("one", "two")}).axes
    assert [label.get_text() for label in panel.get_yticklabels()] == ["all epochs", "epochs 1 to 2", "epochs 3 to 20"]
    found = {None: BEFORE - 0.2} | {w: BEFORE - 0.01 * sum(w) for w in windows(60, (1, 6))}
    points = {f"share of {name}": np.array([0.9, np.nan, 0.8]) for name in (FIRST, REST)}
    lines = when.figure_switch(found, BEFORE, points, points).axes[0].lines
    np.testing.assert_allclose(lines[0].get_ydata(), [found[0, k].mean() for k in (1, 6)])
    np.testing.assert_allclose(lines[1].get_ydata(), [found[k, 60].mean() for k in (1, 6, 54)])
    error, share = ({5: np.full((3, 4), one), 20: np.full((3, 4), one / 2)} for one in (0.2, 0.6))
    border = when.figure_border({"here": (error, share)})
    np.testing.assert_allclose(border.axes[1].lines[1].get_data(), [[10] * 4, [0.3] * 4])
    plt.close("all")
