from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from image_trees import COUNTS, write_birds, write_celeba, write_domains

from book import natural_plans
from book.experiments import experiments
from book.natural_plans import Protocol, grid, plan, select, selected
from book.real_data_table import table
from lib import training
from lib.data import domains, groups
from lib.data.transforms import draw_crops, normalise
from lib.importance import gini, probe_contributions, real_and_phantom_weights
from lib.natural_images import NaturalImages
from lib.resnet import FreshLayersWarning, ResNet18
from lib.trials import domain, group_weights, grouped, run
from lib.trials.domain import DomainTrial
from lib.trials.group_weights import GroupWeightTrial, binned, mapped
from lib.trials.grouped import GroupTrial, weighted_mean
from lib.trials.natural import NaturalTrial
from lib.trials.store import Store
from lib.trials.trial import Place

CPU = torch.device("cpu")
SETTINGS = dict(epochs=1, batch_size=12, size=32, weights="none", lr=0.01)
BIRDS = GroupTrial("waterbirds", method="sgd", **SETTINGS)
PACS = DomainTrial("pacs", "P", method="sgd", **{**SETTINGS, "batch_size": 30})


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A data root with tiny generated images of one colour each."""
    folder = tmp_path_factory.mktemp("data")
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
def nowhere(root) -> Place:
    return Place(root, "cpu", checkpoints=None)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


def without_time(record: dict) -> dict:
    return {key: value for key, value in record.items() if key != "seconds"}


def natural(count: int = 10, seed: int = 0) -> NaturalImages:
    random = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, 3, 32, 32), generator=random, dtype=torch.uint8)
    return NaturalImages.of(images, torch.arange(count) % 2, CPU)


def test_images_are_plain_in_evaluation_and_keep_their_order():
    images = natural()
    inputs, labels = images.batch(torch.tensor([3, 1]))
    assert torch.equal(inputs, normalise(images.pixels.permute(0, 3, 1, 2)[[3, 1]]))
    assert labels.tolist() == [1, 1]
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images.batch(slice(2, 5))[0], images.batch(torch.tensor([2, 3, 4]))[0])


def test_crops_depend_on_seed_and_epoch_only():
    images, which = natural(), torch.tensor([7, 2, 4])
    first = images.at_epoch(0, 0).batch(which)[0]
    assert torch.equal(images.at_epoch(0, 0).batch(which)[0], first)
    assert torch.equal(images.at_epoch(0, 0).batch(torch.tensor([2]))[0], first[1:2]), "not on the batch"
    assert not torch.equal(images.at_epoch(1, 0).batch(which)[0], first)
    assert not torch.equal(images.at_epoch(0, 1).batch(which)[0], first)
    assert torch.equal(images.at_epoch(0, 5).at_epoch(0, 0).batch(which)[0], first)
    assert torch.equal(images.at_epoch(3, 2).crops.boxes, draw_crops(10, 32, 3, 2).boxes)
    assert images.crops is None, "the images themselves stay plain"


def test_training_sees_the_crops_of_its_seed_and_epoch_and_evaluation_none(monkeypatch):
    images, asked, seen = natural(), [], []
    at_epoch, batch = NaturalImages.at_epoch, NaturalImages.batch
    monkeypatch.setattr(
        NaturalImages, "at_epoch", lambda self, seed, epoch: asked.append((seed, epoch)) or at_epoch(self, seed, epoch)
    )
    monkeypatch.setattr(
        NaturalImages, "batch", lambda self, which: seen.append(self.crops is not None) or batch(self, which)
    )
    model = training.initial_model(ResNet18, 2, seed=0, device=CPU)
    training.train(
        model,
        training.make_optimizer("sgd", model, 0.0, lr=0.01),
        images,
        natural(seed=1),
        epochs=2,
        batch_size=5,
        seed=4,
    )
    assert asked == [(4, 0), (4, 1)] and seen == 2 * [True, True, False]


@pytest.mark.parametrize("trial", [BIRDS, PACS], ids=["groups", "domains"])
def test_methods_of_one_seed_share_data_weights_batches_and_crops(trial, nowhere, monkeypatch):
    seen: list[list] = []

    def look(model, optimizer, inputs, labels):
        seen[-1].append((model.head.weight.detach().clone(), inputs, labels))
        return torch.zeros(())

    monkeypatch.setattr(training, "take_step", look)
    monkeypatch.setattr(grouped, "measure", lambda *arguments: {})
    monkeypatch.setattr(domain, "measure", lambda *arguments: {})
    for changes in ({}, {"method": "sam", "rho": 0.1}, {"method": "lsam", "rho": 0.1}, {"seed": 1}):
        seen.append([])
        replace(trial, **changes).run(nowhere)
    sgd, sam, lsam, other = seen
    for paired in (sam, lsam):
        assert all(
            torch.equal(a, b) for one, two in zip(sgd, paired, strict=True) for a, b in zip(one, two, strict=True)
        )
    assert not torch.equal(sgd[0][0], other[0][0]) and not torch.equal(sgd[0][1], other[0][1])


@pytest.mark.parametrize(
    ("trial", "rho"), [(replace(BIRDS, method="sam"), 0.05), (PACS, 0.0)], ids=["groups", "domains"]
)
def test_record_is_plain_json_without_a_path_and_the_same_again(trial, rho, nowhere, root, tmp_path):
    state = {key.removeprefix("body."): value for key, value in ResNet18(2).body.state_dict().items()}
    file = tmp_path / "own.pt"
    torch.save({key: value for key, value in state.items() if not key.startswith("layer4")}, file)
    trial = replace(trial, rho=rho, weights=str(file))
    with pytest.warns(FreshLayersWarning, match="own.pt leaves"):
        record = trial.run(nowhere)
    text = json.dumps(record, allow_nan=False)
    assert json.loads(text) == record and record["status"] == "finished"
    assert str(tmp_path) not in text and str(root) not in text
    assert record["configuration"]["weights"] == "own.pt" == record["weights"]["name"]
    assert len(record["weights"]["sha256"]) == 64 and record["weights"]["fresh"] == ["layer4", "fc"]
    with pytest.warns(FreshLayersWarning):
        assert without_time(trial.run(nowhere)) == without_time(record)


def test_group_metrics_are_complete_and_weighted_by_the_groups_of_training(nowhere):
    record = BIRDS.run(nowhere)
    metrics, data = record["metrics"], groups.load("waterbirds", 32, 0, nowhere.root)
    model = grouped.train(BIRDS, data, CPU, nowhere).model.eval()
    shares = np.array([20, 3, 2, 11]) / 36  # of the tree's training images
    for split, found in ((data.validation, metrics["validation_error"]), (data.test, metrics["test_error"]["error"])):
        with torch.no_grad():
            wrong = (model(normalise(split.images)).argmax(1) != split.labels).numpy()
        errors = [wrong[split.groups == group].mean() for group in range(4)]
        assert found == pytest.approx(shares @ errors)
    assert metrics["test_error"]["worst_group_error"] == pytest.approx(max(errors))
    named = metrics["test_error"]["groups"]
    assert [named[name]["error"] for name in data.group_names] == pytest.approx(errors)
    assert [rate["examples"] for rate in named.values()] == [COUNTS[2, y, a] for y in (0, 1) for a in (0, 1)]
    assert set(metrics["probing_error"]) == set(metrics["classifier_error"]) == {"bird", "place"}
    for rate in (*named.values(), *metrics["probing_error"].values(), *metrics["classifier_error"].values()):
        assert rate["low"] - 1e-9 <= rate["error"] <= rate["high"] + 1e-9
    assert metrics["probing_error"]["bird"]["examples"] == 20
    assert record["images"] == {"train": 36, "validation": 19, "test": 32, "probe_train": 8, "probe_test": 20}
    rows = table([record])  # chapter 7 reads it as it reads the paired sets
    assert set(rows.measure) == {"test", "worst group", "bird", "place", "answer bird", "answer place"}


def test_weighted_mean_agrees_with_a_hand_computation():
    values, group = torch.tensor([1.0, 3.0, 10.0, 20.0, 5.0]), torch.tensor([0, 0, 1, 2, 3])
    assert weighted_mean(values, group, torch.tensor([0.5, 0.3, 0.1, 0.1]).double()) == pytest.approx(
        0.5 * 2 + 0.3 * 10 + 0.1 * 20 + 0.1 * 5
    )


def test_domain_metrics_are_measured_on_the_target_alone(nowhere, monkeypatch):
    probed = []
    fit = domain.probes.linear_probe
    monkeypatch.setattr(
        domain.probes,
        "linear_probe",
        lambda *arguments, **options: probed.append(arguments) or fit(*arguments, **options),
    )
    record = PACS.run(nowhere)
    metrics = record["metrics"]
    data = domains.load("pacs", "P", 32, 0, nowhere.root)
    ((phi, truth, test_phi, test_truth, name),) = probed
    assert torch.equal(truth[name], data.target_train.labels) and len(phi) == len(data.target_train)
    assert torch.equal(test_truth[name], data.target_test.labels) and len(test_phi) == len(data.target_test)
    assert record["images"]["train"] + record["images"]["validation"] == 3 * 31
    for rate in (metrics["probing_error"]["class"], metrics["classifier_error"]["class"]):
        assert rate["examples"] == len(data.target_test) and 0 <= rate["error"] <= 1
    assert 0 <= metrics["validation_error"] <= 1 and metrics["validation_loss"] > 0


@pytest.mark.parametrize("method", ["sgd", "sam"])
def test_training_that_was_cut_off_goes_on_to_the_same_record(method, place, nowhere, monkeypatch):
    trial = replace(BIRDS, method=method, rho=0.05 * (method == "sam"), epochs=3)
    undisturbed = trial.run(nowhere)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    evaluate, calls = training.evaluate, []

    def cut_off(*arguments):
        calls.append(None)
        if len(calls) == 2:  # the second epoch's: one is in the checkpoint
            raise KeyboardInterrupt
        return evaluate(*arguments)

    monkeypatch.setattr(training, "evaluate", cut_off)
    with pytest.raises(KeyboardInterrupt):
        trial.run(place)
    again = trial.run(place)
    assert len(calls) == 2 + 2, "two more epochs"
    assert without_time(again) == without_time(undisturbed)
    monkeypatch.setattr(training, "take_step", None)  # training would fail: the net is kept
    assert trial.run(place)["metrics"] == again["metrics"]


def test_diverged_trial_has_its_step_and_no_metrics(nowhere):
    record = replace(BIRDS, lr=1e30).run(nowhere)
    assert record["status"] == "diverged" and record["diverged_at"] is not None and record["metrics"] is None


MISSING = {
    "published images": (GroupTrial("celeba", method="sgd"), "python -m lib.data.sources --download celeba"),
    "images of a benchmark": (DomainTrial("vlcs", "L", method="sgd"), "--download vlcs"),
    "images that are not published": (GroupTrial("birds_on_scenes", method="sgd"), "copy its folder there"),
    "weights": (replace(BIRDS, weights="absent.pt"), "absent.pt was looked for"),
    "weights at a path": (replace(PACS, weights="elsewhere/absent.pt"), "elsewhere/absent.pt was looked for"),
}


@pytest.mark.parametrize("kind", MISSING)
def test_what_is_missing_is_said_in_one_line_with_the_way_to_get_it(kind, place):
    trial, message = MISSING[kind]
    lacking = trial.lacks(place)
    assert message in lacking and "\n" not in lacking
    if isinstance(trial, GroupTrial):
        assert GroupWeightTrial(trial, 0.1).lacks(place) == lacking
    assert BIRDS.lacks(place) is None is PACS.lacks(place)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(dataset="birds"), "dataset must be one of waterbirds, celeba, birds_on_scenes, not 'birds'"),
        (dict(method="sdg"), "method must be one of sgd, sam, lsam"),
        (dict(rho=0.1), "rho must be 0 where method is 'sgd', not 0.1"),
        (dict(lr=0), "lr must be above 0"),
        (dict(lr=math.nan), "lr must be a finite number of at least 0"),
        (dict(epochs=1.5), "epochs must be a whole number of at least 0"),
        (dict(batch_size=0), "batch_size must be a whole number of at least 1"),
        (dict(size=4), "size must be a whole number from 8"),
        (dict(weights=""), "weights must be"),
    ],
)
def test_wrong_values_are_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        replace(BIRDS, **changes)
    assert "\n" not in str(caught.value)


def test_wrong_domain_or_measurement_is_refused():
    with pytest.raises(ValueError, match="target must be one of A, C, P, S, not 'L'"):
        replace(PACS, target="L")
    with pytest.raises(ValueError, match="benchmark must be one of pacs, vlcs, office_home, not 'mnist'"):
        replace(PACS, benchmark="mnist")
    wrong = {
        (0,): "rho must be",
        (0.1, 2): "epoch must be None or a number from 0 to 1",
        (0.1, None, 0): "batch_size must be",
        (0.1, None, 9, 0): "batches must be None or at least 1",
    }
    for arguments, message in wrong.items():
        with pytest.raises(ValueError, match=message):
            GroupWeightTrial(BIRDS, *arguments)


def test_identity_depends_on_every_field_but_not_on_where_the_weights_lie():
    changes = dict(
        dataset="celeba",
        method="sam",
        lr=0.1,
        epochs=2,
        batch_size=7,
        momentum=0.5,
        weight_decay=0.0,
        seed=1,
        size=64,
        weights="some.pt",
    )
    others = [replace(BIRDS, **{name: value}) for name, value in changes.items()]
    others += [replace(BIRDS, method="sam", rho=0.1), PACS, replace(PACS, target="A")]
    others += [GroupWeightTrial(BIRDS, 0.1), GroupWeightTrial(BIRDS, 0.2), GroupWeightTrial(BIRDS, 0.1, 0)]
    assert len({trial.identity for trial in [BIRDS, *others]}) == 1 + len(others)
    here, there = (replace(BIRDS, weights=f"{place}/w.pt") for place in ("/a", "/b/c"))
    assert here.identity == there.identity == replace(BIRDS, weights="w.pt").identity
    assert GroupWeightTrial(BIRDS, 0.1, 1) == GroupWeightTrial(BIRDS, 0.1), "the end has one name"
    for trial in (BIRDS, PACS, GroupWeightTrial(BIRDS, 0.1)):
        assert json.loads(json.dumps(trial.configuration)) == trial.configuration


@pytest.mark.parametrize("batches, count", [(None, 36), (3, 27)])
def test_weights_agree_with_a_direct_computation_on_the_kept_net(batches, count, place, monkeypatch):
    trial = GroupWeightTrial(BIRDS, rho=0.1, batch_size=9, batches=batches)
    BIRDS.run(place)
    monkeypatch.setattr(training, "take_step", None)  # training would fail
    record = trial.run(place)
    metrics = record["metrics"]
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    data = groups.load("waterbirds", 32, 0, place.root)
    model = grouped.train(BIRDS, data, CPU, place, place.checkpoint(BIRDS)).model.eval()
    images, kept = normalise(data.train.images), {name: b.clone() for name, b in model.named_buffers()}
    order = torch.cat(training.batch_order(0, 0, 36, 9)[:batches])
    optimizer = training.make_optimizer("sam", model, 0.1, lr=0.01)
    real, phantom = (
        weights.numpy()
        for weights in real_and_phantom_weights(
            model, optimizer, images[order], data.train.labels[order], F.cross_entropy, 9
        )
    )
    for found, weights in ((metrics["real"], real), (metrics["phantom"], phantom)):
        assert found["gini"] == pytest.approx(float(gini(weights)), rel=1e-4) and found["points"] == count
        assert found["mean"] == pytest.approx(weights.mean(), rel=1e-4)
    assert metrics["phantom"]["mean"] > metrics["real"]["mean"], "uphill the net fits worse"
    assert metrics["median_ratio"] == pytest.approx(np.median(phantom / real), rel=1e-3)
    assert all(torch.equal(b, kept[name]) for name, b in model.named_buffers()), "batch norm stays"

    phi = training.features(model, grouped.as_images(data.train, CPU))
    for name, probe in grouped.fit_probes(model, data, CPU).items():
        for reading, signs in (("label", data.train.labels), ("attribute", data.train.attributes[name])):
            contribution = probe_contributions(phi, signs.numpy(), probe)[order]
            worst = contribution <= np.quantile(contribution, 0.25)
            found = metrics["contributions"][reading]["attributes"][name]
            assert found["worst_share"]["real"] == pytest.approx(real[worst].sum() / real.sum(), rel=1e-3)
            assert sum(found["bins"]["images"]) == count and len(found["bins"]["real"]) == group_weights.BINS
            heaviest = np.argsort(contribution, kind="stable")[:2]  # 36 images in 20 bins: two in the first
            assert found["bins"]["phantom"][0] == pytest.approx(np.median(phantom[heaviest]), rel=1e-3)
    by_label, own = (metrics["contributions"][reading] for reading in ("label", "attribute"))
    assert by_label["map"]["attributes"] == own["map"]["attributes"] == ["bird", "place"]
    assert by_label["attributes"]["bird"]["bins"] == own["attributes"]["bird"]["bins"], "the label itself"
    assert by_label["attributes"]["place"]["bins"] != own["attributes"]["place"]["bins"]


def test_an_attribute_goes_with_the_label_as_it_does_in_training():
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    split = groups.GroupedSplit(
        torch.empty(6),
        labels,
        {"label": labels, "with": torch.tensor([0, 0, 1, 1, 1, 1]), "against": torch.tensor([1, 1, 0, 0, 0, 0])},
        labels,
    )
    found = group_weights._going_with_label(split)
    assert all(torch.equal(found[name], labels) for name in ("label", "with"))
    assert torch.equal(found["against"], 1 - labels)


def test_bins_hold_the_medians_of_their_images():
    random = np.random.default_rng(0)
    first, second = random.normal(size=(2, 1000))
    values = {"real": first + 10, "phantom": second + 10}
    bins = binned(first, values, bins=10)
    assert bins["images"] == 10 * [100] and bins["contribution"] == sorted(bins["contribution"])
    np.testing.assert_allclose(bins["real"], np.array(bins["contribution"]) + 10, rtol=1e-3)
    assert np.ptp(bins["phantom"]) < 0.7 < np.ptp(bins["real"]), "the other is independent"
    assert binned(first[:3], {}, bins=10)["images"] == [1, 1, 1]
    grid_ = mapped({"a": first, "b": second}, values, bins=4)
    assert grid_["attributes"] == ["a", "b"] and np.array(grid_["images"]).sum() > 970
    assert grid_["real"][0][1] < grid_["real"][3][1] and grid_["phantom"][1][0] < grid_["phantom"][1][3]


def test_slopes_tell_the_contributions_apart():
    random = np.random.default_rng(1)
    first, noise = random.normal(size=(2, 500))
    second = 100 * (first + noise)  # correlated, and in other units
    slopes = group_weights._slopes([first, second], 0.5 * first - 0.02 * second)
    assert slopes == pytest.approx([0.5 * first.std(), -0.02 * second.std()])


def test_net_within_training_is_that_of_its_epoch(place, monkeypatch):
    trial = replace(BIRDS, epochs=3)
    data = groups.load("waterbirds", 32, 0, place.root)
    heads, seen = [], []
    with monkeypatch.context() as looking:
        evaluate = training.evaluate
        looking.setattr(
            training,
            "evaluate",
            lambda model, images: heads.append(model.head.weight.detach().clone()) or evaluate(model, images),
        )
        grouped.train(trial, data, CPU, place)
    monkeypatch.setattr(
        group_weights, "measure", lambda trial, model, *others: seen.append(model.head.weight.clone()) or {}
    )
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    for epoch in (1, 2, None):
        GroupWeightTrial(trial, 0.1, epoch).run(place)
    assert all(torch.equal(head, found) for head, found in zip(heads, seen, strict=True))
    names = {path.stem for path in place.checkpoints.glob("*.pt")}
    assert names == {trial.identity}, "of a net in the midst of its training nothing else is kept"


def test_training_goes_on_from_the_net_that_was_measured_within_it(place, monkeypatch):
    trial = replace(BIRDS, epochs=3)
    whole = trial.run(replace(place, checkpoints=None))
    monkeypatch.setattr(group_weights, "measure", lambda *_: {})
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    GroupWeightTrial(trial, 0.1, 2).run(place)
    asked, at_epoch = [], NaturalImages.at_epoch
    monkeypatch.setattr(
        NaturalImages, "at_epoch", lambda self, seed, epoch: asked.append(epoch) or at_epoch(self, seed, epoch)
    )
    later = trial.run(place)
    assert asked == [2] and later["metrics"] == whole["metrics"] and later["curve"] == whole["curve"]
    net = place.checkpoint(trial)
    finished = net.read_bytes()
    GroupWeightTrial(trial, 0.1, 1).run(place)
    assert net.read_bytes() == finished, "a finished net is not replaced"
    assert {path.stem for path in place.checkpoints.glob("*.pt")} == {trial.identity}


def write_sweep(store: Store, sweep: list[NaturalTrial], at: dict | None = None) -> None:
    """Made-up records: validation error .5, or that `at` (lr, rho); the loss falls with rho."""
    for trial in sweep:
        error = (at or {}).get((trial.lr, trial.rho), 0.5)
        metrics = {"validation_error": error, "validation_loss": 1 - trial.rho}
        store.write({"configuration": trial.configuration, "status": "finished", "metrics": metrics})


def test_setting_is_selected_by_validation_error_then_loss_for_each_method(store):
    protocol = natural_plans.groups_reduced("celeba")
    sweep = grid(protocol)
    write_sweep(store, sweep[1:])
    assert selected(protocol, store) is None
    write_sweep(store, sweep, at={(0.001, 0.0): 0.2, (0.01, 0.02): 0.1, (0.001, 0.07): 0.1})
    chosen = {name: (trial.lr, trial.rho) for name, trial in selected(protocol, store).items()}
    assert chosen == {"sgd": (0.001, 0), "sam": (0.001, 0.07)}
    for trial in sweep[:2]:
        store.write({"configuration": trial.configuration, "status": "diverged", "metrics": None})
    assert select(sweep[:2] + sweep[3:4], store) == sweep[3]
    with pytest.raises(ValueError, match="all 2 of celeba with sgd diverged"):
        select(sweep[:2], store)


def test_group_plan_is_the_sweep_and_then_seeds_and_weights(store):
    protocol = natural_plans.groups_reduced("birds_on_scenes")
    before = plan([protocol], store, seeds=4)
    assert len(before.trials) == 6 == len(grid(protocol))
    write_sweep(store, grid(protocol), at={(0.01, 0.07): 0.1})
    after = plan([protocol], store, seeds=4)
    assert after.later == 0 and len(after.trials) == 6 + before.later
    assert len({trial.identity for trial in after.trials}) == len(after.trials)
    nets = [trial for trial in after.trials if isinstance(trial, GroupTrial)]
    measured = [trial for trial in after.trials if isinstance(trial, GroupWeightTrial)]
    assert {trial.seed for trial in nets} == {0, 1, 2, 3} and len(measured) == 4 * 2 * 2
    assert {trial.epoch for trial in measured} == {*protocol.moments, None} == {1, None}
    assert {trial.batches for trial in measured} == {natural_plans.REDUCED_BATCHES}
    assert {trial.of for trial in measured} <= set(nets) and {trial.rho for trial in measured} == {0.07}


def test_reduced_pacs_needs_no_selection(store):
    trials = plan(natural_plans.domains_reduced("pacs"), store, seeds=3)
    assert trials.later == 0 and len(trials.trials) == 4 * 3 * 3
    assert {(trial.target, trial.method, trial.seed) for trial in trials.trials if trial.epochs} == {
        (target, method, seed) for target in "ACPS" for method in ("sgd", "sam") for seed in range(3)
    }


def test_full_protocols_are_the_papers():
    for dataset, epochs in (("celeba", 20), ("waterbirds", 100)):
        sweep = grid(natural_plans.groups_full(dataset))
        assert len(sweep) == 20 and {trial.lr for trial in sweep} == {0.0005, 0.001, 0.005, 0.01}
        assert {trial.rho for trial in sweep} == {0, 0.01, 0.02, 0.05, 0.07}
        assert all(
            (trial.method == "sgd") == (trial.rho == 0)
            and trial.epochs == epochs
            and trial.seed == 0
            and trial.batch_size == 128
            and trial.momentum == 0.9
            and trial.weight_decay > 0
            and trial.weights == "imagenet"
            for trial in sweep
        )
    for benchmark in domains.NAMES:
        protocols = natural_plans.domains_full(benchmark)
        assert [protocol.base.target for protocol in protocols] == list(domains.BENCHMARKS[benchmark].domains)
        assert all({trial.rho for trial in grid(protocol)} == {0, 0.03, 0.05, 0.1} for protocol in protocols)


def test_experiments_on_natural_images_say_what_is_reduced():
    known = experiments()
    for name in ("celeba", "birds-on-scenes", "pacs"):
        assert "reduced" in known[name].about
    for name in ("celeba-full", "waterbirds-full", "pacs-full", "vlcs-full", "office-home-full"):
        assert "the paper's protocol" in known[name].about
    assert all(known[name].store.folder.name == "natural" for name in ("celeba", "vlcs-full"))


def test_whole_plan_is_computed_from_the_images_of_another_set(tmp_path, store, monkeypatch):
    write_celeba(tmp_path)
    place = Place(tmp_path, "cpu", checkpoints=tmp_path / "checkpoints")
    protocol = Protocol(replace(BIRDS, dataset="celeba"), rates=(0.01,), radii=(0.05,))
    (sgd, sam, *rest), later = plan([protocol], store, seeds=1).trials, plan([protocol], store, seeds=1).later
    assert later == 0 and len(rest) == 3 and rest[0] == replace(sgd, epochs=0, lr=protocol.base.lr)
    records = run([sgd, sam, *rest], store, place, progress=False)
    assert [record["status"] for record in records] == 5 * ["finished"]
    assert set(records[0]["metrics"]["probing_error"]) == {"hair", "gender"}
    assert all(
        set(record["metrics"]["contributions"]["label"]["attributes"]) == {"hair", "gender"} for record in records[3:]
    )
