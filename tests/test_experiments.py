from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from images import write_cifar_folder, write_mnist

from book import real_data_table1 as table1
from book.real_data_table import difference, diverged, easy_and_hard, errors, table
from book.real_data_table1 import comparison, grid, one_setting, plan, select, selected, shortfalls
from lib import training
from lib.checkpoint import CheckpointWarning
from lib.data import pairs
from lib.trials import images, run
from lib.trials.images import ImageTrial, read_pairs
from lib.trials.store import Store
from lib.trials.trial import MissingTrials, Place
from lib.trials.weights import FRACTIONS, WeightTrial

METHODS = "sgd, sam, lsam, asam, gsam, esam, looksam, friendly, sam_decay_inside, adam, sam_adam"
TRIAL = ImageTrial("cifar-mnist", "sgd", lr=0.05, epochs=1, batch_size=10)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data root with tiny generated images."""
    folder = tmp_path_factory.mktemp("data")
    write_cifar_folder(folder, train=30, test=32)
    write_mnist(folder, train=30, test=32, classes=2)
    return folder


@pytest.fixture
def place(root, tmp_path):
    return Place(root, "cpu", checkpoints=tmp_path / "checkpoints")


@pytest.fixture
def trial_record(root):
    return lambda **changes: replace(TRIAL, **changes).run(Place(root, "cpu", checkpoints=None))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def without_time(record: dict) -> dict:
    return {key: value for key, value in record.items() if key != "seconds"}


def test_same_trial_gives_the_same_record(trial_record):
    first = trial_record()
    assert without_time(trial_record()) == without_time(first)
    assert trial_record(seed=1)["curve"] != first["curve"]


def test_record_holds_what_the_chapters_need_as_plain_json(trial_record):
    record = trial_record(method="lsam", rho=0.1)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["status"] == "finished" and record["diverged_at"] is None
    metrics = record["metrics"]
    for rate in (metrics["test_error"], *metrics["probing_error"].values(), *metrics["classifier_error"].values()):
        assert 0 <= rate["low"] <= rate["error"] <= rate["high"] <= 1 and rate["examples"] == 32
    assert set(metrics["probing_error"]) == set(metrics["classifier_error"]) == {"cifar", "mnist"}
    assert metrics["probing_error"]["mnist"]["error"] < 0.1
    assert metrics["validation_error"] == record["curve"]["validation_error"][-1]
    assert all(len(values) == 1 for values in record["curve"].values())
    assert record["seconds"]["total"] >= record["seconds"]["training"]
    assert {"torch", "scikit-learn"} < set(record["versions"]) and record["hardware"]["device"] == "cpu"


def test_sam_without_a_radius_is_sgd(trial_record):
    first, second = (trial_record(method=method) for method in ("sgd", "sam"))
    assert first["metrics"] == second["metrics"] and first["curve"] == second["curve"]


def test_methods_of_one_seed_share_data_weights_and_batches(trial_record, monkeypatch):
    seen: list[list] = []

    def look(model, optimizer, inputs, labels):
        seen[-1].append((model.head.weight.detach().clone(), inputs, labels))
        return torch.zeros(())

    monkeypatch.setattr(training, "take_step", look)
    for method, rho in (("sgd", 0.0), ("sam", 0.1), ("lsam", 0.1)):
        seen.append([])
        trial_record(method=method, rho=rho)
    for other in seen[1:]:
        assert all(
            torch.equal(a, b)
            for step, same in zip(seen[0], other, strict=True)
            for a, b in zip(step, same, strict=True)
        )


def test_untrained_net_is_the_trial_of_zero_epochs(trial_record):
    record = trial_record(epochs=0)
    assert record["curve"]["train_loss"] == [] and record["metrics"]["validation_loss"] == pytest.approx(
        math.log(2), abs=0.1
    )


def test_train_limit_takes_that_many_images(trial_record, monkeypatch):
    counts = []
    monkeypatch.setattr(
        training, "take_step", lambda model, optimizer, inputs, labels: counts.append(len(labels)) or torch.zeros(())
    )
    trial_record(train_limit=25)
    assert counts == [10, 10, 5]


def test_diverged_trial_has_its_step_and_no_metrics(store, place, trial_record):
    (record,) = run([replace(TRIAL, lr=1e30)], store, place)
    assert record["status"] == "diverged" and record["diverged_at"] in (1, 2) and record["metrics"] is None
    assert list(store) == [record] and table([record]).empty
    with pytest.raises(MissingTrials, match="no trial of sgd finished: seed 0 diverged at step"):
        diverged([record])
    assert diverged([trial_record(), record]) == [f"sgd seed 0 at step {record['diverged_at']}"]


def test_stored_trials_need_no_images_and_missing_ones_are_named_with_the_command(store, place, tmp_path):
    run([TRIAL], store, place)
    nowhere = Place(tmp_path / "nowhere", "cpu", checkpoints=None)
    assert len(run([TRIAL], store, nowhere)) == 1
    with pytest.raises(MissingTrials) as caught:
        run([TRIAL, replace(TRIAL, seed=1)], store, nowhere)
    message = str(caught.value)
    assert "1 of 2 trials" in message and "\n" not in message
    assert "SAM_DATA_ROOT" in message and "python -m lib.data --download cifar10 mnist" in message
    assert caught.value._render_traceback_() == [f"MissingTrials: {message}"]


@pytest.mark.parametrize("method", ["sgd", "sam", "lsam"])
def test_training_that_was_cut_off_goes_on_to_the_same_record(root, place, monkeypatch, method):
    trial = replace(TRIAL, method=method, rho=0.0 if method == "sgd" else 0.1, epochs=4)
    undisturbed = trial.run(Place(root, "cpu", checkpoints=None))
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    evaluate, calls = training.evaluate, []

    def cut_off(*arguments):
        calls.append(None)
        if len(calls) == 3:  # the third epoch's: two are in the checkpoint
            raise KeyboardInterrupt
        return evaluate(*arguments)

    monkeypatch.setattr(training, "evaluate", cut_off)
    with pytest.raises(KeyboardInterrupt):
        trial.run(place)
    again = trial.run(place)
    assert len(calls) == 3 + 2 + 1, "two more epochs and the final measurement"
    assert without_time(again) == without_time(undisturbed)


def test_trained_net_is_kept_and_read_again_without_training(place, monkeypatch):
    record = TRIAL.run(place)
    monkeypatch.setattr(training, "take_step", None)  # training would fail
    again = TRIAL.run(place)
    assert again["metrics"] == record["metrics"] and again["curve"] == record["curve"]
    assert again["seconds"]["training"] == record["seconds"]["training"]
    reading = read_pairs(TRIAL, 3, place)
    assert len(reading.images) == 3


@pytest.mark.parametrize("damage", ["cut", "empty", "another net"])
def test_damaged_checkpoint_is_named_and_training_begins_anew(place, damage):
    record = TRIAL.run(place)
    path = place.checkpoint(TRIAL)
    content = path.read_bytes()
    if damage == "another net":
        torch.save({"epochs": 1, "history": {}, "optimizer": None, "model": {"weight": torch.ones(3)}}, path)
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    with pytest.warns(CheckpointWarning, match=path.name):
        assert TRIAL.run(place)["metrics"] == record["metrics"]


def test_weights_are_measured_on_the_kept_net_at_both_points(place, monkeypatch):
    trial = WeightTrial(replace(TRIAL, epochs=2), rho=0.1, batch_size=10)
    trial.of.run(place)
    monkeypatch.setattr(training, "take_step", None)
    record = trial.run(place)
    real, phantom = record["metrics"]["real"], record["metrics"]["phantom"]
    for weights in (real, phantom):
        assert len(weights["lorenz"]) == len(FRACTIONS) and weights["lorenz"][0] == 0
        assert weights["lorenz"][-1] == 1 and 0 < weights["gini"] < 1 and weights["points"] == 54
    assert phantom["mean"] > real["mean"], "uphill the net fits worse"
    assert trial.label == "weights of cifar-mnist sgd lr 0.05 seed 0"
    assert json.loads(json.dumps(trial.configuration)) == trial.configuration
    with pytest.raises(ValueError, match="rho must be a finite number above 0, not 0"):
        WeightTrial(TRIAL, 0)


def test_identity_depends_on_every_field_and_not_on_the_type_of_a_number():
    changes = dict(
        dataset="fmnist-mnist",
        method="sam",
        lr=0.1,
        epochs=2,
        batch_size=20,
        momentum=0.5,
        weight_decay=1e-4,
        seed=1,
        train_limit=10,
    )
    others = [replace(TRIAL, **{name: value}) for name, value in changes.items()]
    others.append(replace(TRIAL, method="sam", rho=0.1))
    assert len({trial.identity for trial in [TRIAL, *others]}) == 1 + len(others)
    assert replace(TRIAL, weight_decay=0).identity == TRIAL.identity


def test_configuration_is_plain_json_that_gives_the_trial_back():
    configuration = json.loads(json.dumps(TRIAL.configuration))
    assert configuration == TRIAL.configuration
    assert configuration.pop("experiment") == "images" and configuration.pop("protocol") == images.PROTOCOL
    assert ImageTrial(**configuration) == TRIAL


@pytest.mark.parametrize(
    "change, message",
    [
        ({"dataset": "svhn"}, "dataset must be one of cifar-mnist, fmnist-mnist, not 'svhn'"),
        ({"method": "muon"}, f"method must be one of {METHODS}, not 'muon'"),
        ({"method": "adam", "rho": 0.1}, "rho must be 0 where method is 'adam', not 0.1"),
        ({"lr": 0}, "lr must be above 0"),
        ({"lr": math.nan}, "lr must be a finite number"),
        ({"lr": "0.1"}, "lr must be a finite number of at least 0, not '0.1'"),
        ({"momentum": 1}, "momentum below 1"),
        ({"rho": 0.1}, "rho must be 0 where method is 'sgd', not 0.1"),
        ({"rho": -1}, "rho must be a finite number"),
        ({"epochs": -1}, "epochs must be a whole number of at least 0, not -1"),
        ({"epochs": 2.0}, "epochs must be a whole"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"seed": True}, "seed must be"),
        ({"train_limit": 0}, "train_limit must be"),
    ],
)
def test_wrong_value_is_refused_in_one_line(change, message):
    with pytest.raises(ValueError, match=message) as caught:
        replace(TRIAL, **change)
    assert "\n" not in str(caught.value)


def write_sweep(store: Store, leave_out: int = 0, **validation_errors: dict) -> None:
    """A made-up sweep: validation error .5, or that of `validation_errors`; the loss falls with rho."""
    for trial in grid("cifar-mnist")[leave_out:]:
        error = validation_errors.get("at", {}).get((trial.lr, trial.rho), 0.5)
        store.write(
            {
                "configuration": trial.configuration,
                "status": "finished",
                "metrics": {"validation_error": error, "validation_loss": 1 - trial.rho},
            }
        )


def test_setting_is_selected_by_validation_error_then_loss_for_each_method(store):
    write_sweep(store, at={(0.01, 0.0): 0.2, (0.05, 0.1): 0.1, (0.1, 0.01): 0.1})
    chosen = selected("cifar-mnist", store)
    assert {name: (trial.method, trial.lr, trial.rho) for name, trial in chosen.items()} == {
        "sgd": ("sgd", 0.01, 0),
        "sam": ("sam", 0.05, 0.1),
        "lsam": ("lsam", 0.05, 0.1),
    }
    with pytest.raises(ValueError, match="records must hold a finished trial of lsam"):
        select(store, "lsam")


def test_diverged_trials_are_never_selected(store):
    write_sweep(store)
    for trial in grid("cifar-mnist"):
        if (trial.lr, trial.rho) != (0.1, 0.01):
            store.write({"configuration": trial.configuration, "status": "diverged", "metrics": None})
    assert select(store, "sam").lr == 0.1
    with pytest.raises(ValueError, match="a finished trial of sgd"):
        selected("cifar-mnist", store)


def test_plan_is_the_sweep_and_then_the_selected_settings_on_every_seed(store):
    write_sweep(store, leave_out=1)
    before = plan("cifar-mnist", store, seeds=4)
    assert len(before.trials) == 21 and before.later == 22
    write_sweep(store)
    after = plan("cifar-mnist", store, seeds=4)
    assert after.later == 0 and len({trial.identity for trial in after.trials}) == 21 + 22
    methods = [trial.method for trial in after.trials[21:] if isinstance(trial, ImageTrial) and trial.epochs]
    assert methods == 4 * ["sgd", "sam", "lsam"]


def test_shortfalls_name_what_the_protocol_lacks_until_nothing_does(store):
    reduced = [replace(TRIAL, train_limit=50)]
    assert shortfalls(reduced, store) == [
        "1 of 20 epochs",
        "1 of 4 seeds",
        "0 of 21 settings of the sweep",
        "batch_size 10",
        "train_limit 50",
    ]
    write_sweep(store)
    settings = selected("cifar-mnist", store)
    assert shortfalls(comparison(settings, 4), store) == []
    other = {**settings, "sam": replace(settings["sam"], rho=0.01)}
    assert shortfalls(comparison(other, 4), store) == ["another setting than the selected one"]


def test_grid_is_the_papers():
    trials = grid("fmnist-mnist")
    assert len({trial.identity for trial in trials}) == 21
    assert {trial.lr for trial in trials} == {0.01, 0.05, 0.1}
    assert {trial.rho for trial in trials} == {0, 0.01, 0.03, 0.05, 0.07, 0.1, 0.2}
    assert all(
        (trial.method == "sgd") == (trial.rho == 0)
        and trial.epochs == table1.EPOCHS == 20
        and trial.momentum == 0.9
        and trial.batch_size == 100
        and trial.weight_decay == 0
        for trial in trials
    )


def test_comparison_pairs_every_method_by_seed():
    trials = comparison(one_setting("cifar-mnist", lr=0.05, rho=0.1, epochs=3), seeds=2)
    kinds = [(trial.method, trial.rho, trial.epochs) for trial in trials]
    assert kinds == 2 * [("sgd", 0, 0), ("sgd", 0, 3), ("sam", 0.1, 3), ("lsam", 0.1, 3)]
    assert [trial.seed for trial in trials] == 4 * [0] + 4 * [1]
    others = comparison(one_setting("cifar-mnist", lr=0.1, rho=0.2, epochs=3), seeds=2)
    assert [trial.epochs for trial in set(trials) & set(others)] == [0, 0], "the untrained nets, whatever the setting"


def test_table_tells_easy_from_hard_by_sgd_and_pairs_differences_by_seed():
    def record(method: str, seed: int, cifar: float, mnist: float, **changes) -> dict:
        trial = replace(TRIAL, method=method, seed=seed, **changes)
        return {
            "configuration": trial.configuration,
            "status": "finished",
            "metrics": {
                "test_error": {"error": 0.0},
                "probing_error": {"cifar": {"error": cifar}, "mnist": {"error": mnist}},
                "classifier_error": {"cifar": {"error": 0.5}, "mnist": {"error": 0.0}},
            },
        }

    records = [
        record("sgd", 0, 0.2, 0.1),
        record("sgd", 1, 0.3, 0.1),
        record("sgd", 2, 0.9, 0.1),
        record("sgd", 0, 0.0, 0.9, epochs=0),
        record("sam", 1, 0.2, 0.4),
        record("sam", 0, 0.1, 0.4),
        {**record("sam", 2, 0, 0), "status": "diverged", "metrics": None},
    ]
    rows = table(records)
    assert easy_and_hard(rows, "cifar-mnist") == ("mnist", "cifar")
    assert errors(rows, "cifar-mnist", "sam", "cifar").to_dict() == {0: 0.1, 1: 0.2}
    change = difference(rows, "cifar-mnist", "sam", "sgd", "cifar")
    assert change.n == 2 and change.mean == pytest.approx(-0.1) and change.spread == pytest.approx(0)
    assert errors(rows, "cifar-mnist", "untrained", "mnist").to_dict() == {0: 0.9}
    assert errors(rows, "cifar-mnist", "sam", "answer cifar").to_dict() == {0: 0.5, 1: 0.5}
    with pytest.raises(ValueError, match="rows must hold sam on cifar-mnist at one setting"):
        errors(table([*records, record("sam", 0, 0, 0, lr=0.1)]), "cifar-mnist", "sam", "test")


def test_net_reads_pairs_of_two_classes(place):
    reading = read_pairs(replace(TRIAL, epochs=3), 5, place)
    first, second = reading.attributes.values()
    assert len(reading.images) == len(reading.answers) == 5 and (first != second).all()
    assert set(reading.probed) == set(reading.attributes) and all(len(read) == 5 for read in reading.probed.values())


def test_stored_untrained_net_is_found_again_in_the_images():
    trial = ImageTrial("cifar-mnist", "sgd", epochs=0)
    record = Store().read(trial.configuration)
    if record is None or not pairs.available("cifar-mnist"):
        pytest.skip("needs the images of CIFAR-MNIST under the data root (SAM_DATA_ROOT)")
    again = trial.run(Place(device="cpu", checkpoints=None))["metrics"]
    assert again["validation_loss"] == pytest.approx(record["metrics"]["validation_loss"], rel=1e-4)
    for attribute, rate in record["metrics"]["probing_error"].items():
        assert again["probing_error"][attribute]["error"] == pytest.approx(rate["error"], abs=0.01)
