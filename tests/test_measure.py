"""What is measured on a net: errors by group and on a target, weights by contribution."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from image_trees import COUNTS, write_birds, write_domains

from lib import device, measure, probes, training
from lib.data.dataset import Split
from lib.data.transforms import normalise
from lib.importance import gini, probe_contributions, real_and_phantom_weights
from lib.trials.images import domain, grouped
from lib.trials.trial import Place
from lib.trials.weights import WeightTrial

CPU = device.pick("cpu")
SETTINGS = {"epochs": 1, "batch_size": 12, "size": 32, "weights": "none", "lr": 0.01}
BIRDS = grouped("waterbirds", "sgd", **SETTINGS)
PACS = domain("pacs", "P", "sgd", **{**SETTINGS, "batch_size": 30})


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_birds(folder)
    write_domains(folder)
    return folder


@pytest.fixture
def place(root, tmp_path, monkeypatch) -> Place:
    monkeypatch.setenv("SAM_CACHE_ROOT", str(root / "cache"))
    return Place(root, "cpu", checkpoints=tmp_path / "checkpoints")


def test_errors_are_weighted_by_the_groups_of_training(place):
    record = BIRDS.run(place)
    metrics, data = record["metrics"], BIRDS.data.load(0, 32, place.root)
    model = BIRDS.train(data, CPU, place).model.eval()
    shares = np.array([20, 3, 2, 11]) / 36  # of the tree's training images
    for split, found in ((data.validation, metrics["validation_error"]), (data.test, metrics["test_error"]["error"])):
        with torch.no_grad():
            wrong = (model(normalise(split.images)).argmax(1) != split.labels).numpy()
        errors = [wrong[data.groups(split) == group].mean() for group in range(4)]
        assert found == pytest.approx(shares @ errors)
    assert metrics["test_error"]["worst_group_error"] == pytest.approx(max(errors))
    named = metrics["test_error"]["groups"]
    assert [named[name]["error"] for name in data.group_names] == pytest.approx(errors)
    assert [rate["examples"] for rate in named.values()] == [COUNTS[2, y, a] for y in (0, 1) for a in (0, 1)]
    assert set(metrics["probing_error"]) == set(metrics["classifier_error"]) == {"bird", "place"}
    for rate in (*named.values(), *metrics["probing_error"].values(), *metrics["classifier_error"].values()):
        assert rate["low"] - 1e-9 <= rate["error"] <= rate["high"] + 1e-9


def test_weighted_mean_agrees_with_a_hand_computation():
    values, group = torch.tensor([1.0, 3.0, 10.0, 20.0, 5.0]), torch.tensor([0, 0, 1, 2, 3])
    shares = torch.tensor([0.5, 0.3, 0.1, 0.1]).double()
    assert measure.weighted_mean(values, group, shares) == pytest.approx(0.5 * 2 + 0.3 * 10 + 0.1 * 20 + 0.1 * 5)


def test_domains_are_measured_on_the_target_alone(place, monkeypatch):
    probed, fit = [], probes.linear_probe
    monkeypatch.setattr(probes, "linear_probe", lambda *given, **named: probed.append(given) or fit(*given, **named))
    metrics, data = PACS.run(place)["metrics"], PACS.data.load(0, 32, place.root)
    ((phi, truth, test_phi, test_truth, name),) = probed
    assert torch.equal(truth[name], data.probe_train.labels) and len(phi) == len(data.probe_train)
    assert torch.equal(test_truth[name], data.probe_test.labels) and len(test_phi) == len(data.probe_test)
    for rate in (metrics["probing_error"]["class"], metrics["classifier_error"]["class"]):
        assert rate["examples"] == len(data.probe_test) and 0 <= rate["error"] <= 1
    assert "test_error" not in metrics and metrics["validation_loss"] > 0


@pytest.mark.parametrize("batches, count", [(None, 36), (3, 27)])
def test_weights_agree_with_a_direct_computation_on_the_kept_net(batches, count, place, monkeypatch):
    trial = WeightTrial(BIRDS, rho=0.1, batch_size=9, batches=batches)
    BIRDS.run(place)
    monkeypatch.setattr(training, "take_step", None)  # training would fail
    record = trial.run(place)
    metrics = record["metrics"]
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    data = BIRDS.data.load(0, 32, place.root)
    model = BIRDS.train(data, CPU, place).model.eval()
    images = normalise(data.train.images)
    order = torch.cat(training.batch_order(0, 0, 36, 9)[:batches])
    optimizer = training.make_optimizer("sam", model, 0.1, lr=0.01)
    given = model, optimizer, images[order], data.train.labels[order], F.cross_entropy, 9
    real, phantom = (weights.numpy() for weights in real_and_phantom_weights(*given))
    for found, weights in ((metrics["real"], real), (metrics["phantom"], phantom)):
        assert found["gini"] == pytest.approx(float(gini(weights)), rel=1e-4) and found["points"] == count
        assert found["mean"] == pytest.approx(weights.mean(), rel=1e-4)
    assert metrics["phantom"]["mean"] > metrics["real"]["mean"], "uphill the net fits worse"
    assert metrics["median_ratio"] == pytest.approx(np.median(phantom / real), rel=1e-3)

    phi = training.features(model, training.Images.of(data.train, data.mean_pixel, CPU))
    for name, probe in measure.fit_probes(model, data, CPU).items():
        for reading, signs in (("label", data.train.labels), ("attribute", data.train.attributes[name])):
            contribution = probe_contributions(phi, signs.numpy(), probe)[order]
            worst = contribution <= np.quantile(contribution, 0.25)
            found = metrics["contributions"][reading]["attributes"][name]
            assert found["worst_share"]["real"] == pytest.approx(real[worst].sum() / real.sum(), rel=1e-3)
            assert sum(found["bins"]["images"]) == count and len(found["bins"]["real"]) == measure.BINS
            heaviest = np.argsort(contribution, kind="stable")[:2]  # 36 images in 20 bins: two in the first
            assert found["bins"]["phantom"][0] == pytest.approx(np.median(phantom[heaviest]), rel=1e-3)
    by_label, own = (metrics["contributions"][reading] for reading in ("label", "attribute"))
    assert by_label["map"]["attributes"] == own["map"]["attributes"] == ["bird", "place"]
    assert by_label["attributes"]["bird"]["bins"] == own["attributes"]["bird"]["bins"], "the label itself"
    assert by_label["attributes"]["place"]["bins"] != own["attributes"]["place"]["bins"]


def test_an_attribute_goes_with_the_label_as_it_does_in_training():
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    along, against = torch.tensor([0, 0, 1, 1, 1, 1]), torch.tensor([1, 1, 0, 0, 0, 0])
    found = measure.going_with_label(
        Split(torch.empty(6, 3, 1, 1, dtype=torch.uint8), labels, {"label": labels, "with": along, "against": against})
    )
    assert all(torch.equal(found[name], labels) for name in ("label", "with"))
    assert torch.equal(found["against"], 1 - labels)


def test_bins_hold_the_medians_of_their_images():
    first, second = np.random.default_rng(0).normal(size=(2, 1000))
    values = {"real": first + 10, "phantom": second + 10}
    bins = measure.binned(first, values, bins=10)
    assert bins["images"] == 10 * [100] and bins["contribution"] == sorted(bins["contribution"])
    np.testing.assert_allclose(bins["real"], np.array(bins["contribution"]) + 10, rtol=1e-3)
    assert np.ptp(bins["phantom"]) < 0.7 < np.ptp(bins["real"]), "the other is independent"
    assert measure.binned(first[:3], {}, bins=10)["images"] == [1, 1, 1]
    grid = measure.mapped({"a": first, "b": second}, values, bins=4)
    assert grid["attributes"] == ["a", "b"] and np.array(grid["images"]).sum() > 970
    assert grid["real"][0][1] < grid["real"][3][1] and grid["phantom"][1][0] < grid["phantom"][1][3]


def test_slopes_tell_the_contributions_apart():
    first, noise = np.random.default_rng(1).normal(size=(2, 500))
    second = 100 * (first + noise)  # correlated, and in other units
    slopes = measure.slopes({"first": first, "second": second}, 0.5 * first - 0.02 * second)
    assert slopes == pytest.approx([0.5 * first.std(), -0.02 * second.std()])
