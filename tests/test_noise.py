"""Chapter 09: its trials, the radii that are compared, the rule of C10 on either side of its border, its figures."""

from itertools import product

import numpy as np
import pytest
from matplotlib import pyplot as plt

from book import noise
from book.claims import MARGIN, Check, Outcome
from book.noise import KINDS, by_panel, plan
from lib.data.toy import NOISY, ToyConstants

SMALL = {"dropout": (0.2, 0.4), "gaussian_noise": (1.0,)}
SEEDS = 8
PANELS = list(product(KINDS, NOISY))


# Reading


def test_errors_come_to_their_panel_level_and_radius_without_the_seeds_that_diverged():
    trials = plan((0.0, 1.0), SMALL, seeds=3)
    wrong = {(t.settings[0].data, t.settings[0].rho): np.arange(3) + 10 * i for i, t in enumerate(trials)}
    counts = [list(map(int, one)) for one in wrong.values()]
    counts[4][1] = None
    metrics = [{"wrong": {"test": {"hard": [one]}}} for one in counts]
    records = [{"configuration": trial.configuration, "metrics": one} for trial, one in zip(trials, metrics)]
    for (kind, target), error in by_panel(records, (0.0, 1.0), SMALL, "hard", "test").items():
        levels = [ToyConstants(), *(ToyConstants(noisy=target, **{kind: value}) for value in SMALL[kind])]
        expected = np.array([[wrong[data, rho][[0, 2]] for rho in (0, 1)] for data in levels]) / 2000
        np.testing.assert_allclose(error, expected)


def test_lsam_is_compared_at_one_radius_and_at_the_best_of_the_other_seeds_validation_data():
    radii, seeds = [0.0, 0.5, 1.0], np.arange(3) / 100
    error = np.array([0.4, 0.2, 0.1])[:, None] + seeds  # (radius, seed): tells which was taken
    validation = np.array([[0.0, 0.0, 0.0], [0.0, 0.3, 0.3], [0.2, 0.2, 0.2]])  # SGD is no radius to choose
    panel = "dropout", "both"
    lines = noise.lines({panel: np.stack([error] * 2)}, {panel: np.stack([validation] * 2)}, radii, 1.0)
    assert list(lines) == ["SGD", "LSAM, ρ = 1", "LSAM, chosen ρ"]
    for values, expected in zip(lines.values(), (0.4, 0.1, np.array([0.1, 0.2, 0.2]))):
        np.testing.assert_allclose(values[panel], np.stack([expected + seeds] * 2))


# The rule of C10

HOLDS, UNDECIDED, CONTRADICTED, _ = Outcome
SCATTER = 0.3 + 0.01 * np.arange(SEEDS)
TOUCHING = np.array([0.0] * (SEEDS - 1) + [0.1])  # the mean is above 0, the interval is not
ALL = dict.fromkeys(PANELS, np.array([True, True]))


def judged(*changes: tuple[str, int, str, np.ndarray | float], where: dict = ALL) -> dict[str, Check]:
    """C10's checks where LSAM gains 0.1 at both levels, but for changes: kind, level, line and gain with noise on the
    hard feature only."""
    names = ("SGD", "LSAM, ρ = 1.4", "LSAM, chosen ρ")
    found = {name: {panel: np.tile(SCATTER - 0.1 * (name != "SGD"), (3, 1)) for panel in PANELS} for name in names}
    for kind, level, line, gain in changes:
        found[f"LSAM, {line}"][kind, "hard"][level] = SCATTER - gain
    return {check.what: check for check in noise.checks(found, where)}


def test_c10_is_every_type_of_noise_and_has_a_check_for_every_panel_and_either_radius():
    found = judged()
    assert len(found) == 1 + len(KINDS) * len(NOISY) * 2
    assert all(check.outcome is HOLDS and check.effect.mean == pytest.approx(0.1) for check in found.values())
    main, first, *_ = found
    assert [what for what, check in found.items() if check.main] == [main] and main.endswith("(6 of 6)")
    assert first == "feature-label noise, hard feature only, ρ = 1.4: SGD minus LSAM above 0 (2 of 2)"


@pytest.mark.parametrize(("kind", "line"), [("label_noise", "ρ = 1.4"), ("dropout", "chosen ρ")])
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
    assert found.pop(panel).outcome is outcome
    assert all(check.outcome is HOLDS for check in found.values() if not check.main)


@pytest.mark.parametrize(
    ("gain", "outcome"), [(-0.05, HOLDS), (-0.1 + TOUCHING, UNDECIDED), (-0.1, CONTRADICTED), (-0.2, CONTRADICTED)]
)
def test_c10_stands_with_the_mean_over_levels_of_every_type_at_the_chosen_radius(gain, outcome):
    main = next(iter(judged(("dropout", 2, "chosen ρ", gain)).values()))
    assert main.outcome is outcome and main.effect.mean == pytest.approx((0.1 + np.mean(gain)) / 2, abs=1e-12)
    assert next(iter(judged(("dropout", 2, "ρ = 1.4", gain)).values())).outcome is HOLDS


def test_c10_leaves_out_the_clean_data_and_where_the_spiral_is_not_hard():
    for level, where in ((0, [True, True]), (2, [True, False]), (1, [False, False])):
        found = judged(("dropout", level, "chosen ρ", -1.0), where=ALL | {("dropout", "hard"): np.array(where)})
        assert len(found) == 11 + 2 * any(where) and all(check.outcome is HOLDS for check in found.values())
    assert not noise.checks({"SGD": {}, "LSAM, ρ = 1.4": {}, "LSAM, chosen ρ": {}}, {})


def test_the_spiral_is_hard_where_sgds_error_is_higher_for_it():
    hard, easy = np.full((4, 2, 8), 0.2), np.full((4, 2, 8), 0.1)
    easy[1, 0], easy[2, 1], easy[0] = 0.2, 0.9, 0.9  # as high, under LSAM only, on clean data
    assert noise.judged({"panel": hard}, {"panel": easy})["panel"].tolist() == [False, True, True]


# Figures


def test_figure_shows_the_mean_of_every_line_in_its_panel():
    rng, levels = np.random.default_rng(0), {kind: (0.1, 0.2) for kind in KINDS}
    lines = {name: {panel: rng.uniform(size=(3, 5)) for panel in PANELS} for name in ("SGD", "LSAM")}
    panels = noise.against_level(levels, {target: (lines, target) for target in NOISY}).axes
    for (target, kind), panel in zip(product(NOISY, KINDS), panels):
        means = [of[kind, target].mean(axis=-1) for of in lines.values()]
        np.testing.assert_allclose([line.get_ydata() for line in panel.lines], means)
    plt.close("all")
