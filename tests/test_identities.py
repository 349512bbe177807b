"""No stored result loses its trial: every experiment's plan names the trials that it named before the rooms moved."""

import json
import warnings
from pathlib import Path

import pytest

from book.experiments import experiments
from lib.trials.store import RESULTS, ResultWarning, Store, identity

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
    planned = (one.plan(one.store, one.seeds).trials for one in experiments().values())
    served = {trial.identity for trials in planned for trial in trials}
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResultWarning)  # every file there is a record
        records = list(Store(RESULTS, own=RESULTS))
    found = [(record["configuration"], identity(record["configuration"])) for record in records]
    assert len(found) > 900 and not [one for one, name in found if name not in served]
