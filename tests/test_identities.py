"""No stored result loses its trial: every experiment's plan names the trials that it named before the rooms moved."""

import json
import warnings
from pathlib import Path

import pytest

from book.experiments import experiments
from book.sweep import orphans
from lib.trials.store import RESULTS, ResultWarning, Store

MORE_SEEDS = ("cifar-mnist", "fmnist-mnist", "celeba", "birds-on-scenes")  # frozen when there were four
MORE_SEEDS += ("celeba-full", "waterbirds-full", "pacs-full", "vlcs-full", "office-home-full")
KNOWN = json.loads((Path(__file__).parent / "golden" / "identities.json").read_text())


@pytest.mark.parametrize("name", KNOWN)
def test_plan_has_the_same_trials_and_as_many_later_ones(name):
    experiment = experiments()[name]
    plan = experiment.plan(experiment.store, min(experiment.seeds, 4) if name in MORE_SEEDS else experiment.seeds)
    assert sorted({trial.identity for trial in plan.trials}) == KNOWN[name]["trials"]
    assert plan.later == KNOWN[name]["later"]


def test_every_stored_record_is_that_of_a_trial_in_a_plan():
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResultWarning)  # every file there is a record
        assert len(list(Store(RESULTS, own=RESULTS))) > 900
    assert not orphans(experiments())
