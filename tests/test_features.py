"""Chapter 02: a probe is right on balanced data and wrong on others, where the truth is known."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import scipy.stats
from images import marked

from book import features
from book.features import Representation
from lib import probes
from lib.data import pairs
from lib.data.dataset import Dataset
from lib.data.toy import ToyConstants
from lib.toy.ensemble import lsam, train

DIGITS = tuple(map(str, range(10)))
COLOURS = ("red", "green", "blue/cyan", "grey", "black")
BOTH, EASY_ONLY = Representation(easy=2.0, hard=1.5), Representation(easy=6.0, hard=0.0)


@pytest.mark.parametrize("agreement", [0.5, 0.7, 0.9, 1.0])
def test_attributes_agree_as_often_as_asked_and_stay_balanced_each(agreement):
    made = features.agreeing(400, agreement, np.random.default_rng(0))
    assert np.mean(made["easy"] == made["hard"]) == agreement
    assert made["easy"].mean() == made["hard"].mean() == 0.5
    if agreement == 0.5:
        probes.check_balance(made)


def test_representation_holds_the_attributes_at_their_distances():
    random = np.random.default_rng(0)
    made = features.agreeing(40_000, 0.5, random)
    phi = BOTH.draw(made, random)
    for unit, name in enumerate(("easy", "hard")):
        difference = phi[made[name] == 1].mean(0) - phi[made[name] == 0].mean(0)
        assert abs(difference[unit] - getattr(BOTH, name)) < 0.05
        assert np.abs(np.delete(difference, unit)).max() < 0.05


def test_balanced_probe_finds_the_true_error_and_a_correlated_one_does_not():
    sets = [(400, (agreement, agreement, 0.5)) for agreement in (0.5, 1.0)]
    errors = features.probed([BOTH, EASY_ONLY], sets, range(3)).mean(2)
    for found, representation in zip(errors, (BOTH, EASY_ONLY)):
        assert np.allclose(found[0], representation.hard_error, atol=0.03)
        assert found[1, 0] < representation.hard_error - 0.05 and found[1, 1] > found[0, 1]
    # The order of the two representations turns round.
    assert errors[0, 0, 0] < errors[1, 0, 0] and errors[0, 1, 0] > errors[1, 1, 0]


def test_error_nears_the_truth_from_above_as_the_probe_set_grows():
    wide = Representation(easy=6.0, hard=1.5, width=128)
    small, large = features.probed([wide], [(size, (0.5, 0.5)) for size in (60, 2000)], range(4)).mean((2, 3))[0]
    assert small > large > wide.hard_error - 0.02 and large < wide.hard_error + 0.03


def test_a_line_reads_the_easy_plane_and_not_a_tight_spiral():
    easy, loose, tight = features.of_toy_inputs([ToyConstants(complexity=c) for c in (90.0, 360.0)], seed=100)
    assert easy == loose == 0 and tight > 0.3


def test_toy_nets_are_told_apart_by_the_balanced_probe_only():
    result = train([lsam(0.0, epochs=100), lsam(1.4, epochs=100)], range(100, 104), keep_nets=True)
    errors = features.of_toy_nets(result)
    assert errors["correlated"].max() < 0.01
    assert (errors["balanced"][0] - errors["balanced"][1]).mean() > 0.1


def test_intervals_miss_as_often_as_they_say_and_the_percentile_bootstraps_more():
    missed = features.misses([4, 20])
    for kind, expected in (("percentile bootstrap", (0.1, 0.04)), ("Student's", 0.025), ("this book's", 0.025)):
        np.testing.assert_allclose(missed["normal"][kind].T, np.broadcast_to(expected, (2, 2)), atol=0.015)
    two_valued, skewed = missed["two-valued"], missed["skewed (exponential)"]
    assert 1 - two_valued["Student's"][0].sum() == pytest.approx(1 - 0.3**4 - 0.7**4, abs=0.03)  # not all are equal
    assert (skewed["Student's"][:, 1] > 5 * skewed["Student's"][:, 0]).all()  # it lies below far more often than above
    assert skewed["this book's"][1].sum() < skewed["Student's"][1].sum()


def test_percentiles_and_students_interval_are_those_of_the_literature():
    values = np.random.default_rng(0).normal(size=(3, 5, 12))
    expected = scipy.stats.t.interval(0.95, 11, values.mean(-1), scipy.stats.sem(values, axis=-1))
    np.testing.assert_allclose(features.INTERVALS["Student's"](values), expected)
    one = scipy.stats.bootstrap((values[0, 0],), np.mean, method="percentile", rng=0).confidence_interval
    np.testing.assert_allclose(features.INTERVALS["percentile bootstrap"](values)[:, 0, 0], one, atol=0.05)


def test_figure_of_coverage_shows_what_is_not_missed():
    missed = features.misses([3, 8], experiments=20)
    fig = features.covered([3, 8], missed)
    for panel, of_kind in zip(fig.axes, missed.values()):
        for line, shares in zip(panel.lines[1:], of_kind.values()):
            np.testing.assert_allclose(line.get_ydata(), 1 - shares.sum(axis=1))
    plt.close(fig)


def made_pairs(classes: int) -> Dataset:
    """Each part's class is told by the brightness of its image."""
    upper, lower = (
        [marked(dict.fromkeys(range(classes), 60), side, channels, seed) for seed in (1, 2)]
        for side, channels in ((32, 3), (28, 1))
    )
    return pairs.pair(
        "made", pairs.Part("cifar", *upper, COLOURS[:classes]), pairs.Part("mnist", *lower, DIGITS[:classes])
    )


def test_pixels_tell_both_attributes_of_bright_images():
    errors = features.of_pixels(made_pairs(2))
    assert errors == {name: {"correlated": 0.0, "balanced": 0.0} for name in ("cifar", "mnist")}


@pytest.mark.parametrize("classes", [2, 5])
def test_grid_of_pairs_shows_each_class_and_pairs_that_disagree(classes):
    fig = features.image_pairs(made_pairs(classes))
    names = [[panel.get_xlabel() for panel in part.axes] for part in fig.subfigs]
    plt.close(fig)
    assert len(set(names[0])) == classes and len(set(names[1])) > classes
    uppers, lowers = zip(*(name.split("\n") for name in names[0]))
    assert set(lowers) == set(DIGITS[:classes]) and uppers[0] == "red" and "blue/cyan" not in uppers
