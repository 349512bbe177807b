"""A toy trial: its identity is what it computes, its record is small and gives everything back."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from book.mechanism import decompose
from book.toy_trial import KEPT, KINDS, ToyTrial, errors, kept
from lib.data.toy import ToyConstants
from lib.importance import gini
from lib.toy.ensemble import intervention, lsam, sgd, train
from lib.toy.variants import VariantSetting
from lib.trials.store import RESULTS, Store, identity
from lib.trials.trial import Place

DATA = ToyConstants(training_points=40, test_points=60, complexity=200.0)
SHARED = {"data": DATA, "width": 8, "epochs": 4}
SETTINGS = (sgd(**SHARED), lsam(0.5, **SHARED), intervention("both", 2.0, **SHARED))
TRIAL = ToyTrial(SETTINGS, 3, 5, trace_every=4, weighed=0.7)
PLACE = Place(device="cpu", checkpoints=None)
EXPLODES = lsam(0.5, **SHARED | {"learning_rate": 1e6})
VARIANTS = (VariantSetting("lsam", 0.5, **SHARED), VariantSetting("lsam", 0.5, **SHARED | {"learning_rate": 1e6}))


@pytest.fixture(scope="module")
def record() -> dict:
    return TRIAL.run(PLACE)


@pytest.mark.parametrize(
    "trial",
    [
        TRIAL,
        ToyTrial((lsam(1, head=(2, 0.5), batch_size=7, head_importance="real", memory=3),), 1),
        ToyTrial((lsam(1, ascent=(0, 2.5), average="scaled", rates=(1, 0.5), gain=2), lsam(1, bias=None)), 1),
        ToyTrial((lsam(1, data=ToyConstants(easy_interval=(1, 2))), sgd(smoothing=0.1, phantom_points=9)), 1),
        ToyTrial((sgd(), sgd(data=ToyConstants(label_noise=0.1, noisy="hard"), epochs=3)), 2, 0),
        ToyTrial((VariantSetting("sam", 1, epochs=2), VariantSetting("sam", 0.5, epochs=2)), 3),
    ],
    ids=["three methods", "one setting", "later values", "intervals", "two sets of data", "variants"],
)
def test_configuration_gives_the_trial_back(trial):
    written = json.loads(json.dumps(trial.configuration))
    assert ToyTrial.from_configuration(written) == trial
    assert ToyTrial.from_configuration(written).identity == trial.identity
    for change in ({"constants": {}}, {"experiment": "images"}, {"protocol": 0}):
        with pytest.raises(ValueError, match="configuration must be of a toy trial"):
            ToyTrial.from_configuration(written | change)


STORED = [
    (path.stem, configuration)
    for path in sorted(RESULTS.glob("*/*.json"))
    if (configuration := json.loads(path.read_text()).get("configuration", {})).get("experiment") in KINDS
]


def test_every_stored_result_gives_its_trial_back():
    assert {configuration["experiment"] for _, configuration in STORED} == KINDS.keys()
    for stem, configuration in STORED:
        trial = ToyTrial.from_configuration(configuration)
        assert trial.identity == identity(configuration) and trial.identity.startswith(stem.split(".")[-1])


def test_identity_is_what_is_computed_and_not_what_it_is_called():
    assert replace(TRIAL, name="another").identity == TRIAL.identity
    assert replace(TRIAL, name="another") == TRIAL
    one, same = (ToyTrial((lsam(rho, head=head),), 1) for rho, head in ((1, (1, 2)), (1.0, (1.0, 2.0))))
    assert one.identity == same.identity
    changes = [
        {"seeds": 4},
        {"first_seed": 6},
        {"trace_every": 0},
        {"weighed": 0.0},
        {"weighed": 0.5},
        {"settings": SETTINGS[:2]},
        {"settings": SETTINGS[::-1]},
        {"settings": (replace(SETTINGS[0], data=replace(DATA, dropout=0.1)), *SETTINGS[1:])},
        {"settings": (replace(SETTINGS[0], gain=2.0), *SETTINGS[1:])},
        {"settings": (replace(SETTINGS[0], gain=2.0), *(replace(one, gain=2.0) for one in SETTINGS[1:]))},
    ]
    identities = {replace(TRIAL, **change).identity for change in changes}
    assert len(identities | {TRIAL.identity}) == len(changes) + 1


@pytest.mark.parametrize(
    "change",
    [
        {"settings": ()},
        {"settings": ("sgd",)},
        {"settings": (sgd(), VariantSetting("sgd"))},
        {"seeds": 0},
        {"first_seed": -1},
        {"trace_every": -1},
        {"weighed": -0.1},
    ],
)
def test_what_is_not_allowed_is_named_in_one_line(change):
    with pytest.raises(ValueError, match=f"^{next(iter(change))} must be .*, not .*$"):
        replace(TRIAL, **change)


def test_record_holds_what_the_ensemble_measured(record):
    result = train(SETTINGS, range(5, 8), trace_every=4, keep_nets=True, progress=False)
    measured = [(feature, split) for feature in ("easy", "hard", "model") for split in ("validation", "test")]
    for feature, split in (*measured, ("model", "train")):
        assert np.allclose(errors(record, feature, split), result.error(feature, split)[:, :, -1], atol=1e-6)
    assert np.allclose(np.array(record["metrics"]["heads"], dtype=float), result.heads[:, :, -1], rtol=1e-3)
    trace, parts = result.traces[1].astype(float), decompose(result, 1, -1, 0.7)  # of LSAM
    rates = (trace[..., 2:] / trace[..., :2]).mean(axis=1)
    assert np.allclose(kept(record, "means")[1], np.concatenate([trace.mean(axis=1), rates], axis=1), rtol=1e-3)
    weighed = gini(parts.real), gini(parts.phantom), (parts.easy <= 0).mean(axis=1), (parts.hard <= 0).mean(axis=1)
    assert np.allclose(kept(record, "weights")[1].T, weighed, rtol=1e-3)


def test_sgd_has_its_real_head_for_a_phantom_and_an_intervention_has_none(record):
    found = dict(zip(KEPT["means"], np.moveaxis(kept(record, "means"), -1, 0)))
    assert np.array_equal(found["w_hard"][0], found["phantom_hard"][0]) and np.all(found["rate_easy"][0] == 1)
    for of_nets in (kept(record, "means"), kept(record, "weights")):
        assert np.isnan(of_nets[2]).all() and not np.isnan(of_nets[:2]).any()


def test_record_survives_the_store(record, tmp_path):
    store = Store(tmp_path)
    store.write(record)
    stored = store.read(TRIAL.configuration)
    assert stored == json.loads(json.dumps(record))
    assert np.array_equal(errors(stored, "hard"), errors(record, "hard"))
    assert record["seconds"]["total"] >= 0 and {"numba", "numpy"} <= record["versions"].keys()
    assert record["hardware"]["device"] == "cpu" and record["hardware"]["threads"] == 1


def test_trials_are_paired_by_seed_whatever_their_company(record):
    alone = ToyTrial((SETTINGS[1],), 2, 6).run(PLACE)  # seeds 6, 7 of 5, 6, 7
    assert np.array_equal(errors(alone, "hard")[0], errors(record, "hard")[1, 1:])
    with pytest.raises(ValueError, match="name must be one of wrong, heads, not 'means'"):
        kept(alone, "means")


def test_what_a_record_leaves_out_is_missing():
    """As in older records: a setting, or a seed, that is None as a whole, and settings that were not weighed."""
    configuration = {"seeds": 2, "settings": [{}] * 3, "trace_every": 1}
    rows = [None, [None, [1.0] * 6]]
    found = kept({"configuration": configuration, "metrics": {"means": rows}}, "means")
    assert found.shape == (3, 2, 6) and np.isnan(found[[0, 2]]).all() and np.isnan(found[1, 0]).all()
    assert (found[1, 1] == 1).all()


@pytest.mark.parametrize(
    ("fine", "wild", "followed", "weighed"), [(SETTINGS[0], EXPLODES, "means", 0.5), (*VARIANTS, "ascents", 0)]
)
def test_diverged_net_is_missing_and_the_others_stay(fine, wild, followed, weighed):
    record = ToyTrial((fine, wild), 2, trace_every=4, weighed=weighed).run(PLACE)
    assert not weighed or np.isnan(kept(record, "weights")).all(axis=-1).tolist() == [[False] * 2, [True] * 2]
    assert record["status"] == "finished"
    json.dumps(record, allow_nan=False)
    assert not np.isnan(errors(record, "hard")[0]).any() and np.isnan(errors(record, "hard")[1]).all()
    assert record["metrics"]["heads"][1] == [[None] * 2] * 2 and np.isnan(kept(record, followed)[1]).all()
    record = ToyTrial((wild,), 2, trace_every=4).run(PLACE)
    assert record["status"] == "diverged" and record["metrics"] is None
    for values, shape in ((errors(record, "hard"), (1, 2)), (kept(record, followed), (1, 2, 6))):
        assert values.shape == shape and np.isnan(values).all()


@pytest.mark.parametrize(
    ("feature", "split", "message"),
    [
        ("hard", "train", "feature must be one of model, not 'hard'"),
        ("hard", "all", "split must be one of train, validation, test, not 'all'"),
    ],
)
def test_error_that_is_not_kept_is_refused(record, feature, split, message):
    with pytest.raises(ValueError, match=message):
        errors(record, feature, split)


def test_cost_grows_with_what_there_is_to_compute():
    kind, amount = TRIAL.cost
    longer = replace(TRIAL, settings=tuple(replace(setting, epochs=8) for setting in SETTINGS))
    assert longer.cost == (kind, pytest.approx(2 * amount))
    assert replace(TRIAL, seeds=6).cost == (kind, pytest.approx(2 * amount))
