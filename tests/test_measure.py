"""What is measured on a net: by a second way, and on made values."""

import copy
import json
from collections import OrderedDict
from dataclasses import replace
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from image_trees import COUNTS, write_birds, write_domains
from images import write_cifar_folder, write_mnist
from torchvision.models import resnet18

from book.image_trial import ImageTrial, domain, grouped, paired
from book.weight_trial import WeightTrial
from lib import measure, probes, training
from lib.data.dataset import Dataset, Split
from lib.data.transforms import normalise
from lib.importance import gini, real_and_phantom_weights
from lib.measure import BINS, FRACTIONS, binned, feature_quality, mapped
from lib.models import ConvNet
from lib.optim import SAM
from lib.trials.trial import Place

CPU = torch.device("cpu")
SETTINGS = {"epochs": 1, "batch_size": 12, "size": 32, "weights": "none", "lr": 0.01}
BIRDS = grouped("waterbirds", "sgd", **SETTINGS)
PACS = domain("pacs", "P", "sgd", **{**SETTINGS, "batch_size": 30})
PAIR = paired("cifar-mnist", "sgd", epochs=2, batch_size=10)


@pytest.fixture
def place(tmp_path, own_cache) -> Place:
    return Place(tmp_path / "data", "cpu", checkpoints=tmp_path / "checkpoints")


def measured(trial: ImageTrial, place: Place):
    """The trial's metrics, its data and its net."""
    assert trial.strengths == probes.STRENGTHS, "stored protocols keep their grid of penalties"
    metrics, data = trial.run(place)["metrics"], trial.data.load(trial.seed, trial.size, place.root)
    return metrics, data, trial.train(data, CPU, place).model.eval()


def wrong(output: torch.Tensor, truth: torch.Tensor) -> np.ndarray:
    return (output.argmax(1) != truth).numpy().astype(float)


def is_rate(found: dict, examples: int) -> bool:
    return found["low"] - 1e-9 <= found["error"] <= found["high"] + 1e-9 and found["examples"] == examples


@pytest.fixture
def pairs(place):
    write_cifar_folder(place.root, train=30, test=32)
    write_mnist(place.root, train=30, test=32, classes=2)


def test_errors_on_pairs_are_those_of_the_net_and_of_its_probes(place, pairs):
    metrics, data, model = measured(PAIR, place)
    assert set(metrics["probing_error"]) == set(metrics["classifier_error"]) == {"cifar", "mnist"}
    for found in (metrics["test_error"], *metrics["probing_error"].values(), *metrics["classifier_error"].values()):
        assert is_rate(found, 32)
    assert metrics["probing_error"]["mnist"]["error"] < 0.1
    seen = [model(split.images / 255 - data.mean_pixel[:, None, None]) for split in (data.test, data.validation)]
    assert metrics["test_error"]["error"] == wrong(seen[0], data.test.labels).mean()
    assert metrics["validation_error"] == wrong(seen[1], data.validation.labels).mean()
    assert metrics["validation_loss"] == pytest.approx(F.cross_entropy(seen[1], data.validation.labels).item())
    answers = model(data.probe_test.images / 255 - data.mean_pixel[:, None, None])
    for name, truth in data.probe_test.attributes.items():
        assert metrics["classifier_error"][name]["error"] == wrong(answers, truth).mean()


def test_errors_on_groups_are_weighted_by_the_groups_of_training(place):
    write_birds(place.root)
    metrics, data, model = measured(BIRDS, place)
    shares = np.array([20, 3, 2, 11]) / 36  # of the tree's training images

    def of_groups(split, values):
        return [values[data.groups(split).numpy() == number].mean() for number in range(4)]

    outputs = [model(normalise(split.images)) for split in (data.validation, data.test)]
    errors, tested = (of_groups(s, wrong(o, s.labels)) for s, o in zip((data.validation, data.test), outputs))
    losses = F.cross_entropy(outputs[0], data.validation.labels, reduction="none").detach().numpy()
    assert metrics["validation_loss"] == pytest.approx(shares @ of_groups(data.validation, losses), rel=1e-5)
    assert metrics["validation_error"] == pytest.approx(shares @ errors)
    assert metrics["validation_worst_group_error"] == max(errors)
    assert metrics["test_error"]["error"] == pytest.approx(shares @ tested)
    assert metrics["test_error"]["worst_group_error"] == max(tested)
    named = metrics["test_error"]["groups"]
    assert [named[name]["error"] for name in data.group_names] == pytest.approx(tested)
    counts = [COUNTS[2, label, place] for label in (0, 1) for place in (0, 1)]
    assert all(is_rate(found, count) for found, count in zip(named.values(), counts, strict=True))
    for found in (*metrics["probing_error"].values(), *metrics["classifier_error"].values()):
        assert is_rate(found, 20)


def test_errors_without_a_domain_are_those_on_the_target_alone(place, monkeypatch):
    write_domains(place.root)
    fitted, fit = [], probes.linear_probe
    spied = lambda *given, **options: fitted.append((*given, options)) or fit(*given, **options)  # noqa: E731
    monkeypatch.setattr(probes, "linear_probe", spied)
    metrics, data = PACS.run(place)["metrics"], PACS.data.load(0, 32, place.root)
    ((_, truth, _, test_truth, name, options),) = fitted
    assert torch.equal(truth[name], data.probe_train.labels) and torch.equal(test_truth[name], data.probe_test.labels)
    assert options["allow_unbalanced"] and not options["weighted"], "the classes keep their shares"
    assert set(metrics) == {"validation_loss", "validation_error", "probing_error", "classifier_error"}
    assert is_rate(metrics["probing_error"]["class"], 6) and is_rate(metrics["classifier_error"]["class"], 6)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=1, max_size=40), st.tuples(*[st.floats(0.01, 1)] * 4)
)
def test_mean_of_the_groups_by_their_shares_is_that_of_examples_weighted_by_their_group(examples, shares):
    examples = [*examples, *((False, group) for group in range(4))]
    wrong, group = (torch.tensor(column) for column in zip(*examples))
    weights = torch.tensor(shares, dtype=torch.float64) / sum(shares)
    per_example = (weights / torch.bincount(group))[group]
    expected = float((per_example * wrong).sum() / per_example.sum())
    assert float(measure.group_means(wrong, group, 4) @ weights) == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"groups must each have an image, and lack: \[4\]"):
        measure.group_means(wrong, group, 5)


def test_weights_of_pairs_are_summed_up_at_both_points(place, pairs, monkeypatch):
    PAIR.run(place)
    with monkeypatch.context() as patch:
        patch.setattr(training, "take_step", None)  # training would fail: the net is kept
        metrics = WeightTrial(PAIR, rho=0.1).run(place)["metrics"]
    assert set(metrics) == {"real", "phantom"}
    for found in metrics.values():
        assert len(found["lorenz"]) == len(FRACTIONS) and (found["lorenz"][0], found["lorenz"][-1]) == (0, 1)
        assert 0 < found["gini"] < 1 and found["points"] == 54
    assert metrics["phantom"]["mean"] > metrics["real"]["mean"], "uphill the net fits worse"
    limited = WeightTrial(replace(PAIR, train_limit=20), 0.1, 0, batches=1)
    assert limited.run(place)["metrics"]["real"]["points"] == 10


def test_weights_agree_with_a_direct_computation(place):
    write_birds(place.root)
    _, data, model = measured(BIRDS, place)
    record = WeightTrial(BIRDS, rho=0.1, batch_size=9, batches=3).run(place)
    metrics = record["metrics"]
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    order = torch.cat(training.batch_order(0, 0, 36, 9)[:3])
    images = normalise(data.train.images)
    optimizer = training.make_optimizer("sam", model, 0.1, lr=0.01)
    nine = zip(images[order].split(9), data.train.labels[order].split(9))
    pair = real_and_phantom_weights(model, optimizer, nine, F.cross_entropy)
    real, phantom = (weights.numpy() for weights in pair)
    for found, weights in ((metrics["real"], real), (metrics["phantom"], phantom)):
        assert found["gini"] == pytest.approx(float(gini(weights)), rel=1e-4) and found["points"] == 27
        assert found["mean"] == pytest.approx(weights.mean(), rel=1e-4)
    assert metrics["phantom"]["mean"] > metrics["real"]["mean"], "uphill the net fits worse"
    assert metrics["median_ratio"] == pytest.approx(np.median(phantom / real), rel=1e-3)

    with torch.no_grad():
        phi = model.features(images).numpy()
    fitted = measure.fit_probes(model, data, probes.STRENGTHS)
    for name, probe in fitted.items():
        for reading, truth in (("label", data.train.labels), ("attribute", data.train.attributes[name])):
            contribution = probe.contributions(phi, truth.numpy())[order]
            worst = contribution <= np.quantile(contribution, 0.25)
            found = metrics["contributions"][reading]["attributes"][name]
            assert found["probing_error"] == probe.error
            assert found["worst_share"]["real"] == pytest.approx(real[worst].sum() / real.sum(), rel=1e-3)
            assert sum(found["bins"]["images"]) == 27 and len(found["bins"]["real"]) == BINS
            heaviest = np.argsort(contribution, kind="stable")[:2]  # 27 images in 20 bins: two in the first
            assert found["bins"]["phantom"][0] == pytest.approx(np.median(phantom[heaviest]), rel=1e-3)
            ratio = np.median((phantom / real)[heaviest]) / np.median(phantom / real)
            assert found["bins"]["ratio"][0] == pytest.approx(ratio, rel=1e-3)
    columns = {name: one.contributions(phi, data.train.labels.numpy())[order] for name, one in fitted.items()}
    found = [one["slope"] for one in metrics["contributions"]["label"]["attributes"].values()]
    assert found == pytest.approx(measure.slopes(columns, np.log(phantom / real)), rel=1e-2)
    by_label, own = (metrics["contributions"][reading] for reading in ("label", "attribute"))
    assert by_label["map"]["attributes"] == own["map"]["attributes"] == ["bird", "place"]
    assert by_label["attributes"]["bird"]["bins"] == own["attributes"]["bird"]["bins"], "the label itself"
    assert by_label["attributes"]["place"]["bins"] != own["attributes"]["place"]["bins"]


def test_an_attribute_goes_with_the_label_as_it_does_in_training():
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    others = {"with": torch.tensor([0, 0, 1, 1, 1, 1]), "against": torch.tensor([1, 1, 0, 0, 0, 0])}
    found = measure.going_with_label(Split(torch.empty(6), labels, {"label": labels, **others}))
    assert torch.equal(found["label"], labels) and torch.equal(found["with"], labels)
    assert torch.equal(found["against"], 1 - labels)
    three = {"turned": (labels + 1) % 3, "rare": torch.tensor([0, 0, 1, 0, 0, 1])}
    found = measure.going_with_label(Split(torch.empty(6), labels, three))
    assert found["turned"].tolist() == [1, 1, 1, 2, 2, 2]
    assert torch.equal(found["rare"], labels), "independent of the label: its own number"


def test_bins_hold_the_medians_of_their_images():
    random = np.random.default_rng(0)
    first, second = random.normal(size=(2, 1000))
    values = {"real": first + 10, "phantom": second + 10}
    bins = binned(first, values, bins=10)
    assert bins["images"] == 10 * [100] and bins["contribution"] == sorted(bins["contribution"])
    np.testing.assert_allclose(bins["real"], np.array(bins["contribution"]) + 10, rtol=1e-3)
    assert np.ptp(bins["phantom"]) < 0.7 < np.ptp(bins["real"]), "the other is independent"
    assert binned(first[:3], {}, bins=10)["images"] == [1, 1, 1]
    grid = mapped({"a": first, "b": second}, values, bins=4)
    assert grid["attributes"] == ["a", "b"] and 970 < np.array(grid["images"]).sum() < 1000
    assert grid["real"][0][1] < grid["real"][3][1] and grid["phantom"][1][0] < grid["phantom"][1][3]
    assert mapped({"a": first[:9], "b": second[:9]}, {"real": first[:9]}, bins=4)["real"].count([None] * 4) < 4


def test_slopes_tell_the_contributions_apart():
    first, noise = np.random.default_rng(1).normal(size=(2, 500))
    second = 100 * (first + noise)  # correlated, and in other units
    slopes = measure.slopes({"a": first, "b": second}, 0.5 * first - 0.02 * second)
    assert slopes == pytest.approx([0.5 * first.std(), -0.02 * second.std()])


class Deep(torch.nn.Module):
    """In the manner of timm: a body, and a head with a pool and a last layer of its own."""

    def __init__(self, logits: int = 2) -> None:
        super().__init__()
        self.stem = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2), torch.nn.BatchNorm2d(8), torch.nn.ReLU())
        fc = torch.nn.Linear(8, logits)
        layers = {"pool": torch.nn.AdaptiveAvgPool2d(1), "flat": torch.nn.Flatten(), "fc": fc}
        self.head = torch.nn.Sequential(OrderedDict(layers))

    def forward(self, x):
        return self.head(self.stem(x))


def shades(values=((0, 1), (0, 1)), copies: int = 6, seed: int = 0) -> Dataset:
    """Images with a stripe for each attribute, as bright as its value, in every combination equally often."""
    cells = np.array(list(product(*values)) * copies)
    names = {f"stripe {row}": tuple(f"shade {value}" for value in of) for row, of in enumerate(values)}

    def split(seed: int) -> Split:
        images = np.random.default_rng(seed).integers(0, 60, (len(cells), 3, 12, 12))
        for row in range(len(values)):
            images[:, :, 4 * row : 4 * row + 4] += 80 * cells[:, row, None, None, None]
        attributes = {name: torch.tensor(cells[:, row]) for row, name in enumerate(names)}
        return Split(torch.tensor(images.astype(np.uint8)), attributes["stripe 0"], attributes)

    splits = [split(seed + number) for number in range(5)]
    return Dataset("shades", names, len(values[0]), *splits, mean_pixel=torch.full((3,), 0.3))


NETS = {
    "a net of the book": (lambda: ConvNet(2, 3, 12, 12), None, "head"),
    "torchvision's ResNet-18": (lambda: resnet18(num_classes=2), None, "fc"),
    "timm's manner": (Deep, None, "head.fc"),
    "a head by name": (lambda: resnet18(num_classes=2), "fc", "fc"),
    "an inner layer by name": (lambda: resnet18(num_classes=2), "avgpool", "avgpool"),
    "a transform before it": (lambda: torch.nn.Sequential(torch.nn.BatchNorm2d(3), Deep()), None, "1.head.fc"),
}


@pytest.mark.parametrize("kind", NETS)
def test_any_net_is_measured_by_what_goes_into_its_last_layer_and_stays_as_it_was(kind):
    build, head, name = NETS[kind]
    torch.manual_seed(0)
    model, data = build().train(), shades()
    next(model.children()).eval()  # a part that is frozen
    before, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    optimizer = SAM(model.parameters(), rho=0.1, lr=0.1)
    found = feature_quality(model, data, optimizer, head=head, batch_size=10)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())

    model.eval()
    caught = []
    dict(model.named_modules())[name].register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0].flatten(1)))
    for split in (data.probe_train, data.probe_test, data.train):
        answers = model(split.images / 255 - 0.3)
    phi = [rows.detach().numpy() for rows in caught]
    for attribute in data.attributes:
        probe = probes.linear_probe(phi[0], data.probe_train.attributes, phi[1], data.probe_test.attributes, attribute)
        assert found.errors["probing_error"][attribute]["error"] == pytest.approx(probe.error, abs=0.05)
    own = 1 - answers.softmax(1)[torch.arange(24), data.train.labels]
    assert found.weights["real"]["mean"] == pytest.approx(own.mean().item(), rel=1e-3)
    table = found.table()
    assert list(table.error) == sorted(table.error) and table.label.sum() == 1
    assert len(found.figure().axes) == 3 and {"chosen_on", "at_end", "regularisation", "examples"} <= set(table)
    plt.close("all")


def test_three_attributes_of_several_values_are_measured():
    data = shades(((0, 1, 2), (0, 1), (0, 1, 2)), copies=4)
    model = resnet18(num_classes=3)
    found = feature_quality(model, data, SAM(model.parameters(), lr=0.1), batch_size=30, batches=2)
    assert set(found.table().index) == {"stripe 0", "stripe 1", "stripe 2"} and found.weights["real"]["points"] == 60
    assert found.errors["test_error"]["examples"] == 72 and len(found.figure().axes) == 4
    plt.close("all")
    with pytest.raises(ValueError, match="weights must be measured"):
        feature_quality(model, data).figure()


@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_single_logit_is_that_of_the_second_class(shape):
    two, data = Deep(2), shades()
    one = torch.nn.Sequential(copy.deepcopy(two), torch.nn.Flatten(*(() if shape else (0,))))
    one[0].head.fc = linear = torch.nn.Linear(8, 1)
    linear.weight.data, linear.bias.data = two.head.fc.weight.diff(dim=0), two.head.fc.bias.diff()
    first, second = (feature_quality(model, data).errors for model in (one, two))
    assert first["classifier_error"] == second["classifier_error"] and first["test_error"] == second["test_error"]
    assert first["validation_loss"] == pytest.approx(second["validation_loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (resnet18, {}, "model must give a logit for each of the 2 classes of stripe 0, (n, 2), not (2, 1000)"),
        (lambda: resnet18(num_classes=2), {"head": "last"}, "head must be a layer of the net, such as "),
        (lambda: torch.nn.Sequential(Deep(), torch.nn.Softmax(1)), {}, "head must name the layer "),
        (lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Softmax(1)), {}, "head must name the layer "),
        (Deep, {"optimizer": "sgd"}, "optimizer must be a SAM of the model's parameters, not SGD"),
        (Deep, {"optimizer": "other"}, "optimizer must be a SAM of the model's parameters, not SAM"),
        (Deep, {"batch_size": 0}, "batch_size must be a whole number of at least 1, not 0"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(model, options, message, refuses):
    net = model()
    others = {"sgd": lambda: torch.optim.SGD(net.parameters()), "other": lambda: SAM(Deep().parameters(), lr=0.1)}
    if "optimizer" in options:
        options = {"optimizer": others[options["optimizer"]]()}
    refuses(ValueError, feature_quality, net, shades(), **options, words=[message])
