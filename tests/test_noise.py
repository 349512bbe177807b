"""Chapter 09: its trials, the radii that are compared, the rule of C10 on either side of its border, its figures."""

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib import pyplot as plt

from book import noise
from book.claims import MARGIN, Check, Outcome
from book.noise import KINDS, LEVELS, RADII, by_condition, conditions, plan
from lib.data.toy import NOISY, ToyConstants
from lib.toy.ensemble import ToySetting, lsam
from lib.trials.toy import ToyTrial

SMALL = {"dropout": (0.2, 0.4), "gaussian_noise": (1.0,)}
SEEDS = 8


# The trials


def test_conditions_are_the_clean_data_and_every_kind_target_and_level_once():
    found = conditions()
    assert found[0] == ToyConstants()
    assert len(set(found)) == len(found) == 1 + len(NOISY) * sum(map(len, LEVELS.values()))
    for data in found[1:]:
        levels = {kind: getattr(data, kind) for kind in LEVELS if getattr(data, kind)}
        assert len(levels) == 1 and set(levels.values()) <= set(LEVELS[next(iter(levels))])


def test_levels_reach_the_ends_of_the_papers_ranges():
    assert [values[-1] for values in LEVELS.values()] == [0.1, 1.0, 0.4]
    assert list(LEVELS) == list(KINDS) == ["label_noise", "gaussian_noise", "dropout"]


def test_every_trial_has_the_same_seeds_and_differs_in_noise_and_radius_only():
    trials = plan()
    assert {(trial.seeds, trial.first_seed) for trial in trials} == {(20, 100)}
    settings = [trial.settings[0] for trial in trials]
    assert len({trial.identity for trial in trials}) == len(trials) == len(conditions()) * len(RADII)
    assert {(s.rho, s.data) for s in settings} == {(rho, data) for data in conditions() for rho in RADII}
    assert len({(s.epochs, s.batch_size, s.learning_rate, s.width) for s in settings}) == 1


@pytest.mark.parametrize(
    ("levels", "named"), [({"blur": (1.0,)}, "levels must be one of"), ({"dropout": (0.0, 0.1)}, "levels of dropout")]
)
def test_what_is_no_noise_is_refused_in_one_line(levels, named):
    with pytest.raises(ValueError, match=named) as error:
        plan(levels=levels)
    assert "\n" not in str(error.value)


# Reading


def record_of(trial: ToyTrial, wrong: Callable[[ToyTrial, int], int | None]) -> dict:
    """A record in which `wrong(trial, seed)` test points of the hard feature are wrong; None: diverged."""
    counts = [[wrong(trial, seed) for seed in range(trial.seeds)]]
    return {"configuration": trial.configuration, "metrics": {"wrong": {"test": {"hard": counts}}}}


def code(setting: ToySetting) -> int:
    """A number that tells every condition and radius of SMALL apart."""
    data = setting.data
    return round(10 * data.dropout + 500 * data.gaussian_noise + 40 * setting.rho + 1000 * (data.noisy == "hard"))


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
    trials = plan(radii, SMALL, seeds=3)
    records = [record_of(trial, lambda trial, seed: seed) for trial in trials]
    records[4] = record_of(trials[4], lambda trial, seed: None if seed == 1 else seed)
    for error in by_condition(records, radii, SMALL, "hard", "test").values():
        np.testing.assert_allclose(error, np.broadcast_to(np.array([0, 2]) / 2000, error.shape))


def test_lsam_is_compared_at_one_radius_and_at_the_best_of_the_other_seeds_validation_data():
    radii, seeds = [0.0, 0.5, 1.0], np.arange(3) / 100
    error = np.array([0.4, 0.2, 0.1])[:, None] + seeds  # (radius, seed): tells which was taken
    validation = np.array([[0.0, 0.0, 0.0], [0.0, 0.3, 0.3], [0.2, 0.2, 0.2]])  # SGD is no radius to choose
    shape = (2, 2, 3, 3)
    lines = noise.compared(
        {"dropout": np.broadcast_to(error, shape)}, {"dropout": np.broadcast_to(validation, shape)}, radii, 1.0
    )
    assert list(lines) == ["SGD", "LSAM, ρ = 1", "LSAM, chosen ρ"]
    for values, expected in zip(lines.values(), (0.4, 0.1, np.array([0.1, 0.2, 0.2]))):
        np.testing.assert_allclose(values["dropout"], np.broadcast_to(expected + seeds, (2, 2, 3)))


# The rule of C10

HOLDS, UNDECIDED, CONTRADICTED, _ = Outcome
SCATTER = 0.3 + 0.01 * np.arange(SEEDS)
TOUCHING = np.array([0.0] * (SEEDS - 1) + [0.1])  # the mean is above 0, the interval is not
ALL = {kind: np.ones((2, 2), dtype=bool) for kind in KINDS}


def judged(*changes: tuple[str, int, str, np.ndarray | float], where: dict = ALL) -> dict[str, Check]:
    """C10's checks where LSAM gains 0.1 at both levels, but for changes: kind, level, line and gain with noise on the
    hard feature only."""
    names = ("SGD", "LSAM, ρ = 1.4", "LSAM, chosen ρ")
    found = {name: {kind: np.tile(SCATTER - 0.1 * (name != "SGD"), (2, 3, 1)) for kind in KINDS} for name in names}
    for kind, level, line, gain in changes:
        found[f"LSAM, {line}"][kind][NOISY.index("hard"), level] = SCATTER - gain
    return {check.what: check for check in noise.checks(found, where)}


def test_c10_is_every_type_of_noise_and_has_a_check_for_every_panel_and_either_radius():
    found = judged()
    assert len(found) == 1 + len(KINDS) * len(NOISY) * 2
    assert all(check.outcome is HOLDS and check.effect.mean == pytest.approx(0.1) for check in found.values())
    main, first, *_, last = found
    assert [what for what, check in found.items() if check.main] == [main]
    assert main == "every type of noise, mean over its levels, chosen ρ: SGD minus LSAM above 0 (6 of 6)"
    assert first == "feature-label noise, hard feature only, ρ = 1.4: SGD minus LSAM above 0 (2 of 2)"
    assert last == "dropout, both features, chosen ρ: SGD minus LSAM above 0 (2 of 2)"


@pytest.mark.parametrize("line", ["ρ = 1.4", "chosen ρ"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("gain", "outcome"),
    [
        (TOUCHING, UNDECIDED),
        (TOUCHING + 0.03, HOLDS),
        (-0.1 - TOUCHING, CONTRADICTED),
        (MARGIN - 1e-9, CONTRADICTED),  # above 0 and too small to matter
        (MARGIN + 1e-6, HOLDS),
    ],
)
def test_c10_of_a_panel_is_that_of_its_weakest_level(kind, line, gain, outcome):
    found = judged((kind, 2, line, gain))
    panel = f"{KINDS[kind][0]}, hard feature only, {line}: SGD minus LSAM above 0 ({1 + (outcome is HOLDS)} of 2)"
    assert found[panel].outcome is outcome and found[panel].effect.mean == pytest.approx(np.mean(gain))
    others = {check.outcome for what, check in found.items() if what != panel and not check.main}
    assert others == {HOLDS}


@pytest.mark.parametrize(
    ("gain", "outcome"), [(-0.05, HOLDS), (-0.1 + TOUCHING, UNDECIDED), (-0.1, CONTRADICTED), (-0.2, CONTRADICTED)]
)
def test_c10_stands_with_the_mean_over_levels_of_every_type_at_the_chosen_radius(gain, outcome):
    main = next(iter(judged(("dropout", 2, "chosen ρ", gain)).values()))
    assert main.outcome is outcome and main.effect.mean == pytest.approx((0.1 + np.mean(gain)) / 2, abs=1e-12)
    assert next(iter(judged(("dropout", 2, "ρ = 1.4", gain)).values())).outcome is HOLDS


def test_c10_leaves_out_the_clean_data_and_where_the_spiral_is_not_hard():
    assert all(check.outcome is HOLDS for check in judged(("dropout", 0, "chosen ρ", -1.0)).values())
    where = {kind: levels.copy() for kind, levels in ALL.items()}
    hard = NOISY.index("hard")
    where["dropout"][hard] = [True, False]
    found = judged(("dropout", 2, "chosen ρ", -1.0), where=where)
    assert all(check.outcome is HOLDS for check in found.values())
    assert "dropout, hard feature only, chosen ρ: SGD minus LSAM above 0" in found
    where["dropout"][hard] = False
    found = judged(("dropout", 1, "chosen ρ", -1.0), where=where)
    assert len(found) == 11 and all(check.outcome is HOLDS for check in found.values())
    assert not noise.checks({"SGD": {}, "LSAM, ρ = 1.4": {}, "LSAM, chosen ρ": {}}, {})


def test_the_spiral_is_hard_where_sgds_error_is_higher_for_it():
    hard, easy = np.full((2, 3, 2, 8), 0.2), np.full((2, 3, 2, 8), 0.1)
    easy[1, 2, 0], easy[0, 1, 1], easy[0, 0] = 0.2, 0.9, 0.9  # as high, under LSAM only, on clean data
    assert noise.judged({"dropout": hard}, {"dropout": easy})["dropout"].tolist() == [[True, True], [True, False]]


# Figures


def lines_of(axes) -> dict[str, np.ndarray]:
    return {line.get_label(): line.get_ydata() for line in axes.lines}


def test_figure_shows_the_mean_of_every_line_in_the_panel_of_its_kind_and_row():
    rng = np.random.default_rng(0)
    ticks = {kind: (0.0, *values) for kind, values in LEVELS.items()}
    rows = {
        row: {name: {kind: rng.uniform(size=(len(ticks[kind]), 5)) for kind in ticks} for name in ("SGD", "LSAM")}
        for row in ("both", "hard")
    }
    fig = noise.against_level(ticks, rows)
    panels = np.reshape(fig.axes, (2, 3))
    for r, (row, of_row) in enumerate(rows.items()):
        assert panels[r, 0].get_ylabel() == row
        for k, kind in enumerate(ticks):
            for name, of_kind in of_row.items():
                np.testing.assert_allclose(lines_of(panels[r, k])[name], of_kind[kind].mean(axis=-1))
    plt.close(fig)


def test_figure_of_radii_has_a_line_for_every_level():
    ticks = {kind: (0.0, *values) for kind, values in SMALL.items()}
    errors = {kind: np.random.default_rng(1).uniform(size=(len(ticks[kind]), 2, 5)) for kind in ticks}
    fig = noise.against_radius((0.0, 1.0), ticks, {"both": errors})
    for axes, (kind, values) in zip(fig.axes, ticks.items()):
        assert list(lines_of(axes)) == [f"{value:g}" for value in values]
        np.testing.assert_allclose(list(lines_of(axes).values()), errors[kind].mean(axis=-1))
    plt.close(fig)
