"""The study of the lost constants: its design, the chapters' rules for many points at once, the shares."""

import json
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from book import mechanism, open_choices, rebalancing, toy
from book.claims import Outcome, Verdict, verdict_of
from book.open_choices import (
    CHOICES,
    EFFECTS,
    OURS,
    RADII,
    RATIOS,
    WEIGHTS,
    Explanation,
    MapTrial,
    Points,
    explain,
    share,
    weights,
)
from book.plan import within
from book.toy_trial import MEANS, ToyTrial
from lib.data.toy import ToyConstants
from lib.importance import gini
from lib.stats import FEW, estimate, mean_interval, wilson_interval
from lib.toy.ensemble import ToySetting, lsam, train
from lib.trials.trial import Place

SEEDS = FEW + 1
KEPT = ("values", "rhos", "ratios")
RHO = RADII.index(1.0)


# The design


def test_our_choice_is_what_the_other_chapters_train():
    ours = ToySetting(importance="real", effective="real")
    assert open_choices.trial(OURS).settings[1] == lsam(RADII[1])
    assert open_choices.common(OURS) == {name: getattr(ours, name) for name in open_choices.common(OURS)}


@pytest.mark.parametrize("wide", [False, True])
def test_design_fills_every_range(wide):
    table = pd.DataFrame(open_choices.sample(128, wide=wide))
    ranges = {choice: ends for choice in CHOICES if (ends := choice.wide if wide else choice.long)}
    assert list(table) == [choice.name for choice in ranges]
    for choice, ends in ranges.items():
        parts = 2 if choice.scale == "either" else 8
        edges = ends if parts == 2 else [within((*ends, choice.scale), at) for at in np.linspace(0, 1, 9)]
        counts = np.bincount(table[choice.name]) if parts == 2 else np.histogram(table[choice.name], bins=edges)[0]
        assert table[choice.name].between(*ends).all()
        assert counts.min() >= 0.6 * 128 / parts, f"{choice.name}: {counts}"


def test_a_point_of_the_map_trains_what_its_values_say():
    at = dict(gap=0.2, hard_scale=4.0, noise=0.05, complexity=270.0, learning_rate=0.02, width=24, epochs=7)
    at |= dict(head_easy=3.0, head_hard=4.0, batch_size=9, gain=0.5, easy_gap=0.5, easy_outer=1.4, radius=0.2)
    one = open_choices.map_trial(at | {"constant_pitch": 1})
    assert (one.weighed, one.trace_every, one.seeds, one.first_seed) == (1.0, 1, FEW, 7000)
    swept, fixed = one.settings[:4], one.settings[4:]
    assert [setting.rho for setting in swept] == [0, 0.5, 0.75, 1.0]
    assert [setting.ratio for setting in fixed] == [0.6667, 1.333, 2.667, 5.333] * len(EFFECTS)
    data = ToyConstants(270.0, 0.15, 0.75, (0.7, 1.4), hard_scale=4.0, uniform_noise=0.15)
    shared = dict(data=data, learning_rate=0.02, width=24, epochs=7, head=(3, 4), batch_size=9, gain=0.5)
    assert swept[3] == lsam(1.0, **shared)
    whole = open_choices.map_trial(at | {"constant_pitch": 0}).settings[0].data
    assert (whole.outer, whole.inner, whole.uniform_noise) == (1.0, 0.2, 0.2)


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
    of_map = open_choices.map_plan(None).trials
    assert len({trial.identity for trial in of_map}) == open_choices.MAP_POINTS


def test_what_is_no_point_is_refused():
    with pytest.raises(ValueError, match="points must be a whole number of at least 1, not 0"):
        open_choices.sample(0)


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


PLACE = Place(device="cpu", checkpoints=None)


def test_a_point_of_the_map_is_read_in_units_of_its_own():
    values = open_choices.sample(2, wide=True)
    records = [small(open_choices.map_trial(one)).run(PLACE) for one in values]
    points = open_choices.read(values, records)
    assert (points.rhos, points.ratios) == (open_choices.PARTS_OF_RADIUS, open_choices.TIMES_OWN)
    assert points.weights.shape == (2, 4, 2, 4) and points.interventions.shape == (2, len(EFFECTS), 4, 2)
    assert points.unit.tolist() == [one["head_hard"] / one["head_easy"] for one in values]
    assert open_choices.frontier(points)["error"].tolist() == points.weights[:, -1, :, 3].mean(axis=1).tolist()


def test_importance_is_weighed_at_the_end_of_training():
    one = small(open_choices.map_trial(open_choices.sample(1, wide=True)[0]))
    wild = replace(one.settings[1], learning_rate=1e6)
    trial = replace(one, settings=(one.settings[0], wild, *one.settings[2:]))
    assert MapTrial.from_configuration(json.loads(json.dumps(trial.configuration))) == trial
    record = trial.run(PLACE)
    nets = train(one.settings[3:4], range(7000, 7002), keep_nets=True, progress=False)
    parts = mechanism.decompose(nets, 0, -1, trial.weighed)
    expected = gini(parts.real), gini(parts.phantom), (parts.easy <= 0).mean(axis=1), (parts.hard <= 0).mean(axis=1)
    found = weights(record)
    assert found.shape == (4, 2, len(WEIGHTS)) and np.isnan(found[1]).all() and not np.isnan(found[0]).any()
    assert np.allclose(np.moveaxis(found[3], -1, 0), expected, rtol=1e-3)
    assert np.isnan(weights(record | {"metrics": None})).all()


def test_another_radius_is_read_in_its_place():
    assert open_choices.at_radius(open_choices.design(2), RADII[2]) == []
    trials = open_choices.design(2)
    added = open_choices.at_radius(trials, 0.5)
    expected = [lsam(0.5, **open_choices.common(values)) for values in open_choices.sample(2)]
    assert [trial.settings for trial in added] == [(setting,) for setting in expected]
    values = open_choices.sample(2)
    records, extra = ([small(trial).run(PLACE) for trial in some] for some in (trials, added))
    without, points = open_choices.read(values, records), open_choices.read(values, records, extra)
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
        "training": 0 * noise,
        "means": np.stack([means[name] for name in MEANS], axis=-1),
        "interventions": fixed,
    }
    even = np.array([0.9, 0.5, 0, 0]) + 0 * noise[..., None]  # weights are more even at the phantom
    plain = {"rhos": RADII, "ratios": RATIOS, "unit": np.ones(1), "weights": even}
    return Points(pd.DataFrame([OURS]), **plain | measured | changes)


def judged(points: Points) -> dict[str, bool]:
    """Every part of every claim at the only point."""
    claims = open_choices.claims(points, RHO)
    return {f"{claim} {part}": bool(held[0]) for claim, parts in claims.items() for part, held in parts.items()}


def test_every_part_holds_where_the_paper_is_right_in_everything():
    assert all(judged(made()).values())


def test_points_are_judged_one_by_one_as_their_chapters_judge():
    both = {name: np.concatenate([getattr(made(), name)] * 2) for name in vars(made()) if name not in KEPT}
    for name in ("hard", "means"):
        both[name][1] = both[name][1, ::-1]
    both["weights"][1] = both["weights"][1][..., [1, 0, 2, 3]]
    points, at = made(**both), RHO
    found = open_choices.claims(points, at)
    for n in range(2):
        one = slice(n, n + 1)
        ratios = [points.ratio(kind)[one] for kind in ("phantom", "w")]
        rates = [points.mean(f"rate_{feature}")[one] for feature in ("easy", "hard")]
        expected = {
            "C1": toy.checks(RADII, at, points.hard[one], points.easy[one], points.training[one])[:3],
            "C2": rebalancing.checks_c2(RADII, at, *ratios),
            "C3": mechanism.checks_c3(np.moveaxis(points.weights[n, [0, at], :, :2], -1, 0)),
            "C5": rebalancing.checks_c5(RADII, at, *rates),
        }
        for claim, checks in expected.items():
            holds = [verdict_of(checks) is Verdict.REPRODUCED, *(check.outcome is Outcome.HOLDS for check in checks)]
            assert [part[n] for part in found[claim].values()] == holds
            assert n or all(holds)
    assert not any(found[claim][claim][1] for claim in ("C1", "C2", "C3"))
    assert "C3" not in open_choices.claims(made(weights=None), at)


def test_a_claim_holds_by_its_main_part_where_no_other_is_contradicted():
    hard = made().hard.copy()
    hard[:, :, ::2] += 0.05 * np.arange(5)[:, None]  # rises over half of the seeds, so that the trend is undecided
    hard[:, RHO] = 0.3
    found = judged(made(hard=hard))
    assert found["C1 C1"] and found["C1 LSAM lowers the hard error"] and not found["C1 it falls as ρ grows"]
    assert not judged(made(training=np.full((1, 5, SEEDS), 0.01)))["C1 C1"]


def test_fewer_seeds_than_decide_anything_fail_what_needs_an_interval():
    few = {name: getattr(made(), name)[..., : FEW - 1] for name in ("hard", "easy", "training", "interventions")}
    few["weights"] = made().weights[:, :, : FEW - 1]
    points = made(**few, means=made().means[:, :, : FEW - 1])
    assert [part for part, held in judged(points).items() if held] == ["C1 both fit the labels"]


@pytest.mark.parametrize(
    ("ratio", "unit", "judged_"), [(-0.1, 1, False), (8, 1, False), (7.9, 1, True), (8, 1.1, True)]
)
def test_c6_needs_positive_ratios_that_begin_below_the_largest_c(ratio, unit, judged_):
    """In units of the point."""
    means = made().means.copy()
    means[..., MEANS.index("phantom_hard")] = ratio
    points = made(means=means, unit=np.full(1, unit))
    assert RATIOS[-1] == 8 and bool(list(open_choices.comparable(points))) == judged_
    assert judged_ or not any(held for part, held in judged(points).items() if part.startswith("C6"))


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
    assert all(open_choices.strata(made(weights=None))[name][0] for name in ("all", "premise", "to gain"))
    for changes in ({"training": np.full((1, 5, SEEDS), 0.01)}, {"easy": np.full((1, 5, SEEDS), 0.45)}):
        found = open_choices.strata(made(weights=None, **changes))
        assert found["all"][0] and not found["premise"][0] and not found["to gain"][0]


def test_something_to_gain_includes_its_border(monkeypatch):
    monkeypatch.setattr(open_choices, "TO_GAIN", 0.0625)  # which a sum of floats does not miss
    for error, enough in ((0.0625, True), (0.0624, False)):
        found = open_choices.strata(made(weights=None, hard=np.full((1, 5, SEEDS), error)))
        assert found["premise"][0] and found["to gain"][0] == enough


def test_lsam_gains_where_the_interval_is_above_0_and_the_mean_at_least_what_sgd_leaves():
    def gains(fall):
        hard = np.full((1, 4, SEEDS), 0.5)
        hard[:, -1] -= fall
        return open_choices.strata(replace(made(), rhos=open_choices.PARTS_OF_RADIUS, hard=hard))["gains"][0]

    assert gains(0.0625) and not gains(0.0499)
    assert not gains(np.where(np.arange(SEEDS) % 2, 0.6, -0.3)), "its interval reaches below 0"
    assert "gains" not in open_choices.strata(made(weights=None))


def test_frontier_counts_what_it_should_not_find():
    table = pd.DataFrame(
        [(0.019, 1.1, 1.01), (0.019, 1.1, 0.99), (0.02, 1.1, 1.01), (0.1, 1.04, 1.0), (0.099, 1.03, 1.0)],
        columns=["error", "rate", "low"],
    )
    assert open_choices.exceptions(table) == {"learned": 2, "raised": 1, "high": 4, "early": 3}
    weights = np.zeros((1, len(RADII), SEEDS, len(WEIGHTS)))
    weights[:, -1, :, WEIGHTS.index("wrong_hard")] = 0.25
    found = open_choices.frontier(made(weights=weights)).iloc[0]
    assert found["error"] == 0.25 and found["low"] < found["rate"] == pytest.approx(
        made().mean("rate_hard")[0, -1].mean()
    )


def test_a_row_says_what_was_changed_and_what_holds():
    points = made()
    twice = {name: np.concatenate([getattr(points, name)] * 2) for name in vars(points) if name not in KEPT}
    twice["training"][1] = 0.01
    two = replace(points, values=pd.DataFrame([OURS, OURS | {"head_easy": 2.0, "width": 16}]), **twice)
    ours, other = open_choices.rows_alone(two, RHO).values()
    assert list(open_choices.rows_alone(two, RHO)) == ["our choice", "width 16, head easy 2"]
    assert ours | {"gain": ""} == {
        "gain": "", "premise": "yes", "C1": "3 of 3, holds", "C2": "3 of 3, holds", "C3": "2 of 2, holds",
        "C5": "2 of 2, holds", "C6": "4 of 4, holds",
    }  # fmt: skip
    assert other["premise"] == "no" and other["C1"] == "2 of 3"
    mean, low, high = mean_interval(open_choices.gain(points, RHO)[0])
    assert ours["gain"] == f"{mean:.3f} [{low:.3f}, {high:.3f}]"


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
    values = pd.DataFrame(open_choices.sample(128, wide=True))
    found = explain(values, (values["complexity"] > 350).to_numpy())
    first, second = list(found.importance.values())[:2]
    assert next(iter(found.importance)) == "complexity" and found.accuracy.mean > 0.9
    assert first.low > 0.1 > second.high and found.importance.keys() == set(values)
    chance = explain(values, np.random.default_rng(0).uniform(size=128) > 0.5)
    assert chance.accuracy.mean < 0.7
    assert explain(values, np.arange(128) < 9) is None and explain(values, np.arange(128) < 10) is not None


# Figures


def test_figures_are_drawn_where_nothing_and_where_everything_holds():
    values = pd.DataFrame(open_choices.sample(40, wide=True))
    everything = np.ones(40, dtype=bool)
    some = estimate(np.arange(3.0))
    explained = {claim: Explanation(some, dict.fromkeys(values, some)) for claim in ("C1", "C2")}
    held, judged = {"C1": everything, "C2": ~everything}, {"C1": everything, "C2": ~everything}
    found = pd.DataFrame({"error": np.linspace(0, 0.5, 40), "rate": 1.0, "low": 0.9})
    drawn = [
        open_choices.figure_importance(explained),
        open_choices.figure_where(values, held, judged, explained),
        open_choices.figure_frontier(found, everything),
    ]
    for fig in drawn:
        fig.canvas.draw()
        plt.close(fig)
