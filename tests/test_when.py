"""Chapter 15: the windows, what is kept of a gain on either side of one half, the border of the hard rate, SAM with two
radii, figures."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib import pyplot as plt

from book import when
from book.claims import Outcome
from book.experiments import experiments
from book.when import FIRST, LAST, REST, checks, kept, least_error, share_kept, tenths, windows
from lib.stats import FEW
from lib.toy.ensemble import ToySetting, lsam, sgd, train

SEEDS = np.linspace(-0.01, 0.01, FEW)  # what differs between paired seeds, and its mean is 0
BEFORE = 0.3 + 5 * SEEDS


# The windows


def test_windows_are_both_sides_of_every_switch_and_the_last_tenth():
    assert windows(20, (1, 5)) == [(0, 1), (1, 20), (0, 5), (5, 20), (18, 20)]


@pytest.mark.parametrize(
    ("epochs", "first", "last", "rest"),
    [(20, (0, 2), (18, 20), (2, 20)), (60, (0, 6), (54, 60), (6, 60)), (25, (0, 2.5), (22.5, 25), (2.5, 25))],
)
def test_tenths_are_at_either_end_and_whole_epochs_where_they_can_be(epochs, first, last, rest):
    found = tenths(epochs)
    assert found == {FIRST: first, LAST: last, REST: rest}
    assert all(
        type(a) is type(b)
        for name, of in {FIRST: first, LAST: last, REST: rest}.items()
        for a, b in zip(found[name], of)
    )


@pytest.mark.parametrize("name", ["when-cifar-mnist", "when-fmnist-mnist"])
def test_image_plan_has_every_window_of_either_method_on_every_seed(name):
    experiment = experiments()[name]
    trials = experiment.plan(experiment.store, 3).trials
    expected = {(m, w) for m in ("sam", "lsam") for w in (None, *windows(20, when.SWITCHES))} | {("sgd", None)}
    assert {(trial.method, trial.ascent, trial.seed) for trial in trials} == {
        (*net, s) for net in expected for s in range(3)
    }
    assert len(trials) == 3 * len(expected)


# What is kept


def test_share_kept_is_that_of_the_means_and_its_ends_are_where_the_rule_turns():
    whole, part = BEFORE - 0.1 + SEEDS, BEFORE - 0.07 + SEEDS[::-1]
    found = share_kept(BEFORE, whole, part)
    assert found.mean == pytest.approx(0.7) and found.n == FEW
    for end, bound in ((found.low, 1), (found.high, 2)):
        assert when.mean_interval(kept(BEFORE, whole, part, end))[bound] == pytest.approx(0, abs=1e-4)
    assert found.low < 0.7 < found.high


def test_share_of_no_gain_is_not_bounded():
    for whole in (BEFORE + SEEDS, BEFORE + 0.1):
        found = share_kept(BEFORE, whole, BEFORE)
        assert np.isnan(found.mean) and (found.low, found.high) == (-np.inf, np.inf)


def test_seeds_that_lack_a_training_are_left_out():
    whole, part = BEFORE - 0.1 + SEEDS, np.r_[np.nan, BEFORE[1:] - 0.1]
    assert share_kept(BEFORE, whole, part).n == FEW - 1
    assert when.keeps("it", BEFORE, whole, part).effect.n == FEW - 1


def judged(gain: float = 0.1, seeds: int = FEW, **shares: float) -> list:
    """Checks where the whole training gains `gain` and its windows these shares of it."""
    shares = {FIRST: 0.8, LAST: 0.1, REST: 0.3} | {
        {"first": FIRST, "last": LAST, "rest": REST}[n]: s for n, s in shares.items()
    }
    parts = {name: (BEFORE - share * gain + SEEDS / 100)[:seeds] for name, share in shares.items()}
    return checks("here", BEFORE[:seeds], (BEFORE - gain + SEEDS[::-1] / 100)[:seeds], parts)


HOLDS, UNDECIDED, CONTRADICTED, NOT_RUN = Outcome.HOLDS, Outcome.UNDECIDED, Outcome.CONTRADICTED, Outcome.NOT_RUN


@pytest.mark.parametrize(
    ("case", "outcomes"),
    [
        ({}, [HOLDS, HOLDS, CONTRADICTED, CONTRADICTED, HOLDS]),
        ({"first": 0.502, "last": 0.502}, [HOLDS, HOLDS, HOLDS, CONTRADICTED, HOLDS]),
        ({"first": 0.498, "rest": 0.502}, [HOLDS, CONTRADICTED, CONTRADICTED, HOLDS, CONTRADICTED]),
        ({"first": 0.5}, [HOLDS, UNDECIDED, CONTRADICTED, CONTRADICTED, HOLDS]),
        ({"gain": 0.004}, [CONTRADICTED] + [NOT_RUN] * 4),
        ({"gain": 0.006}, [HOLDS, HOLDS, CONTRADICTED, CONTRADICTED, CONTRADICTED]),
        ({"gain": -0.1}, [CONTRADICTED] + [NOT_RUN] * 4),
        ({"seeds": FEW - 1}, [UNDECIDED] * 5),
    ],
    ids=[
        "as predicted",
        "just above half",
        "just below",
        "half",
        "too small a gain",
        "just large enough",
        "a loss",
        "few seeds",
    ],
)
def test_half_of_the_gain_is_kept_or_not(case, outcomes):
    found = judged(**case)
    assert [check.outcome for check in found] == outcomes
    assert [check.main for check in found] == [False, True, False, False, False]


def test_a_share_of_a_gain_that_may_be_none_is_undecided():
    parts = {FIRST: BEFORE - 0.2, LAST: BEFORE, REST: BEFORE}
    premise, *shares = checks("here", BEFORE, BEFORE - 0.01 + 5 * SEEDS, parts)
    assert premise.outcome is UNDECIDED and [one.outcome for one in shares] == [UNDECIDED] * 4


def test_what_was_not_trained_is_not_run():
    none = np.full(FEW, np.nan)
    found = checks("here", BEFORE, BEFORE - 0.1 + SEEDS / 100, {FIRST: BEFORE - 0.1, LAST: none, REST: none})
    assert [check.outcome for check in found] == [HOLDS, HOLDS, NOT_RUN, NOT_RUN, NOT_RUN]


def test_hard_attribute_is_the_one_that_sgd_leaves_worse():
    def record(cat, dog):
        return {"status": "finished", "metrics": {"probing_error": {"cat": {"error": cat}, "dog": {"error": dog}}}}

    records = {("sgd", None): [record(0.1, 0.2), None, record(0.3, 0.1)], ("sam", None): [None, record(0.0, 0.4), None]}
    assert when.hard_attribute(records) == "cat"
    np.testing.assert_array_equal(when.probing(records, "dog")["sam", None], [np.nan, 0.4, np.nan])


# The toy's trials


def test_each_point_of_the_design_is_sgd_lsam_and_lsam_in_each_tenth_at_a_radius_like_the_heads():
    for values in when.points(5):
        before, whole, *parts = when.of_point(values)
        assert (before.rho, before.head) == (0, whole.head)
        assert whole.rho == pytest.approx(1.4 * np.linalg.norm(whole.head) / 2**0.5, rel=0.01)
        assert [part.ascent for part in parts] == list(tenths(values["epochs"]).values())
        assert {replace(part, ascent=None) for part in parts} == {whole}
        for name, (low, high, _) in when.RANGES.items():
            assert low <= values[name] <= high


def test_fewer_points_are_the_first_of_more():
    assert when.points(5) == when.points(12)[:5]


def test_longer_trainings_are_as_long_in_rate_times_epochs_and_otherwise_the_same():
    for short, long in zip(when.design(4), when.design(4, first_seed=6000, length=3.0)):
        assert long.first_seed == 6000
        for one, other in zip(short.settings, long.settings):
            assert abs(other.epochs * other.learning_rate - 3.0) <= other.learning_rate / 2
            assert replace(other, epochs=one.epochs, ascent=None) == replace(one, ascent=None)


def test_parts_of_the_phantom_share_all_but_the_part():
    parts = when.part_settings(1.4)
    assert len(set(parts.values())) == len(parts)
    assert {(part.data, part.epochs, part.learning_rate, part.head) for part in parts.values()} == {
        (parts["SGD"].data, when.EPOCHS, 0.05, (1.0, 1.0))
    }
    assert when.PREDICTED.keys() < parts.keys()
    assert parts["importance weights alone"].importance == "phantom" == parts["learning rates alone"].effective
    assert parts["importance weights alone"].effective == "real" == parts["learning rates alone"].importance


def test_points_without_enough_to_gain_are_not_judged():
    def record(whole):
        after = np.array([before, whole, whole, before, before])[..., None] + np.arange(FEW)
        return {
            "configuration": {"experiment": "toy", "seeds": FEW, "shared": {"test_points": 1000}, "settings": [{}] * 5},
            "metrics": {"wrong": {"test": {"hard": after.tolist()}}},
        }

    before = 300
    found = when.judged_points([record(249), record(251), record(100)])
    np.testing.assert_allclose(found["gain"], [0.051, 0.049, 0.2])
    assert list(found[f"outcome of {FIRST}"]) == ["holds", "", "holds"]
    assert list(found[f"outcome of {LAST}"]) == ["contradicted", "", "contradicted"]
    np.testing.assert_allclose(found[f"share of {FIRST}"], [1, np.nan, 1])
    unsure = record(100)
    unsure["metrics"]["wrong"]["test"]["hard"][1] = [100, 500] * (FEW // 2 - 1) + [100, 100]  # a gain, but of few seeds
    (gain,), (outcome,) = (when.judged_points([unsure])[name] for name in ("gain", f"outcome of {FIRST}"))
    assert gain > when.TO_GAIN and outcome == ""


def test_each_seeds_strength_is_the_others_choice():
    strengths = [len(some) for some in when.STRENGTHS.values()]
    validation = np.full((sum(strengths), 3), 400)
    validation[1], validation[strengths[0]] = 100, 100  # LSAM's second radius, the first constant rate
    test = np.arange(sum(strengths) * 3).reshape(-1, 3)
    wrong = {"validation": {"hard": validation.tolist(), "easy": validation.tolist()}}
    wrong["test"] = {"hard": test.tolist(), "easy": (10 * test).tolist()}
    wrong["test"]["hard"][-strengths[-1]][0] = None
    shared = {"experiment": "toy", "seeds": 3, "shared": {"test_points": 1000}, "settings": [{}] * sum(strengths)}
    found = when.at_best({"configuration": shared, "metrics": {"wrong": wrong}})
    hard, easy, strength = found["LSAM"]
    np.testing.assert_allclose(hard, test[1] / 1000)
    np.testing.assert_allclose(easy, test[1] / 100)
    assert found["label smoothing"][0][0] == 0.5  # that net diverged
    assert strength == when.STRENGTHS["LSAM"][1] and found["constant easy rate"][2] == 0.03


# The hard rate


@pytest.mark.parametrize(("batch", "error"), [(1, 0.5), (5, 0.1294), (20, 0.0341), (50, 0.0138)])
def test_least_error_is_where_half_of_the_batches_have_a_wrong_point(batch, error):
    assert least_error(batch) == pytest.approx(error, abs=1e-4)
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


def border(share: float, error: float = 0.05) -> list:
    """Checks with batches of 5, none of whose steps is raised, and of 50, whose `share` is, at this error."""
    errors, epochs = np.full((FEW, 2), error) + SEEDS[:, None] / 10, np.ones((FEW, 2))
    shares = {5: 0 * epochs, 50: share * epochs + SEEDS[:, None] / 10}
    return when.border_checks({5: errors, 50: errors}, shares)


@pytest.mark.parametrize(("share", "majority"), [(0.49, CONTRADICTED), (0.51, HOLDS), (0.5, UNDECIDED)])
def test_the_border_moves_where_a_majority_is_raised_below_it(share, majority):
    kept_to, of_majority, more = border(share)
    assert (kept_to.outcome, of_majority.outcome, more.outcome) == (HOLDS, majority, HOLDS) and kept_to.trivial


def test_the_border_is_judged_below_it_only():
    assert border(0.9, least_error(5) + 0.0001)[1].outcome is NOT_RUN
    assert border(0.9, least_error(5) - 0.0001)[1].outcome is HOLDS
    assert border(0.9, least_error(50) - 0.002)[2].outcome is NOT_RUN


def test_more_raised_steps_than_batches_with_a_wrong_point_contradict_the_bound():
    bound = 1 - 0.95**50
    assert border(bound - 0.001)[0].outcome is HOLDS
    assert border(bound + 0.001)[0].outcome is CONTRADICTED


# Full SAM


def test_two_radii_give_sgd_and_lsam_where_the_ascent_stays_on_the_head():
    seeds, epochs = range(2), 2
    found = when.two_radii([(0, 0), (1.4, 0)], seeds, epochs=epochs)
    other = train([sgd(epochs=epochs), lsam(1.4, epochs=epochs)], seeds, threads=1)
    np.testing.assert_allclose(found[..., :2], other.errors[:, :, 0, 2, :2], atol=0.01)
    assert not np.allclose(found[0], found[1])


def test_a_radius_below_the_head_changes_the_training():
    alone, both = when.two_radii([(1.4, 0), (1.4, 0.4)], range(2), epochs=1)
    assert not np.allclose(alone, both)


# Figures


def test_figure_of_windows_shows_few_seeds_as_dots_and_others_with_intervals():
    many, few = 0.02 + SEEDS, np.array([0.01, 0.03])
    gains = {name: {None: many, (0, 2): many / 2, (2, 20): few} for name in ("one", "two")}
    fig = when.figure_images(gains)
    panel = fig.axes[0]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["all epochs", "epochs 1 to 2", "epochs 3 to 20"]
    assert len(panel.containers) == 2  # with whiskers
    dots = [line for line in panel.lines if len(line.get_xdata()) == 2 and line.get_marker() == "s"]
    np.testing.assert_allclose(dots[0].get_xdata(), 100 * few)
    plt.close(fig)


def test_figure_of_the_switch_has_a_line_in_either_direction():
    found = {None: BEFORE - 0.2} | {w: BEFORE - 0.01 * sum(w) for w in windows(60, (1, 6))}
    points = {f"outcome of {FIRST}": np.array(["holds", "", "holds"])}
    points |= {f"share of {name}": np.array([0.9, np.nan, 0.8]) for name in (FIRST, REST)}
    fig = when.figure_switch(found, BEFORE, points, points)
    lines = {line.get_label(): line for line in fig.axes[0].lines}
    np.testing.assert_allclose(lines["LSAM, then SGD"].get_ydata(), [found[0, 1].mean(), found[0, 6].mean()])
    np.testing.assert_allclose(
        lines["SGD, then LSAM"].get_ydata(), [found[1, 60].mean(), found[6, 60].mean(), found[54, 60].mean()]
    )
    assert np.isfinite(fig.axes[1].lines[-1].get_xdata()).sum() == 2
    plt.close(fig)


def test_figures_of_parts_and_border_show_the_means():
    fig = when.figure_parts(BEFORE, BEFORE - 0.2, {"a part": BEFORE - 0.1}, {"slower": BEFORE - 0.15})
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ["SGD", "LSAM", "a part", "slower*"]
    error, share = (
        {5: np.full((3, 4), 0.2), 20: np.full((3, 4), 0.1)},
        {5: np.full((3, 4), 0.6), 20: np.full((3, 4), 0.5)},
    )
    border = when.figure_border({"here": (error, share)})
    np.testing.assert_allclose(border.axes[1].lines[1].get_data(), [[10] * 4, [0.5] * 4])
    for one in (fig, border):
        plt.close(one)
