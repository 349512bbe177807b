"""The study of the lost constants: its design, the chapters' rules for many points at once, the shares."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from book import open_choices, rebalancing, toy
from book.claims import Outcome, Verdict, verdict_of
from book.open_choices import CHOICES, EFFECTS, OURS, RADII, RATIOS, Explanation, Points, explain, share
from lib.stats import FEW, estimate, wilson_interval
from lib.toy.ensemble import ToySetting, lsam
from lib.trials.toy import MEANS, ToyTrial
from lib.trials.trial import Place

SEEDS = FEW + 1
RHO = RADII.index(1.0)


# The design


def test_our_choice_is_what_the_other_chapters_train():
    ours = ToySetting(importance="real", effective="real")
    assert open_choices.trial(OURS).settings[1] == lsam(RADII[1])
    assert open_choices.common(OURS) == {name: getattr(ours, name) for name in open_choices.common(OURS)}


def test_every_point_is_in_range_and_gives_its_values_back():
    for trial, values in zip(open_choices.design(30), open_choices.sample(30)):
        back = open_choices.values_of(trial.settings[0])
        for choice in CHOICES:
            assert choice.low <= values[choice.name] <= choice.high
            assert back[choice.name] == pytest.approx(values[choice.name], abs=2e-4, rel=2e-3)


def test_design_fills_every_range():
    table = pd.DataFrame(open_choices.sample(128))
    for choice in CHOICES:
        shares = np.linspace(0, 1, 9)
        edges = [choice.at(at) for at in shares]
        counts, _ = np.histogram(table[choice.name], bins=edges)
        assert counts.min() >= 10, f"{choice.name}: {counts}"  # 16 to be expected


def test_fewer_points_are_the_first_of_more():
    few, more = open_choices.design(3), open_choices.design(20)
    assert few == more[:3]
    assert open_choices.design(3, seed=1) != few
    assert len({trial.identity for trial in more}) == 20


def test_one_at_a_time_changes_one_constant_or_the_head():
    points = open_choices.alone()
    assert points[0] == OURS
    names = [{name for name in OURS if point[name] != OURS[name]} for point in points[1:]]
    assert all(len(changed) == 1 or changed == {"head_easy", "head_hard"} for changed in names)
    assert set().union(*names) == OURS.keys()
    assert len({trial.identity for trial in open_choices.one_at_a_time()}) == len(points)


def test_plan_is_both_studies():
    trials = open_choices.plan(None, seeds=10).trials
    assert len(trials) == open_choices.POINTS + len(open_choices.alone())
    assert {trial.seeds for trial in trials} == {10}


def test_what_is_no_point_is_refused():
    with pytest.raises(ValueError, match="points must be a whole number of at least 1, not 0"):
        open_choices.sample(0)
    with pytest.raises(ValueError, match="values must be of gap, outer"):
        open_choices.common({"gap": 0.1})


# Reading


def small(trial: ToyTrial) -> ToyTrial:
    """The trial with nets that are trained at once."""
    return replace(
        trial,
        seeds=2,
        settings=tuple(
            replace(setting, width=8, epochs=2, data=replace(setting.data, training_points=30, test_points=50))
            for setting in trial.settings
        ),
    )


def test_another_radius_is_read_in_its_place():
    assert open_choices.at_radius(open_choices.design(2), RADII[2]) == []
    trials = open_choices.design(2)
    added = open_choices.at_radius(trials, 0.5)
    expected = [lsam(0.5, **open_choices.common(values)) for values in open_choices.sample(2)]
    assert [trial.settings for trial in added] == [(setting,) for setting in expected]
    place = Place(device="cpu", checkpoints=None)
    records, extra = ([small(trial).run(place) for trial in some] for some in (trials, added))
    without, points = open_choices.read(records), open_choices.read(records, extra)
    assert points.rhos == (0.0, 0.4, 0.5, 0.7, 1.0, 1.4)
    at = points.rhos.index(0.5)
    for name in ("hard", "training", "means"):
        assert np.array_equal(np.delete(getattr(points, name), at, axis=1), getattr(without, name))
    assert points.interventions.shape == (2, len(EFFECTS), len(RATIOS), 2)
    assert not np.isnan(points.hard).any() and not np.isnan(points.means).any()


# The rules


def made(**changes: np.ndarray) -> Points:
    """One point at which every part of every claim holds, with a little noise over seeds; `changes` replace
    what was measured."""
    noise = 0.001 * np.random.default_rng(0).uniform(size=(1, len(RADII), SEEDS))
    fall = np.array([0.4, 0.35, 0.31, 0.28, 0.25])[None, :, None]  # as both interventions at these ratios
    phantom = np.array([0.5, 0.6, 0.7, 0.8, 0.9])[None, :, None] + noise
    one = np.ones_like(noise)
    rate_easy, rate_hard = 1 - np.array(RADII)[None, :, None] / 2 + noise, 1 + np.array(RADII)[None, :, None]
    means = {
        "w_easy": one,
        "w_hard": 0.5 * one,
        "phantom_easy": one,
        "phantom_hard": phantom,
        "rate_easy": rate_easy,
        "rate_hard": rate_hard + noise,
    }
    fixed = np.array([[0.38, 0.2, 0.1], [0.38, 0.2, 0.1], [0.4, 0.05, 0.05]])[None, :, :, None] + noise[:, :1]
    measured = {
        "hard": fall + noise,
        "easy": 0.01 + noise,
        "validation": fall + noise,
        "training": 0 * noise,
        "means": np.stack([means[name] for name in MEANS], axis=-1),
        "interventions": fixed,
    }
    return Points(pd.DataFrame([OURS]), RADII, **measured | changes)


def judged(points: Points) -> dict[str, bool]:
    """Every part of every claim at the only point."""
    claims = open_choices.claims(points, open_choices.one_radius(points, RADII[RHO]))
    return {f"{claim} {part}": bool(held[0]) for claim, parts in claims.items() for part, held in parts.items()}


def test_every_part_holds_where_the_paper_is_right_in_everything():
    assert all(judged(made()).values())


def test_points_are_judged_one_by_one_as_their_chapters_judge():
    both = {
        name: np.concatenate([getattr(made(), name)] * 2) for name in vars(made()) if name not in ("values", "rhos")
    }
    both["hard"][1], both["means"][1] = both["hard"][1, ::-1], both["means"][1, ::-1]
    points, at = made(**both), RHO
    found = open_choices.claims(points, open_choices.one_radius(points, RADII[at]))
    for n in range(2):
        one = slice(n, n + 1)
        ratios = [points.ratio(kind)[one] for kind in ("phantom", "w")]
        rates = [points.mean(f"rate_{feature}")[one] for feature in ("easy", "hard")]
        expected = {
            "C1": toy.checks(RADII, at, points.hard[one], points.easy[one], points.training[one])[:3],
            "C2": rebalancing.checks_c2(RADII, at, *ratios),
            "C5": rebalancing.checks_c5(RADII, at, *rates),
        }
        for claim, checks in expected.items():
            holds = [verdict_of(checks) is Verdict.REPRODUCED, *(check.outcome is Outcome.HOLDS for check in checks)]
            assert [part[n] for part in found[claim].values()] == holds
            assert n or all(holds)
    assert not found["C1"]["C1"][1] and not found["C2"]["C2"][1]


def test_a_claim_holds_by_its_main_part_where_no_other_is_contradicted():
    hard = made().hard.copy()
    hard[:, :, ::2] += 0.05 * np.arange(5)[:, None]  # rises over half of the seeds, so that the trend is undecided
    hard[:, RHO] = 0.3
    found = judged(made(hard=hard))
    assert found["C1 C1"] and found["C1 LSAM lowers the hard error"] and not found["C1 it falls as ρ grows"]
    assert not judged(made(training=np.full((1, 5, SEEDS), 0.01)))["C1 C1"]


def test_fewer_seeds_than_decide_anything_fail_what_needs_an_interval():
    few = {name: getattr(made(), name)[..., : FEW - 1] for name in ("hard", "easy", "validation", "training")}
    points = made(**few, means=made().means[:, :, : FEW - 1], interventions=made().interventions[..., : FEW - 1])
    assert [part for part, held in judged(points).items() if held] == ["C1 both fit the labels"]


def test_gain_is_that_of_chapter_03_and_lsam_raises_the_error_where_it_is_below_0():
    points = made(hard=made().hard[:, ::-1])
    compared = open_choices.one_radius(points, RADII[RHO])
    np.testing.assert_array_equal(open_choices.gain(points, compared), points.hard[:, 0] - points.hard[:, RHO])
    assert open_choices.raises(points, compared) == [True]
    unsure = made().hard.copy()
    unsure[:, RHO] = unsure[:, 0] + np.where(np.arange(SEEDS) % 2, 0.1, -0.05)
    assert [open_choices.raises(made(hard=one), compared)[0] for one in (made().hard, unsure)] == [False, False]
    with pytest.raises(ValueError, match="rho must be one of"):
        open_choices.one_radius(points, 0.3)


def test_c6_needs_positive_ratios_that_begin_below_the_largest_c():
    for ratio in (-0.1, RATIOS[-1]):
        means = made().means.copy()
        means[..., MEANS.index("phantom_hard")] = ratio
        points = made(means=means)
        assert not any(held for part, held in judged(points).items() if part.startswith("C6"))
        assert open_choices.effects(points, open_choices.one_radius(points, 1.0)).filter(like="gain of ").isna().sum(
            axis=1
        ).tolist() == [len(EFFECTS)]


def test_diverged_net_fails_what_needs_it_and_costs_c6_a_seed():
    hard = made().hard.copy()
    hard[:, RHO, 0] = np.nan
    found = judged(made(hard=hard))
    assert not found["C1 LSAM lowers the hard error"] and found["C6 learning rate alone"]
    assert len(list(open_choices.comparable(made(hard=hard)))) == 1
    hard[:, RHO, :2] = np.nan
    assert not list(open_choices.comparable(made(hard=hard))), "seven seeds are too few"
    assert not judged(made(hard=hard))["C6 learning rate alone"], "seven seeds are too few"


def test_premise_is_that_sgd_fits_and_the_spiral_is_hard():
    assert all(found[0] for found in open_choices.strata(made()).values())
    for changes in ({"training": np.full((1, 5, SEEDS), 0.01)}, {"easy": np.full((1, 5, SEEDS), 0.45)}):
        found = open_choices.strata(made(**changes))
        assert found["all"][0] and not found["premise"][0] and not found["to gain"][0]
    for error, enough in ((0.0625, True), (0.0499, False)):
        found = open_choices.strata(made(hard=np.full((1, 5, SEEDS), error)))
        assert found["premise"][0] and found["to gain"][0] == enough


def test_something_to_gain_includes_its_border(monkeypatch):
    monkeypatch.setattr(open_choices, "TO_GAIN", 0.0625)  # which a sum of floats does not miss
    assert open_choices.strata(made(hard=np.full((1, 5, SEEDS), 0.0625)))["to gain"][0]


def test_best_radius_is_chosen_on_validation_data_among_those_that_fit():
    validation = np.array([0.0, 0.3, 0.1, 0.2, 0.05])[None, :, None] * np.ones((1, 1, SEEDS))
    best = open_choices.best_radius(made(validation=validation, hard=made().hard[:, ::-1]))
    assert np.array_equal(best, np.full((1, SEEDS), 4))
    training = np.array([0.0, 0.0, 0.0, 0.0, 0.1])[None, :, None] * np.ones((1, 1, SEEDS))
    assert np.all(open_choices.best_radius(made(validation=validation, training=training)) == 2)
    training[:, 2], validation[:, 2] = np.nan, np.nan  # diverged
    assert np.all(open_choices.best_radius(made(validation=validation, training=training)) == 3)


def test_radius_of_a_seed_is_chosen_on_the_other_seeds():
    validation = np.full((1, 5, SEEDS), 0.2)
    validation[:, 1, 0] = 0.0  # for the first seed alone the first radius is the best
    assert open_choices.best_radius(made(validation=validation))[0, 1:].tolist() == [1] * (SEEDS - 1)
    validation[:, 2, 1:] = 0.19
    assert open_choices.best_radius(made(validation=validation))[0, 0] == 2


# Shares and what explains them


def test_share_counts_among_the_chosen_with_wilsons_interval():
    held, among = np.array([True, True, False, False]), np.array([True, True, True, False])
    found = share(held, among)
    assert (found.mean, found.n) == (2 / 3, 3)
    assert (found.low, found.high) == wilson_interval(2, 3)
    half = share(np.arange(400) < 100, np.arange(400) < 200)
    assert open_choices.percent(half) == "50% [43%, 57%]"
    none = share(held, ~among & among)
    assert none.n == 0 and np.isnan([none.mean, none.low, none.high]).all()


def test_explanation_finds_the_constant_that_decides():
    values = pd.DataFrame(open_choices.sample(128))
    found = explain(values, (values["complexity"] > 350).to_numpy())
    assert found.importance.index[0] == "complexity" and found.accuracy > 0.9
    chance = explain(values, np.random.default_rng(0).uniform(size=128) > 0.5)
    assert chance.accuracy < 0.7
    assert explain(values, np.arange(128) < 5) is None


# Figures


def test_figures_are_drawn_where_nothing_and_where_everything_holds():
    values = pd.DataFrame(open_choices.sample(40))
    held = (values["width"] > 40).to_numpy()
    judged = (values["complexity"] > 200).to_numpy()
    explained = Explanation(pd.Series({"width": 0.4, "gap": 0.0, "noise": 0.0}), 0.9)
    nothing = np.zeros(40, dtype=bool)
    found = {"all": share(~nothing, ~nothing), "premise": share(nothing, judged), "to gain": share(held, nothing)}
    names = [open_choices.change(point) for point in open_choices.alone()]
    assert names[0] == "our choice" and len(set(names)) == len(names)
    gains = [estimate(np.arange(3.0) + row) for row in range(len(names))]
    premise = np.arange(len(names)) % 2 == 0
    held_alone = {
        "C1": {"C1": premise, "a part": premise, "another": premise},
        "C2": {"C2": ~premise, "a part": ~premise},
    }
    drawn = [
        open_choices.figure_shares({"C1": {"C1": found, "a part": found}}),
        open_choices.figure_alone(names, gains, premise, held_alone),
        open_choices.figure_where(values, {"C1": held, "C2": ~held}, judged, {"C1": explained, "C2": None}),
    ]
    for fig in drawn:
        fig.canvas.draw()
        plt.close(fig)
