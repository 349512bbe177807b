"""The study of the lost constants: its design, the chapters' rules for many points at once, the shares."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from book import mechanism, open_choices, rebalancing, toy
from book.claims import Outcome, Verdict, verdict_of
from book.open_choices import CHOICES, EFFECTS, OURS, RADII, RATIOS, Explanation, Points, explain, share
from book.plan import within
from book.toy_trial import KEPT, ToyTrial
from lib.data.toy import ToyConstants
from lib.stats import FEW, estimate, mean_interval, wilson_interval
from lib.toy.ensemble import ToySetting, lsam
from lib.trials.trial import Place

SEEDS = FEW + 1
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


def test_one_at_a_time_changes_one_constant_or_the_head():
    points = open_choices.alone()
    assert points[0] == OURS
    names = [{name for name in OURS if point[name] != OURS[name]} for point in points[1:]]
    assert all(len(changed) == 1 or changed == {"head_easy", "head_hard"} for changed in names)
    assert set().union(*names) == OURS.keys()


def test_plans_have_a_trial_for_each_point():
    for trials, count in (
        (open_choices.plan(None, seeds=11).trials, open_choices.POINTS + len(open_choices.alone())),
        (open_choices.map_plan(None, seeds=11).trials, open_choices.MAP_POINTS),
    ):
        assert len({trial.identity for trial in trials}) == count and {trial.seeds for trial in trials} == {11}


# Reading


def small(trial: ToyTrial) -> ToyTrial:
    """The trial with nets that are trained at once."""
    short = {"width": 8, "epochs": 2}
    settings = [
        replace(one, **short, data=replace(one.data, training_points=30, test_points=50)) for one in trial.settings
    ]
    return replace(trial, seeds=2, settings=settings)


PLACE = Place(device="cpu", checkpoints=None)


def test_a_point_of_the_map_is_read_in_units_of_its_own():
    values = open_choices.sample(2, wide=True)
    records = [small(open_choices.map_trial(one)).run(PLACE) for one in values]
    points = open_choices.read(values, records)
    assert (points.rhos, points.ratios) == (open_choices.PARTS_OF_RADIUS, open_choices.TIMES_OWN)
    assert points.weights.shape == (2, 4, 2, 4) and points.interventions.shape == (2, len(EFFECTS), 4, 2)
    assert points.unit.tolist() == [one["head_hard"] / one["head_easy"] for one in values]
    assert open_choices.frontier(points)["error"].tolist() == points.weights[:, -1, :, 3].mean(axis=1).tolist()
    means = np.array(records[1]["metrics"]["means"][2], dtype=float)  # as in `KEPT`: of LSAM at the third radius
    for found, expected in ((points.real, means[:, 1] / means[:, 0]), (points.phantom, means[:, 3] / means[:, 2])):
        np.testing.assert_array_equal(found[1, 2], expected)
    np.testing.assert_array_equal(points.rates[:, 1, 2], means[:, 4:].T)


def test_another_radius_is_read_in_its_place():
    values = open_choices.sample(2)
    trials = [open_choices.trial(one) for one in values]
    assert open_choices.at_radius(trials, RADII[2]) == []
    added = open_choices.at_radius(trials, 0.5)
    assert [trial.settings for trial in added] == [(lsam(0.5, **open_choices.common(one)),) for one in values]
    records, extra = ([small(trial).run(PLACE) for trial in some] for some in (trials, added))
    without, points = open_choices.read(values, records), open_choices.read(values, records, extra)
    assert points.rhos == (0.0, 0.4, 0.5, 0.7, 1.0, 1.4)
    for name in ("hard", "training", "phantom"):
        assert np.array_equal(np.delete(getattr(points, name), 2, axis=1), getattr(without, name))
    assert points.interventions.shape == (2, len(EFFECTS), len(RATIOS), 2)
    assert not np.isnan(points.hard).any() and not np.isnan(points.rates).any()


# The rules


def made(**changes: np.ndarray) -> Points:
    """One point at which every part of every claim holds, with a little noise over seeds; `changes` replace
    what was measured."""
    noise = 0.001 * np.random.default_rng(0).uniform(size=(1, len(RADII), SEEDS))
    rho = np.array(RADII)[None, :, None]
    fixed = np.array([[0.38, 0.2, 0.1], [0.38, 0.2, 0.1], [0.4, 0.05, 0.05]])[None, :, :, None] + noise[:, :1]
    measured = {
        "hard": np.array([0.4, 0.35, 0.31, 0.28, 0.25])[None, :, None] + noise,  # as both interventions
        "easy": 0.01 + noise,
        "training": 0 * noise,
        "phantom": np.array([0.5, 0.6, 0.7, 0.8, 0.9])[None, :, None] + noise,
        "real": 0.5 + 0 * noise,
        "rates": np.stack([1 - rho / 2 + noise, 1 + rho + noise]),
        "interventions": fixed,
        "weights": np.array([0.9, 0.5, 0, 0]) + 0 * noise[..., None],  # more even at the phantom
    }
    return Points(pd.DataFrame([OURS]), **{"rhos": RADII, "ratios": RATIOS, "unit": np.ones(1)} | measured | changes)


def twice(**changes: np.ndarray) -> Points:
    """Two points as the one of `made`."""
    point, fixed = made(), ("values", "rhos", "ratios")
    both = {
        name: np.concatenate([one] * 2, axis=int(name == "rates"))
        for name, one in vars(point).items()
        if name not in fixed
    }
    return replace(point, **both | changes)


def judged(points: Points) -> dict[str, bool]:
    """Every part of every claim at the only point."""
    claims = open_choices.claims(points, RHO)
    return {f"{claim} {part}": bool(held[0]) for claim, parts in claims.items() for part, held in parts.items()}


def test_every_part_holds_where_the_paper_is_right_in_everything():
    assert all(judged(made()).values())


def test_fewer_seeds_than_decide_anything_fail_what_needs_an_interval():
    of_seeds = {name: value for name, value in vars(made()).items() if name not in ("values", "rhos", "ratios", "unit")}
    few = {name: value[..., : FEW - 1] for name, value in of_seeds.items()}
    points = made(**few | {"weights": of_seeds["weights"][:, :, : FEW - 1]})
    assert [part for part, held in judged(points).items() if held] == ["C1 both fit the labels"]


def test_points_are_judged_one_by_one_as_their_chapters_judge():
    points = twice()
    for values in (points.hard, points.phantom, *points.rates):
        values[1] = values[1, ::-1]
    points.weights[1] = points.weights[1][..., [1, 0, 2, 3]]
    found = open_choices.claims(points, RHO)
    for n in range(2):
        one, at = slice(n, n + 1), (RADII, RHO)
        expected = {
            "C1": toy.checks(*at, points.hard[one], points.easy[one], points.training[one])[:3],
            "C2": rebalancing.checks_c2(*at, points.phantom[one], points.real[one]),
            "C3": mechanism.checks_c3(np.moveaxis(points.weights[n, [0, RHO], :, :2], -1, 0)),
            "C5": rebalancing.checks_c5(*at, *points.rates[:, one]),
        }
        for claim, checks in expected.items():
            holds = [verdict_of(checks) is Verdict.REPRODUCED, *(check.outcome is Outcome.HOLDS for check in checks)]
            assert [part[n] for part in found[claim].values()] == holds
            assert n or all(holds)
    assert not any(found[claim][claim][1] for claim in ("C1", "C2", "C3"))
    assert "C3" not in open_choices.claims(made(weights=None), RHO)


def test_a_claim_holds_by_its_main_part_where_no_other_is_contradicted():
    hard = made().hard.copy()
    hard[:, :, ::2] += 0.05 * np.arange(5)[:, None]  # rises over half of the seeds, so that the trend is undecided
    hard[:, RHO] = 0.3
    found = judged(made(hard=hard))
    assert found["C1 C1"] and found["C1 LSAM lowers the hard error"] and not found["C1 it falls as ρ grows"]
    assert not judged(made(training=np.full((1, 5, SEEDS), 0.01)))["C1 C1"]


@pytest.mark.parametrize(
    ("ratio", "unit", "judged_"), [(-0.1, 1, False), (8, 1, False), (7.9, 1, True), (8, 1.1, True)]
)
def test_c6_needs_positive_ratios_that_begin_below_the_largest_c(ratio, unit, judged_):
    """In units of the point."""
    points = made(phantom=np.full((1, len(RADII), SEEDS), ratio), unit=np.full(1, unit))
    assert RATIOS[-1] == 8 and bool(list(open_choices.comparable(points))) == judged_
    assert judged_ or not any(held for part, held in judged(points).items() if part.startswith("C6"))


def test_diverged_net_fails_what_needs_it_and_costs_c6_a_seed():
    hard = made().hard.copy()
    hard[:, RHO, 0] = np.nan
    found = judged(made(hard=hard))
    assert not found["C1 LSAM lowers the hard error"] and found["C6 learning rate alone"]
    hard[:, RHO, :2] = np.nan
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
    weights = np.zeros((1, len(RADII), SEEDS, 4))
    weights[:, -1, :, KEPT["weights"].index("wrong_hard")] = 0.25
    found = open_choices.frontier(made(weights=weights)).iloc[0]
    assert found["error"] == 0.25 and found["low"] < found["rate"] == pytest.approx(made().rates[1, 0, -1].mean())


def test_a_row_says_what_was_changed_and_what_holds():
    two = twice(values=pd.DataFrame([OURS, OURS | {"head_easy": 2.0, "width": 16}]))
    two.training[1] = 0.01
    rows = open_choices.rows_alone(two, RHO)
    assert list(rows) == ["our choice", "width 16, head easy 2"]
    ours, other = rows.values()
    counts = {"C1": "3 of 3", "C2": "3 of 3", "C3": "2 of 2", "C5": "2 of 2", "C6": "4 of 4"}
    assert ours | {"gain": ""} == {"gain": "", "premise": "yes"} | {c: f"{n}, holds" for c, n in counts.items()}
    assert other["premise"] == "no" and other["C1"] == "2 of 3"
    mean, low, high = mean_interval(open_choices.gain(two, RHO)[0])
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


def test_figures_are_drawn_where_nothing_and_where_everything_holds():
    values, everything = pd.DataFrame(open_choices.sample(40, wide=True)), np.ones(40, dtype=bool)
    some = estimate(np.arange(3.0))
    explained = {claim: Explanation(some, dict.fromkeys(values, some)) for claim in ("C1", "C2")}
    held = {"C1": everything, "C2": ~everything}
    found = pd.DataFrame({"error": np.linspace(0, 0.5, 40), "rate": 1.0, "low": 0.9})
    for fig in (
        open_choices.figure_importance(explained),
        open_choices.figure_where(values, held, held, explained),
        open_choices.figure_frontier(found, everything),
    ):
        fig.canvas.draw()
        plt.close(fig)
