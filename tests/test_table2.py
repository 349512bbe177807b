"""Table 2: the paper's numbers beside ours, and the twelve parts of claim C8."""

from __future__ import annotations

import numpy as np

from book import domainbed as table2
from book import figures_domainbed as figures
from book import natural_plans
from lib.data.domains import BENCHMARKS
from lib.trials.store import Store

FOUND = {
    ("pacs", "P"): {
        "sgd": np.array([0.05, 0.06, 0.07]),
        "sam": np.array([0.03, 0.04, 0.06]),
        "untrained": np.array([0.30, 0.31, 0.32]),
    },
    ("pacs", "S"): {
        "sgd": np.array([0.20, 0.21, 0.22]),
        "sam": np.array([0.21, 0.20, 0.22]),
        "untrained": np.array([]),
    },
}


def test_published_table_has_every_target_domain_and_sam_ahead_in_each() -> None:
    assert {key: set(rows) for key, rows in table2.PUBLISHED.items()} == {
        key: set(benchmark.domains) for key, benchmark in BENCHMARKS.items()
    }
    assert len(table2.targets()) == 12
    assert all(sam > sgd for rows in table2.PUBLISHED.values() for sgd, sam in rows.values())


def test_checks_hold_where_the_interval_is_above_zero_and_are_not_run_elsewhere() -> None:
    holds = dict(zip(table2.targets(), [check.holds for check in table2.checks(FOUND, reduced=True)]))
    assert holds[("pacs", "P")] is True and holds[("pacs", "S")] is False
    assert all(holds[key] is None for key in holds if key not in FOUND)
    marks = [check.reduced for check in table2.checks(FOUND, reduced=True)]
    assert marks == [key in FOUND for key in table2.targets()]
    assert not any(check.reduced for check in table2.checks(FOUND, reduced=False))


def test_errors_are_paired_by_seed_and_one_seed_is_not_enough() -> None:
    def record(trial: ImageTrial, error: float | None) -> dict:
        metrics = None if error is None else {"probing_error": {"class": {"error": error}}}
        return {
            "configuration": trial.configuration,
            "metrics": metrics,
            "status": "diverged" if error is None else "finished",
        }

    trials = table2.trials("pacs", 3, lr=0.01, rho=0.05, weights="none")
    assert len(trials) == 4 * 3 * 3 and {trial.rho for trial in trials if trial.method == "sgd"} == {0.0}
    assert len(table2.trials("all", 3, lr=0.01, rho=0.05, weights="none")) == 12 * 3 * 3
    errors = {
        trial: 0.1 + 0.01 * trial.seed - 0.02 * (trial.method == "sam") + 0.2 * (trial.epochs == 0) for trial in trials
    }
    for trial in trials:
        if trial.data.target == "S" and trial.seed > 0 and trial.method == "sam":
            errors[trial] = None
    found = table2.found(record(*item) for item in errors.items())
    assert set(found) == {("pacs", "A"), ("pacs", "C"), ("pacs", "P")}
    np.testing.assert_allclose(found["pacs", "A"]["sgd"] - found["pacs", "A"]["sam"], [0.02] * 3)
    np.testing.assert_allclose(found["pacs", "A"]["untrained"], [0.3, 0.31, 0.32])


def test_note_says_that_ours_are_reduced_or_not_run() -> None:
    trial = table2.trials("pacs", 2, lr=0.01, rho=0.05, weights="none", epochs=4, size=64)[1]
    record = {"configuration": trial.configuration, "weights": {"fresh": ["layer4", "fc"]}}
    assert "4 epochs, 64 pixels, layer4 not from ImageNet" in table2.note([record], reduced=True)
    assert table2.note([], reduced=True) == "Not run here."
    assert "whole protocol" in table2.note([record], reduced=False)


def test_effects_in_words_count_the_intervals_on_either_side() -> None:
    words = table2.effects_in_words(FOUND)
    assert "Of the 2 targets that were run here, 1 has an interval above zero and 0 one below" in words
    assert "over 3 seeds" in words and "from 0.0 to 1.7 points" in words
    assert table2.effects_in_words({}) == "No target was run here."
    assert "after SGD on 0 of 1 targets, and lower than after SAM on 0" in table2.start_in_words(FOUND)
    better = {"P": FOUND["pacs", "P"] | {"untrained": np.array([0.05, 0.05, 0.05])}}
    assert "after SGD on 1 of 1 targets, and lower than after SAM on 0" in table2.start_in_words(better)
    assert table2.start_in_words({}) == ""


def test_protocol_has_the_selected_settings_of_targets_whose_sweep_is_stored(tmp_path) -> None:
    store = Store(tmp_path)
    photo = natural_plans.domains_full("pacs")[2]
    assert table2.protocol_trials("all", store, 2) == []
    for trial in natural_plans.grid(photo):
        best = trial.lr == 0.005 and trial.rho in (0, 0.1)
        metrics = {"validation_error": 0.1 if best else 0.2, "validation_loss": 1.0}
        store.write({"configuration": trial.configuration, "status": "finished", "metrics": metrics})
    found = table2.protocol_trials("pacs", store, 2)
    assert {(one.data.target, one.method, one.lr, one.rho, one.seed) for one in found} == {
        ("P", method, 0.005, rho, seed) for method, rho in (("sgd", 0.0), ("sam", 0.1)) for seed in (0, 1)
    } | {("P", "sgd", 0.001, 0.0, seed) for seed in (0, 1)}
    assert table2.protocol_trials("vlcs", store, 2) == []


def test_rows_show_accuracies_and_what_was_not_run() -> None:
    rows = table2.rows(FOUND)
    photo = rows["PACS, photo"]
    assert photo["paper: SGD"] == "95.5" and photo["gain"] == "0.9"
    assert photo["here: SGD"] == "94.0 ± 1.0"
    assert photo["here: before training"] == "69.0 ± 1.0" and photo["here: gain"].startswith("1.7 [")
    assert rows["VLCS, SUN09"]["here: SAM"] == "not run here" and len(rows) == 12


def test_figure_has_a_row_for_every_target() -> None:
    fig = figures.gains({key: table2.gain(FOUND.get(key, {})) for key in table2.targets()})
    labels = [label.get_text() for label in fig.axes[0].get_yticklabels()]
    assert labels == [table2.name(*key) for key in table2.targets()]
