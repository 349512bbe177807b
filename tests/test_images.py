"""Trials on images, of every family of sets: what they are named, what they compute, and where a training goes on."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from image_trees import COUNTS, write_birds, write_domains
from images import write_cifar_folder, write_mnist

from book import real_data
from book.image_trial import ImageTrial, domain, grouped, paired
from book.weight_trial import WeightTrial
from lib import measure, training
from lib.checkpoint import CheckpointWarning
from lib.data.domains import Domains
from lib.data.groups import Groups
from lib.data.pairs import Pair
from lib.data.sources import named
from lib.resnet import FreshLayersWarning, ResNet18
from lib.training import Images
from lib.trials import run
from lib.trials.store import ResultWarning, Store
from lib.trials.trial import MissingTrials, Place

SETTINGS = {"epochs": 1, "batch_size": 12, "size": 32, "weights": "none", "lr": 0.01}
PAIR = paired("cifar-mnist", "sgd", epochs=1, batch_size=10)
BIRDS = grouped("waterbirds", "sgd", **SETTINGS)
PACS = domain("pacs", "P", "sgd", **{**SETTINGS, "batch_size": 30})
TRIALS = {"pairs": PAIR, "groups": BIRDS, "domains": PACS}
of_every_family = pytest.mark.parametrize("trial", TRIALS.values(), ids=TRIALS.keys())
of_two_nets = pytest.mark.parametrize("trial", [PAIR, BIRDS], ids=["conv net", "ResNet-18"])


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A data root with tiny generated images."""
    folder = tmp_path_factory.mktemp("data")
    write_cifar_folder(folder, train=30, test=32)
    write_mnist(folder, train=30, test=32, classes=2)
    write_birds(folder)
    write_domains(folder)
    return folder


@pytest.fixture(autouse=True)
def own_cache(root, monkeypatch):
    monkeypatch.setenv("SAM_CACHE_ROOT", str(root / "cache"))


@pytest.fixture
def place(root, tmp_path) -> Place:
    return Place(root, "cpu", checkpoints=tmp_path / "checkpoints")


@pytest.fixture
def nothing_kept(root) -> Place:
    return Place(root, "cpu", checkpoints=None)


def at(trial: ImageTrial, method: str) -> ImageTrial:
    return replace(trial, method=method, rho=0.0 if method == "sgd" else 0.05)


def without_time(record: dict) -> dict:
    return {key: value for key, value in record.items() if key != "seconds"}


def interrupt(monkeypatch, at_evaluation: int) -> list:
    """Let the training be interrupted there, with a checkpoint after every epoch; the evaluations, as they come."""
    evaluate, calls = training.evaluate, []

    def interrupted(*arguments):
        calls.append(None)
        if len(calls) == at_evaluation:
            raise KeyboardInterrupt
        return evaluate(*arguments)

    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(training, "evaluate", interrupted)
    return calls


def steps_taken(monkeypatch) -> list[tuple]:
    """Every step's head before it, inputs and labels; no step is taken."""
    seen: list[tuple] = []

    def look(model, optimizer, inputs, labels):
        seen.append((model.head.weight.detach().clone(), inputs, labels))
        return torch.zeros(())

    monkeypatch.setattr(training, "take_step", look)
    monkeypatch.setattr(measure, "errors", lambda *_: {})
    return seen


def equal(first: list[tuple], second: list[tuple]) -> bool:
    return all(torch.equal(a, b) for one, two in zip(first, second, strict=True) for a, b in zip(one, two, strict=True))


@of_every_family
def test_record_is_plain_json_and_the_same_again(trial, nothing_kept):
    record = at(trial, "sam").run(nothing_kept)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["status"] == "finished" and record["diverged_at"] is None
    assert all(len(values) == 1 for values in record["curve"].values())
    assert record["seconds"]["total"] >= record["seconds"]["training"]
    assert {"torch", "scikit-learn"} < set(record["versions"]) and record["hardware"]["device"] == "cpu"
    assert without_time(at(trial, "sam").run(nothing_kept)) == without_time(record)
    assert at(replace(trial, seed=1), "sam").run(nothing_kept)["curve"] != record["curve"]


def test_record_names_the_initial_weights_without_a_path(nothing_kept, root, tmp_path):
    state = ResNet18(2).net.state_dict()
    torch.save({key: state[key] for key in state if not key.startswith(("layer4", "fc"))}, tmp_path / "own.pt")
    with pytest.warns(FreshLayersWarning, match="own.pt leaves"):
        record = replace(BIRDS, weights=tmp_path / "own.pt").run(nothing_kept)
    assert str(tmp_path) not in json.dumps(record) and str(root) not in json.dumps(record)
    assert record["configuration"]["weights"] == "own.pt" == record["weights"]["name"]
    assert len(record["weights"]["sha256"]) == 64 and record["weights"]["fresh"] == ["layer4", "fc"]


def test_record_counts_the_images_of_each_split_by_its_stored_name(nothing_kept):
    untrained = {name: replace(trial, epochs=0).run(nothing_kept) for name, trial in TRIALS.items()}
    assert untrained["pairs"]["curve"]["train_loss"] == []
    assert untrained["pairs"]["metrics"]["validation_loss"] == pytest.approx(math.log(2), abs=0.1)
    counts = {name: record.get("images") for name, record in untrained.items()}
    groups = {"train": 36, "validation": 19, "test": 32, "probe_train": 8, "probe_test": 20}
    domains = {"train": 84, "validation": 9, "target_train": 25, "target_test": 6}
    assert counts == {"pairs": None, "groups": groups, "domains": domains}


@of_every_family
def test_methods_of_one_seed_share_data_weights_batches_and_crops(trial, nothing_kept, monkeypatch):
    seen = steps_taken(monkeypatch)
    runs = []
    for one in (trial, at(trial, "sam"), at(trial, "lsam"), replace(trial, seed=1)):
        one.run(nothing_kept)
        runs.append(seen[:])
        seen.clear()
    sgd, sam, lsam, other = runs
    assert equal(sgd, sam) and equal(sgd, lsam)
    replace(trial, train_limit=25, batch_size=10).run(nothing_kept)
    assert [len(labels) for *_, labels in seen] == [10, 10, 5]
    assert not torch.equal(sgd[0][0], other[0][0]) and not torch.equal(sgd[0][1], other[0][1])


@of_two_nets
def test_diverged_trial_has_its_step_and_no_metrics(trial, place):
    record = replace(trial, lr=1e30).run(place)
    assert record["status"] == "diverged" and record["diverged_at"] in (1, 2) and record["metrics"] is None
    again = replace(trial, lr=1e30).run(place)
    assert without_time(again) == without_time(record), "the kept net is known to have diverged"


@pytest.mark.parametrize("method", ["sgd", "sam", "lsam"])
@of_two_nets
def test_training_that_was_cut_off_goes_on_to_the_same_record(trial, method, place, nothing_kept, monkeypatch):
    trial = replace(at(trial, method), epochs=3)
    undisturbed = trial.run(nothing_kept)
    with monkeypatch.context() as patch:
        calls = interrupt(patch, at_evaluation=2)  # the second epoch's: one is in the checkpoint
        with pytest.raises(KeyboardInterrupt):
            trial.run(place)
        again = trial.run(place)
    assert len(calls) == 2 + 2, "the second epoch, cut off, and from there on"
    assert without_time(again) == without_time(undisturbed)
    monkeypatch.setattr(training, "take_step", None)  # training would fail: the net is kept
    kept = trial.run(place)
    assert (kept["metrics"], kept["curve"]) == (again["metrics"], again["curve"])
    assert kept["seconds"]["training"] == again["seconds"]["training"]


def test_damaged_checkpoint_is_named_and_training_begins_anew(place):
    record = PAIR.run(place)
    path = place.checkpoint(PAIR)
    content = path.read_bytes()
    torch.save({"history": {}, "optimizer": None, "model": {"weight": torch.ones(3)}}, path)
    for damaged in (path.read_bytes(), content[: len(content) // 2], b""):  # the first is another net
        path.write_bytes(damaged)
        with pytest.warns(CheckpointWarning, match=path.name):
            assert PAIR.run(place)["metrics"] == record["metrics"]
        assert len(path.read_bytes()) == len(content), "a whole one takes its place"


@pytest.mark.parametrize("of", ["another method", "other data"])
def test_net_of_another_trial_or_of_other_data_is_not_taken_and_is_kept(place, tmp_path, of):
    sam = replace(PAIR, method="sam", rho=0.1)
    undisturbed = sam.run(replace(place, checkpoints=tmp_path / "other"))
    other = replace(place, root=smaller(tmp_path / "small")) if of == "other data" else place
    (sam if of == "other data" else PAIR).run(other)
    path = place.checkpoint(sam)
    if of == "another method":
        place.checkpoint(PAIR).rename(path)
    content = path.read_bytes()
    with pytest.warns(CheckpointWarning, match=f"{path.name}.*is of another training"):
        assert sam.run(place)["metrics"] == undisturbed["metrics"]
    assert path.with_suffix(".pt.unusable").read_bytes() == content
    assert sam.run(place)["metrics"] == undisturbed["metrics"]


def smaller(folder: Path) -> Path:
    """A data root with fewer images of the same sets."""
    write_cifar_folder(folder, train=20, test=32)
    write_mnist(folder, train=30, test=32, classes=2)
    write_birds(folder, counts=COUNTS | {(2, 0, 0): 4})
    write_domains(folder, images=9)
    return folder


@of_every_family
def test_experiment_computes_on_its_own_data_alone(trial, place, tmp_path):
    store, other = Store(tmp_path / "store", "cifar-mnist"), replace(place, root=smaller(tmp_path / "small"))
    (record,) = run([trial], store, place)
    fingerprint = trial.data.fingerprint(place.root)
    assert record["data"] == {trial.data.name: fingerprint} == store.fingerprints()["cifar-mnist"]
    copy = shutil.copytree(place.root, tmp_path / "copy")
    assert trial.data.fingerprint(copy) == fingerprint != trial.data.fingerprint(other.root)
    with pytest.raises(MissingTrials, match="other data .* than those of the experiment cifar-mnist") as caught:
        run([replace(trial, seed=1)], store, other)
    assert "\n" not in str(caught.value) and list(store) == [record]
    changed = json.loads(store.path(trial.configuration).read_text()) | {"data": {trial.data.name: "4 images abc"}}
    with pytest.raises(ValueError, match="other data"):
        store.write(changed)
    store.path(trial.configuration).write_text(json.dumps(changed))
    with pytest.warns(ResultWarning, match=r"other data \(4 images abc\)"):
        assert store.read(trial.configuration) is None


@pytest.mark.parametrize("name", ["cifar-mnist", "fmnist-mnist", "celeba", "birds_on_scenes", "pacs without A"])
def test_data_that_are_here_are_those_of_the_stored_records(name, monkeypatch):
    monkeypatch.delenv("SAM_CACHE_ROOT")
    source, kept = named(name), {own[name] for own in Store().fingerprints().values() if name in own}
    if source.lacks():
        pytest.skip(source.lacks())
    assert kept == {source.fingerprint()}


@pytest.mark.parametrize("method", ["sgd", "sam"])
@of_two_nets
def test_training_is_the_same_whether_or_not_it_was_measured_within(trial, method, place, nothing_kept, monkeypatch):
    trial = replace(at(trial, method), epochs=3)
    undisturbed = trial.run(nothing_kept)
    WeightTrial(trial, 0.1, 2).run(place)
    asked, at_epoch = [], Images.at_epoch
    with monkeypatch.context() as patch:
        patch.setattr(Images, "at_epoch", lambda *arguments: asked.append(arguments[2]) or at_epoch(*arguments))
        later = trial.run(place)
    assert asked == [2], "it goes on from there"
    assert without_time(later) == without_time(undisturbed)
    finished = place.checkpoint(trial).read_bytes()
    measured = WeightTrial(trial, 0.1, 1).run(place)
    assert measured["metrics"] == WeightTrial(trial, 0.1, 1).run(nothing_kept)["metrics"]
    assert place.checkpoint(trial).read_bytes() == finished, "a net of more epochs is not replaced"
    assert {path.stem for path in place.checkpoints.glob("*.pt")} == {trial.identity}


def test_net_within_training_is_that_of_its_epoch(place, nothing_kept, root, monkeypatch):
    trial = replace(BIRDS, epochs=3)
    data, device = trial.data.load(0, 32, root), torch.device("cpu")
    heads, evaluate = [], training.evaluate
    with monkeypatch.context() as patch:
        patch.setattr(
            training, "evaluate", lambda model, _: heads.append(model.head.weight.clone()) or evaluate(model, _)
        )
        trial.train(data, device, nothing_kept)
    for until in (2, 1, 3):
        net = trial.train(data, device, place, until)
        assert torch.equal(net.model.head.weight, heads[until - 1]) and len(net.history.train_loss) == until
    assert torch.equal(trial.train(data, device, place).model.head.weight, heads[2])


def test_stored_trials_need_no_images_and_missing_ones_are_named_with_the_command(place, tmp_path):
    store, nowhere = Store(tmp_path / "store"), Place(tmp_path / "nowhere", "cpu", checkpoints=None)
    run([PAIR], store, place)
    assert len(run([PAIR], store, nowhere)) == 1
    with pytest.raises(MissingTrials) as caught:
        run([PAIR, replace(PAIR, seed=1)], store, nowhere)
    message = str(caught.value)
    assert "1 of 2 trials" in message and "\n" not in message
    assert "SAM_DATA_ROOT" in message and "--download cifar10 mnist" in message
    assert caught.value._render_traceback_() == [f"MissingTrials: {message}"]


@pytest.mark.parametrize(
    ("trial", "message"),
    [
        (grouped("celeba", "sgd"), "--download celeba"),
        (domain("vlcs", "L", "sgd"), "--download vlcs"),
        (grouped("birds_on_scenes", "sgd"), "copy its folder"),
        (replace(BIRDS, weights="absent.pt"), "absent.pt was looked for"),
        (replace(PACS, weights="elsewhere/absent.pt"), "elsewhere/absent.pt was looked for"),
    ],
)
def test_what_is_missing_is_said_in_one_line_with_the_way_to_get_it(trial, message, place):
    assert message in trial.lacks(place) and "\n" not in trial.lacks(place)
    if isinstance(trial.data, Groups):
        assert WeightTrial(trial, 0.1).lacks(place) == trial.lacks(place)
    assert not any(there.lacks(place) for there in TRIALS.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "muon"}, "method must be one of sgd, sam, lsam, .*, not 'muon'"),
        ({"rho": 0.1}, "rho must be 0 where method is 'sgd', not 0.1"),
        ({"lr": 0}, "lr must be a finite number above 0, not 0"),
        ({"momentum": 1}, "momentum must be below 1, not 1"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, not 0"),
        ({"train_limit": 0}, "train_limit must be a whole number of at least 1, not 0"),
        ({"size": 4}, "size must be"),
        ({"weights": ""}, "weights must be 'imagenet', 'none' or a file, not ''"),
    ],
)
def test_wrong_value_is_refused_in_one_line(change, message):
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        replace(BIRDS, **change)
    assert "\n" not in str(caught.value)


def test_identity_depends_on_every_field_but_not_on_the_type_of_a_number_or_where_weights_lie():
    changes = dict(lr=0.2, epochs=2, batch_size=7, momentum=0.5, weight_decay=0.5, seed=1, train_limit=9, size=48)
    changes |= {"weights": "some.pt", "method": "sam", "data": Groups("celeba")}
    others = [replace(trial, **{name: value}) for trial in (PAIR, BIRDS) for name, value in changes.items()]
    others += [
        at(PAIR, "sam"),
        replace(PAIR, data=Pair("fmnist-mnist")),
        PACS,
        replace(PACS, data=Domains("pacs", "A")),
    ]
    others += [WeightTrial(BIRDS, *given) for given in ((0.1,), (0.2,), (0.1, 0), (0.1, None, 9))]
    others += [WeightTrial(replace(PAIR, epochs=2), 0.1, epoch) for epoch in (1, 2)]
    others += [WeightTrial(PAIR, 0.1, batches=2)]
    assert len({trial.identity for trial in [PAIR, BIRDS, *others]}) == 2 + len(others)
    for trial in others:
        assert json.loads(json.dumps(trial.configuration)) == trial.configuration
    here, there = (replace(BIRDS, weights=f"{place}/w.pt") for place in ("/a", "/b/c"))
    assert here.identity == there.identity == replace(BIRDS, weights="w.pt").identity
    assert replace(PAIR, weight_decay=0).identity == PAIR.identity
    assert WeightTrial(BIRDS, 0.1, 1) == WeightTrial(BIRDS, 0.1), "the end has one name"


def test_a_trial_says_in_which_epochs_its_radius_holds():
    early = replace(PAIR, method="sam", rho=0.1, epochs=4, ascent=(0, 1))
    assert early.configuration["ascent"] == [0, 1] and "in epochs 0 to 1" in early.label
    assert "ascent" not in replace(early, ascent=None).configuration
    for wrong in ((1, 1), (2, 1), (0, 5), (-1, 2), (1,)):
        with pytest.raises(ValueError, match="ascent must be two epochs"):
            replace(early, ascent=wrong)
    with pytest.raises(ValueError, match="ascent must be .* rho above 0"):
        replace(PAIR, epochs=4, ascent=(0, 1))


WRONG_MEASUREMENTS = {
    "rho": (0, "rho must be a finite number above 0, not 0"),
    "epoch": (2, "epoch must be a whole number of at least 0 and at most 1, not 2"),
    "batch_size": (0, "batch_size must be a whole number of at least 1, not 0"),
    "of": (PACS, "the kind of the trial must be one of images, groups, own pair, own table, not 'domains'"),
}


@pytest.mark.parametrize("name", WRONG_MEASUREMENTS)
def test_wrong_measurement_is_refused(name):
    value, message = WRONG_MEASUREMENTS[name]
    with pytest.raises(ValueError, match=message):
        WeightTrial(**{"of": BIRDS, "rho": 0.1, name: value})


def test_net_reads_pairs_of_two_classes_and_a_cross_marks_a_mistake(place):
    trial = replace(PAIR, epochs=3)
    images, words = real_data.read_pairs(trial, 5, place)
    data = trial.data.load(trial.seed, trial.size, place.root)
    first, second = data.probe_test.attributes.values()
    rows = (first != second).nonzero()[:5, 0]
    assert (images == data.probe_test.images[rows]).all() and len(words) == 5
    for row, line in zip(rows, words):
        answers, read = line.split("\n")
        assert answers in [f"SGD answers {name}," for name in ("CIFAR", "MNIST")]
        for name, word in zip(data.values, read.removeprefix("reads ").split(", ")):
            truth = data.values[name][data.probe_test.attributes[name][row]]
            assert (word == truth) is ("\N{BALLOT X}" not in word)


def test_stored_untrained_net_is_found_again_in_the_images():
    trial = paired("cifar-mnist", "sgd", epochs=0)
    record = Store().read(trial.configuration)
    if record is None or trial.lacks(Place()):
        pytest.skip("needs the images of CIFAR-MNIST under the data root (SAM_DATA_ROOT)")
    again = trial.run(Place(device="cpu", checkpoints=None))["metrics"]
    assert again["validation_loss"] == pytest.approx(record["metrics"]["validation_loss"], rel=1e-4)
    for attribute, rate in record["metrics"]["probing_error"].items():
        assert again["probing_error"][attribute]["error"] == pytest.approx(rate["error"], abs=0.01)
