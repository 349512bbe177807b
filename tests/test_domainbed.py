"""Chapter 8: the paper's numbers beside ours, and the twelve parts of claim C8."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from records import whole

from book import domainbed, protocols
from book.claims import Outcome
from lib.data.domains import BENCHMARKS
from lib.trials.store import Store

PACS = domainbed.sweeps("pacs", **domainbed.REDUCED | {"weights": "none"})
SPREAD = np.linspace(-0.01, 0.01, 8)
GAINS = {"P": 0.02 + 0.1 * SPREAD, "S": 0.002 + SPREAD, "A": -0.02 + 0.1 * SPREAD}  # by seed; cartoons have one seed


def record(trial, error: float | None) -> dict:
    metrics = None
    if error is not None:
        metrics = {"validation_error": 0.1, "validation_loss": 1 - trial.rho}
        metrics["probing_error"] = {"class": {"error": error, "examples": 100}}
    return {
        "configuration": trial.configuration,
        "metrics": metrics,
        "status": "diverged" if error is None else "finished",
        "images": {"train": protocols.training_images(trial.configuration)},
        "weights": {"fresh": ["layer4", "fc"]},
    }


def write(store: Store, gains: dict, seeds: int = 8) -> dict:
    """PACS with these gains; the probe errs on .3 before training and on .2 after SGD. Where there are no gains SAM
    diverged on all seeds but one."""
    for protocol in PACS.values():
        for trial in protocols.grid(protocol):
            store.write(whole(record(trial, 0.2)))
    for trial in domainbed.trials(PACS, store, seeds):
        gain = gains.get(trial.data.target, [0.01] + (seeds - 1) * [None])[trial.seed]
        error = 0.3 if not trial.epochs else 0.2 if trial.method == "sgd" else None if gain is None else 0.2 - gain
        store.write(whole(record(trial, error)))
    return domainbed.stored(PACS, store, seeds)


@pytest.fixture
def results(tmp_path) -> dict:
    return write(Store(tmp_path), GAINS)


def test_published_table_has_every_target_domain_and_sam_ahead_in_each():
    published = {key: set(rows) for key, rows in domainbed.PUBLISHED.items()}
    assert published == {key: set(benchmark.domains) for key, benchmark in BENCHMARKS.items()}
    assert len(domainbed.TARGETS) == 12 == len(domainbed.sweeps())
    assert all(sam > sgd for rows in domainbed.PUBLISHED.values() for sgd, sam in rows.values())


def test_c8_is_judged_on_every_target_that_ran_and_in_the_mean_over_a_benchmark(tmp_path, results):
    found = domainbed.checks(results)
    words = [check.what.split(":")[0] for check in found]
    of_pacs = ["PACS, mean over its targets", "PACS, art painting", "PACS, photo", "PACS, sketch"]
    assert words == ["OfficeHome, mean over its targets", *of_pacs, "VLCS, mean over its targets"]
    kinds = [Outcome.NOT_RUN, Outcome.NOT_RUN, Outcome.CONTRADICTED, Outcome.HOLDS, Outcome.UNDECIDED, Outcome.NOT_RUN]
    assert [check.outcome for check in found] == kinds, "a mean over three of four is not run"
    assert [check.main for check in found] == ["mean" in one for one in words]
    assert [check.reduced for check in found] == [check.effect is not None for check in found]
    whole = write(Store(tmp_path / "whole"), GAINS | {"C": 0.06 + SPREAD})
    mean = domainbed.checks(whole)[1]
    assert mean.outcome is Outcome.HOLDS and mean.main and mean.effect.mean == pytest.approx((0.06 + 0.002) / 4)


@pytest.mark.parametrize(
    "gain, seeds, outcome",
    [
        (0.02 + 0.1 * SPREAD, 8, Outcome.HOLDS),
        (0.02 + 0.1 * SPREAD, 7, Outcome.UNDECIDED),
        (0.005 + SPREAD, 8, Outcome.UNDECIDED),  # a mean above 0 is not enough
        (0.002 + 0.1 * SPREAD, 8, Outcome.CONTRADICTED),  # too small to matter
        (0.005 + 0.1 * SPREAD, 8, Outcome.HOLDS),
        (-0.02 + 0.1 * SPREAD, 8, Outcome.CONTRADICTED),
    ],
)
def test_c8_holds_where_the_whole_interval_is_above_zero(tmp_path, gain, seeds, outcome):
    mean, *targets = domainbed.checks(write(Store(tmp_path), dict.fromkeys("ACPS", gain), seeds))[1:6]
    assert {check.outcome for check in (mean, *targets)} == {outcome}


def test_errors_are_paired_by_seed_and_one_seed_is_not_enough(results):
    assert list(results) == [("pacs", "A"), ("pacs", "P"), ("pacs", "S")]
    np.testing.assert_allclose(results["pacs", "P"].gains("class"), GAINS["P"])
    parts = pd.Series([1.0, 2.0, 6.0], index=[0, 1, 3]), pd.Series([3.0, 4.0], index=[1, 3])
    assert domainbed.mean(parts).tolist() == [2.5, 5.0]


def test_what_is_reduced_is_said_of_how_much(results):
    words = "2 of 20 epochs, 64 of 224 pixels a side, 8 of 16 settings in the sweep, ImageNet's weights but for layer4"
    assert ", ".join(results["pacs", "P"].lacking) == words == domainbed.numbers(results)["lacking"]


def test_rows_show_accuracies_and_what_was_not_run(results):
    rows = domainbed.rows(results)
    photo = rows["PACS, photo"]
    assert photo["paper: SGD"] == "95.5" and photo["gain"] == "0.9"
    assert photo["here: SGD"] == "80.0 ± 0.0" and photo["here: SAM"] == "82.0 ± 0.1"
    assert photo["here: before training"] == "70.0 ± 0.0" and photo["here: gain"].startswith("2.0 [")
    assert rows["VLCS, SUN09"]["here: SAM"] == "not run here" and len(rows) == 12


def test_sweep_shows_what_selects_beside_what_does_not(results):
    rows = domainbed.rows_of_sweep(results)
    assert list(rows)[:2] == [f"PACS, art painting, learning rate {lr}" for lr in (0.001, 0.01)] and len(rows) == 6
    assert rows["PACS, photo, learning rate 0.001"] == {
        "SGD": "10.0, 20.0",
        "rho 0.03": "10.0, 20.0",
        "rho 0.05": "10.0, 20.0",
        "rho 0.1": "10.0, 18.1",  # selected, and run again
    }
    assert domainbed.rows_of_sweep({}) == {"": {"here": "not run here"}}


def test_numbers_are_of_the_mean_over_targets(results):
    found = domainbed.numbers(results)
    assert (found["run"], found["seeds"]) == ("3", "8")
    assert found["mean"].startswith("0.1 [") and found["sgd"] == "-10.0 [-10.0, -10.0]"
    assert found["sam"].startswith("-10.1 [")
    assert found["settings"] == "SGD at learning rate 0.001, SAM at 0.001 and rho 0.1"
    assert set(domainbed.numbers({}).values()) == {"not run here"} and domainbed.numbers({}).keys() == found.keys()


def test_figure_has_a_row_for_every_target(results):
    for found in ({}, results):
        (ax,) = domainbed.figure(found).axes
        assert [label.get_text() for label in ax.get_yticklabels()] == [
            domainbed.name(*key) for key in domainbed.TARGETS
        ]
    plt.close("all")


def test_protocol_has_the_selected_settings_of_targets_whose_sweep_is_stored(tmp_path):
    store, full = Store(tmp_path), domainbed.sweeps("pacs")
    assert domainbed.trials(full, store, 2) == []
    for trial in protocols.grid(full["pacs", "P"]):
        best = trial.lr == 0.005 and trial.rho in (0, 0.1)
        metrics = {"validation_error": 0.1 if best else 0.2, "validation_loss": 1.0}
        store.write(whole({"configuration": trial.configuration, "status": "finished", "metrics": metrics}))
    found = domainbed.trials(full, store, 2)
    assert {(one.data.target, one.method, one.lr, one.rho, one.seed) for one in found} == {
        ("P", method, 0.005, rho, seed) for method, rho in (("sgd", 0.0), ("sam", 0.1)) for seed in (0, 1)
    } | {("P", "sgd", 0.001, 0.0, seed) for seed in (0, 1)}


def test_paper_protocol_and_the_reduced_one_are_a_sweep_a_target(tmp_path):
    for (benchmark, target), protocol in domainbed.sweeps().items():
        assert (protocol.base.data.benchmark, protocol.base.data.target) == (benchmark, target)
        assert {trial.rho for trial in protocols.grid(protocol)} == {0, 0.03, 0.05, 0.1}
        assert (protocol.base.epochs, protocol.base.batch_size, protocol.base.weights) == (20, 96, "imagenet")
    plan = protocols.plan(PACS.values(), Store(tmp_path), seeds=8)
    assert len(plan.trials) == 4 * 2 * 4 and {trial.seed for trial in plan.trials} == {0}
    assert {trial.rho for trial in plan.trials} == {0, 0.03, 0.05, 0.1} and plan.later == 4 * (8 * 3 - 2)
    own = domainbed.sweeps("pacs", **domainbed.REDUCED | {"rates": [0.01], "radii": [0.05]})
    assert len(domainbed.trials(own, Store(tmp_path), 2)) == 4 * 3 * 2, "a single setting needs no selection"
    assert protocols.training_images(PACS["pacs", "A"].base.configuration) == 7943 - 794
