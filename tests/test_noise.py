"""Chapter 09: its trials, the choice of a radius on other seeds' validation data, and its figures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from book import figures_noise as figures
from book.noise import LEVELS, RADII, by_condition, conditions, plan
from lib.data.toy import NOISY, ToyConstants
from lib.selection import at_choice, choose, whole_seeds
from lib.toy.ensemble import ToySetting, lsam
from lib.trials.toy import ToyTrial

SMALL = {"dropout": (0.2, 0.4), "gaussian_noise": (1.0,)}


def record_of(trial: ToyTrial, wrong: Callable[[ToyTrial, int], int | None]) -> dict:
    """A record in which `wrong(trial, seed)` test points of the hard feature are wrong; None: diverged."""
    counts = [[wrong(trial, seed) for seed in range(trial.seeds)]]
    return {"configuration": trial.configuration, "metrics": {"wrong": {"test": {"hard": counts}}}}


def code(setting: ToySetting) -> int:
    """A number that tells every condition and radius of SMALL apart."""
    data = setting.data
    return round(10 * data.dropout + 500 * data.gaussian_noise + 40 * setting.rho + 1000 * (data.noisy == "hard"))


def test_conditions_are_the_clean_data_and_every_kind_target_and_level_once():
    found = conditions()
    assert found[0] == ToyConstants()
    assert len(set(found)) == len(found) == 1 + len(NOISY) * sum(map(len, LEVELS.values()))
    for data in found[1:]:
        levels = {kind: getattr(data, kind) for kind in LEVELS if getattr(data, kind)}
        assert len(levels) == 1 and set(levels.values()) <= set(LEVELS[next(iter(levels))])


def test_levels_reach_the_ends_of_the_papers_ranges():
    assert {kind: values[-1] for kind, values in LEVELS.items()} == {
        "label_noise": 0.1,
        "gaussian_noise": 1.0,
        "dropout": 0.4,
    }


def test_every_trial_has_the_same_seeds_and_differs_in_noise_and_radius_only():
    trials = plan()
    assert {(trial.seeds, trial.first_seed) for trial in trials} == {(20, 100)}
    settings = [trial.settings[0] for trial in trials]
    assert len({trial.identity for trial in trials}) == len(trials) == len(conditions()) * len(RADII)
    assert {(s.rho, s.data) for s in settings} == {(rho, data) for data in conditions() for rho in RADII}
    assert len({(s.epochs, s.batch_size, s.learning_rate, s.width) for s in settings}) == 1


def test_errors_come_to_their_kind_target_level_and_radius():
    radii = (0.0, 1.0)
    trials = plan(radii, SMALL, seeds=3)
    records = [record_of(trial, lambda trial, seed: seed + code(trial.settings[0])) for trial in trials]
    found = by_condition(records, radii, SMALL, "hard", "test")
    assert found["dropout"].shape == (2, 3, 2, 3) and found["gaussian_noise"].shape == (2, 2, 2, 3)
    for kind, values in SMALL.items():
        for t, target in enumerate(NOISY):
            for level, value in enumerate((0.0, *values)):
                data = ToyConstants(noisy=target, **{kind: value}) if value else ToyConstants()
                for r, radius in enumerate(radii):
                    expected = (np.arange(3) + code(lsam(radius, data=data))) / data.test_points
                    np.testing.assert_allclose(found[kind][t, level, r], expected)


def test_a_seed_with_a_diverged_net_is_left_out_everywhere():
    radii = (0.0, 1.0)
    records = [record_of(trial, lambda trial, seed: seed) for trial in plan(radii, SMALL, seeds=3)]
    records[4] = record_of(plan(radii, SMALL, seeds=3)[4], lambda trial, seed: None if seed == 1 else seed)
    for error in by_condition(records, radii, SMALL, "hard", "test").values():
        np.testing.assert_allclose(error, np.broadcast_to(np.array([0, 2]) / 2000, error.shape))


def test_no_seed_without_a_diverged_net_is_an_error():
    with pytest.raises(ValueError, match="errors must have a seed"):
        whole_seeds(np.array([[np.nan, 0.1], [0.1, np.nan]]))


def test_a_choice_does_not_depend_on_its_own_seed():
    validation = np.random.default_rng(0).uniform(size=(4, 3, 6))
    changed = validation.copy()
    changed[..., 2] = np.random.default_rng(1).uniform(size=(4, 3))
    assert np.array_equal(choose(validation)[..., 2], choose(changed)[..., 2])


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


def lines_of(axes) -> dict[str, np.ndarray]:
    return {line.get_label(): line.get_ydata() for line in axes.lines}


def test_figure_shows_the_mean_of_every_line_in_the_panel_of_its_kind_and_row():
    rng = np.random.default_rng(0)
    ticks = {kind: (0.0, *values) for kind, values in LEVELS.items()}
    rows = {
        row: {name: {kind: rng.uniform(size=(len(ticks[kind]), 5)) for kind in ticks} for name in ("SGD", "LSAM")}
        for row in ("both", "hard")
    }
    fig = figures.against_level(ticks, rows)
    panels = np.reshape(fig.axes, (2, 3))
    for r, (row, lines) in enumerate(rows.items()):
        assert panels[r, 0].get_ylabel() == row
        for k, kind in enumerate(ticks):
            for name, of_kind in lines.items():
                np.testing.assert_allclose(lines_of(panels[r, k])[name], of_kind[kind].mean(axis=-1))
    figures.plt.close(fig)


def test_figure_of_radii_has_a_line_for_every_level():
    ticks = {kind: (0.0, *values) for kind, values in SMALL.items()}
    errors = {kind: np.random.default_rng(1).uniform(size=(len(ticks[kind]), 2, 5)) for kind in ticks}
    fig = figures.against_radius((0.0, 1.0), ticks, {"both": errors})
    for axes, (kind, values) in zip(fig.axes, ticks.items()):
        assert list(lines_of(axes)) == [f"{value:g}" for value in values]
        np.testing.assert_allclose(list(lines_of(axes).values()), errors[kind].mean(axis=-1))
    figures.plt.close(fig)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: conditions({"blur": (1.0,)}), "levels"),
        (lambda: plan(levels={"dropout": (0.0, 0.1)}), "levels of dropout"),
        (lambda: choose(np.zeros((3, 1))), "validation"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, name):
    with pytest.raises(ValueError) as error:
        call()
    assert name in str(error.value) and "\n" not in str(error.value)
