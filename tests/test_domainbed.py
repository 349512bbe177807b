"""Chapter 8: the paper's numbers beside ours, and the parts of claim C8; tables are compared in the notebook."""

from dataclasses import replace
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from book import domainbed, protocols
from book.claims import Outcome
from lib.data.domains import BENCHMARKS
from lib.trials.store import Store
from lib.trials.trial import MissingTrials, Place

PACS = domainbed.sweeps("pacs")
SPREAD = np.linspace(-0.01, 0.01, 8)


@pytest.fixture(scope="module")
def results() -> dict:
    return domainbed.results(PACS, Store(), protocols.NATURAL_SEEDS)


def gained(**gains: np.ndarray) -> dict:
    """Of results on targets of PACS their gains by seed."""
    by_target = {("pacs", target): pd.Series(values) for target, values in gains.items()}
    return {key: SimpleNamespace(gains=lambda measure, of=of: of, lacking=["epochs"]) for key, of in by_target.items()}


def test_published_table_has_every_target_domain():
    published = {key: set(rows) for key, rows in domainbed.PUBLISHED.items()}
    assert published == {key: set(domains) for key, domains in BENCHMARKS.items()}


def test_c8_is_judged_on_every_target_that_ran_and_in_the_mean_over_a_benchmark():
    gains = {"A": -0.02 + 0.1 * SPREAD, "P": 0.02 + 0.1 * SPREAD, "S": 0.002 + SPREAD}
    found = domainbed.checks(gained(**gains))
    words = [check.what.split(":")[0] for check in found]
    of_pacs = ["PACS, mean over its targets", "PACS, art painting", "PACS, photo", "PACS, sketch"]
    assert words == ["OfficeHome, mean over its targets", *of_pacs, "VLCS, mean over its targets"]
    kinds = [Outcome.NOT_RUN, Outcome.NOT_RUN, Outcome.CONTRADICTED, Outcome.HOLDS, Outcome.UNDECIDED, Outcome.NOT_RUN]
    assert [check.outcome for check in found] == kinds, "a mean over three of four is not run"
    assert [check.main for check in found] == ["mean" in one for one in words]
    assert [check.reduced for check in found] == [check.effect is not None for check in found]
    mean = domainbed.checks(gained(**gains, C=0.06 + SPREAD))[1]
    assert mean.outcome is Outcome.HOLDS and mean.main and mean.effect.mean == pytest.approx((0.06 + 0.002) / 4)


@pytest.mark.parametrize(
    "gain, outcome",
    [
        (0.02 + 0.1 * SPREAD, Outcome.HOLDS),
        ((0.02 + 0.1 * SPREAD)[1:], Outcome.UNDECIDED),  # seven seeds
        (0.005 + SPREAD, Outcome.UNDECIDED),  # a mean above 0 is not enough
        (0.002 + 0.1 * SPREAD, Outcome.CONTRADICTED),  # too small to matter
        (0.005 + 0.1 * SPREAD, Outcome.HOLDS),
        (-0.02 + 0.1 * SPREAD, Outcome.CONTRADICTED),
    ],
)
def test_c8_holds_where_the_whole_interval_is_above_zero(gain, outcome):
    checks = domainbed.checks(gained(**dict.fromkeys("ACPS", gain)))[1:6]
    assert {check.outcome for check in checks} == {outcome}


def test_means_are_over_the_seeds_that_all_targets_share(results):
    parts = pd.Series([1.0, 2.0, 6.0], index=[0, 1, 3]), pd.Series([3.0, 4.0], index=[1, 3])
    assert domainbed.mean(parts).tolist() == [2.5, 5.0]
    found = domainbed.numbers(results)
    errors = 100 * pd.concat([one.errors.mean() for one in results.values()], axis=1).mean(axis=1).xs("class", level=1)
    gains = {
        "mean": errors.sgd - errors.sam,
        "sgd": errors.sgd - errors.untrained,
        "sam": errors.sam - errors.untrained,
    }
    assert all(found[name].startswith(f"{gain:.1f} [") for name, gain in gains.items())
    assert found["lacking"] == ", ".join(results["pacs", "P"].lacking) and (found["run"], found["seeds"]) == ("4", "8")
    assert domainbed.numbers({}) == dict.fromkeys(found, "not run here")


def test_tables_and_figure_have_what_was_not_run(results):
    rows = domainbed.rows(results)
    assert rows["VLCS, SUN09"]["here: SAM"] == "not run here"
    unswept = {key: replace(one, sweep=[]) for key, one in results.items()}  # lr and rho given
    assert domainbed.rows_of_sweep({}) == domainbed.rows_of_sweep(unswept) == {"": {"here": "not run here"}}
    for found in ({}, results):
        (ax,) = domainbed.figure(found).axes
        assert [label.get_text() for label in ax.get_yticklabels()] == list(rows)
    plt.close("all")


def test_a_setting_of_ones_own_needs_no_selection(tmp_path):
    store, place = Store(tmp_path), Place("/nowhere", "cpu", checkpoints=None)
    assert domainbed.results(PACS, store, 2, place) == {}, "something has to be selected"
    own = {"lr": 0.05, "rho": 0.2, "size": 32, "weights": "none", "epochs": 3}
    with pytest.raises(MissingTrials, match="6 of 6 trials are not stored"):
        domainbed.results(PACS, store, 2, place, **own)
    assert protocols.training_images(PACS["pacs", "A"].base.configuration) == 7943 - 794
