"""Table 1's rows on natural images: which records make a row, its checks, words and figures."""

from __future__ import annotations

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from book import figures_real_data_groups as figures
from book import figures_real_data_images as images
from book import full_cost, natural_plans
from book import real_data_rows as group_rows
from book import real_data_table as table
from lib.measure import BINS, binned, mapped, summary
from lib.trials.store import Store
from lib.trials.weights import WeightTrial

SEEDS = 3
PROTOCOL = natural_plans.groups_reduced("celeba")
GAIN = {"sgd": 0.0, "sam": 0.05}  # by which a probing error is lower


def error_record(trial, validation: float = 0.5) -> dict:
    gain = GAIN[trial.method] + 0.001 * trial.seed
    rates = {"hair": {"error": 0.3 - gain, "examples": 64}, "gender": {"error": 0.1 - gain, "examples": 64}}
    metrics = {
        "validation_error": validation,
        "validation_loss": 1.0,
        "probing_error": rates,
        "classifier_error": rates,
        "test_error": {"error": 0.05, "worst_group_error": 0.4, "groups": {}},
    }
    return {
        "configuration": trial.configuration,
        "status": "finished",
        "diverged_at": None,
        "metrics": metrics,
        "images": {"train": 7000},
        "seconds": {"total": 1.0},
        "weights": {"fresh": ["layer4", "fc"]},
    }


def weight_record(trial: WeightTrial, tilt: float = 0.3) -> dict:
    """Weights that fall with both contributions; at the phantom less with that of gender, the easy one."""
    random = np.random.default_rng([trial.of.seed, trial.of.method == "sam", trial.epoch or 0])
    contributions = {"hair": random.normal(1, 1, 400), "gender": random.normal(2, 1, 400)}
    real = 0.5 / (1 + np.exp(contributions["hair"] + contributions["gender"]))
    phantom = real * np.exp(tilt * contributions["gender"] - 0.1 * contributions["hair"])
    values = {"real": real, "phantom": phantom, "ratio": phantom / real / np.median(phantom / real)}
    attributes = {
        name: {
            "probing_error": 0.1,
            "slope": slope,
            "worst_share": {"real": 0.5, "phantom": 0.5 + change},
            "bins": binned(contributions[name], values),
        }
        for name, slope, change in (("hair", -0.1, 0.02), ("gender", tilt, -0.1))
    }
    own = {name: found | {"slope": 7.0} for name, found in attributes.items()}
    metrics = {
        "real": summary(real),
        "phantom": summary(phantom),
        "median_ratio": 1.0,
        "contributions": {
            "label": {"attributes": attributes, "map": mapped(contributions, values)},
            "attribute": {"attributes": own, "map": mapped(contributions, values)},
        },
    }
    return {"configuration": trial.configuration, "status": "finished", "metrics": metrics, "seconds": {"total": 1.0}}


@pytest.fixture
def store(tmp_path) -> Store:
    """The whole reduced row of CelebA, made up: SGD and SAM selected at the last setting of the sweep."""
    store = Store(tmp_path)
    for place, trial in enumerate(natural_plans.grid(PROTOCOL)):
        store.write(error_record(trial, validation=0.5 - 0.01 * place))
    settings = natural_plans.selected(PROTOCOL, store)
    for trial in natural_plans.comparison(PROTOCOL, settings, SEEDS):
        if store.read(trial.configuration) is None:
            store.write(error_record(trial))
    for trial in natural_plans.weight_trials(PROTOCOL, settings, SEEDS):
        store.write(weight_record(trial))
    return store


@pytest.fixture
def row(store) -> group_rows.Row:
    return group_rows.stored("reduced", store, SEEDS)["celeba"]


def test_row_is_there_only_where_all_its_trials_are(store, row):
    assert len(natural_plans.grid(row.protocol)) == 6
    assert len(row.records) == 3 * SEEDS and len(row.weights) == 2 * 2 * SEEDS
    assert row.features == ("gender", "hair") and row.moments == [1, 2]
    there = group_rows.stored("reduced", store, SEEDS)
    assert set(there) >= {"celeba", "birds_on_scenes"} and there["birds_on_scenes"] is None
    assert group_rows.stored("full", store, SEEDS) == {"celeba": None, "waterbirds": None}
    assert group_rows.stored("reduced", store, SEEDS + 1)["celeba"] is None


def test_what_a_row_lacks_of_the_protocol_is_said_with_the_command(row):
    words = group_rows.standing("celeba", "reduced", row)
    assert words.startswith(
        "reduced: 2 of 20 epochs, 64 of 112 pixels a side, 6 of 20 settings in the "
        "sweep, 7,000 of 162,770 training images"
    )
    assert "but for layer4 and fc" in words
    assert group_rows.standing("waterbirds", "full", None) == ("not run here: python -m book.sweep waterbirds-full")
    assert group_rows.standing("birds_on_scenes", "reduced", None).endswith("book.sweep birds-on-scenes")


def test_whole_protocol_on_part_of_the_images_is_reduced(tmp_path):
    protocol, whole = natural_plans.groups_full("celeba"), 162_770
    for count, reduced in ((whole - 1, True), (whole, False)):
        store = Store(tmp_path / str(count))
        for trial in natural_plans.grid(protocol):
            store.write(error_record(trial))
        settings = natural_plans.selected(protocol, store)
        for trial in natural_plans.comparison(protocol, settings, SEEDS):
            store.write(error_record(trial) | {"images": {"train": count}})
        for trial in natural_plans.weight_trials(protocol, settings, SEEDS):
            store.write(weight_record(trial))
        row = group_rows.stored("full", store, SEEDS)["celeba"]
        assert row.reduced == reduced and row.moments == [1, 5, 10, 20]
        words = group_rows.standing("celeba", "full", row)
        assert ("162,769 of 162,770 training images" in words) if reduced else words == "the whole protocol"


def test_table_has_the_worst_group_and_the_net_before_training(row):
    rows = group_rows.rows_of_table(row)
    assert list(rows) == [
        f"CelebA, reduced: {what}" for what in ("test", "worst group", "probe, hair (hard)", "probe, gender (easy)")
    ]
    hard = rows["CelebA, reduced: probe, hair (hard)"]
    assert hard["SGD"] == "29.90 ± 0.10" and hard["SGD less SAM"].startswith("5.00 [")
    assert hard["before training"] == "29.90 ± 0.10"
    assert table.easy_and_hard(row.errors, "celeba") == ("gender", "hair"), "no attribute of its own"


def test_c7_counts_reduced_sets_as_reduced_and_never_the_stand_in(row):
    checks = group_rows.checks_of_table([row, replace(row, dataset="birds_on_scenes")])
    assert [(check.holds, check.reduced) for check in checks] == [(True, True), (True, True), (None, False)]
    assert "Waterbirds" in checks[-1].what and not any("birds on scenes" in check.what for check in checks)


def test_c3_is_within_either_net_and_between_them(row):
    sgd, sam = group_rows.gini(row, 2)
    checks = group_rows.checks_of_evenness(row)
    assert [check.effect.mean for check in checks] == pytest.approx(
        [np.mean(sgd[0] - sgd[1]), np.mean(sam[0] - sam[1]), np.mean(sgd[0] - sam[1])]
    )
    assert all(check.reduced and check.effect.n == SEEDS for check in checks)


def test_c4_has_both_readings_with_the_signs_of_the_claim(row, store):
    assert [check.holds for check in group_rows.checks_of_which(row)] == [True] * 4
    reverse = replace(
        row,
        weights=[
            weight_record(trial, tilt=-0.3) for trial in natural_plans.weight_trials(PROTOCOL, row.settings, SEEDS)
        ],
    )
    assert [check.holds for check in group_rows.checks_of_which(reverse)] == [True, True, False, True]


def test_seeds_are_paired_and_a_diverged_net_leaves_its_seed_out(row):
    lost = [
        record | {"status": "diverged", "metrics": None}
        if record["configuration"]["of"]["method"] == "sam" and record["configuration"]["of"]["seed"] == 1
        else record
        for record in row.weights
    ]
    assert group_rows.gini(row, 1).shape == (2, 2, SEEDS)
    assert group_rows.gini(replace(row, weights=lost), 1).shape == (2, 2, SEEDS - 1)


def test_words_name_the_settings_and_the_hard_attribute(row):
    words = group_rows.in_words(row)
    assert "The hard attribute is hair" in words and "3 paired seeds" in words and "$\\rho$ = 0.07" in words
    assert group_rows.weights_measured([row]) == "400 training images of CelebA at $\\rho$ = 0.07"
    assert group_rows.rows_of_which(row, "label")["CelebA, SAM, epoch 2"]["slope easy"] == "0.300 ± 0.000"
    assert group_rows.rows_of_which(row, "attribute")["CelebA, SGD, epoch 1"]["slope hard"].startswith("7.0")
    assert list(group_rows.rows_of_evenness(row)) == ["CelebA, epoch 1", "CelebA, epoch 2"]


def test_means_in_words_are_over_seeds_at_the_end(row):
    real = np.mean([metrics["real"]["mean"] for metrics in row.measured(2)["sam"]])
    words = group_rows.means_in_words(row)
    assert f"in SAM's nets the mean weight goes from {real:.3f} to" in words
    assert words.count("multiplied by 1.00") == 2


def test_figures_show_every_moment_and_the_easy_feature_to_the_right(row):
    fig = figures.lorenz_curves([row, row])
    assert [ax.get_title() for ax in fig.axes[:2]] == ["CelebA, epoch 1", "CelebA, epoch 2 (the end)"]
    along = figures.along_contributions([row])
    lines = along.axes[0].get_lines()
    assert len(along.axes) == 4 and len(lines) == 4 and len(lines[0].get_xdata()) == BINS
    bins = row.measured(2)["sgd"]
    first = [one["contributions"]["label"]["attributes"]["gender"]["bins"]["real"][0] for one in bins]
    assert lines[0].get_ydata()[0] == pytest.approx(np.exp(np.mean(np.log(first))))
    metrics = row.measured(2)["sgd"][0]
    stored, real = metrics["contributions"]["label"]["map"], figures._maps(metrics, ("gender", "hair"))[0]
    assert real.easy_edges.tolist() == stored["edges"][1] and real.count[3, 4] == stored["images"][4][3]
    assert len(figures.weight_maps(row).axes) == 3 * 4 + 2
    errors = images.probing_errors(row.errors)
    assert [tick.get_text() for tick in errors.axes[-1].get_xticklabels()] == ["SGD", "SAM"]
    plt.close("all")


def test_full_protocol_is_counted_in_passes():
    base = replace(natural_plans.groups_full("celeba").base, epochs=10)
    protocol = natural_plans.Protocol(base, (0.1,), (0.05,))
    images = 162_770
    assert natural_plans.training_images(base.configuration) == images
    assert full_cost.passes(protocol, seeds=3) == (10 * 3 + 2 * 10 * 3) * images
    with_moment = replace(protocol, moments=(4,))
    assert full_cost.passes(with_moment, 3) == (90 + 3 * (4 * 3 + 2 * 2 * 2)) * images
    double = replace(protocol, base=replace(base, size=224))
    assert full_cost.hours([double], 3) == pytest.approx(4 * full_cost.hours([protocol], 3))
    pacs = natural_plans.domains_full("pacs")[0]
    assert natural_plans.training_images(pacs.base.configuration) == 7943 - 794
