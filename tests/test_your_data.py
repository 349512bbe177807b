"""Chapter 14: what its parameters name, own data in other processes, trained nets, and the words of the conclusions."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from image_trees import write_celeba
from scipy.stats import nct
from scipy.stats import t as student
from test_own import write_folder, write_npz, write_table

from book import natural_images, real_data, your_data
from book.image_trial import ImageTrial
from book.notebook import ParameterError
from book.templates import render
from book.weight_trial import WeightTrial
from lib.data.own import Table
from lib.measure import feature_quality
from lib.optim import SAM
from lib.stats import estimate
from lib.trials import run
from lib.trials.store import Store
from lib.trials.trial import Place

NOTHING = dict.fromkeys(("first", "second", "classes", "table", "label", "attribute"), "") | {"size": 0}
pytestmark = pytest.mark.usefixtures("own_cache")


def source(**given):
    return your_data.source(**{**NOTHING, **given})


def test_example_is_a_pair_of_digits_in_which_no_image_serves_twice():
    pair = source()
    facts = your_data.of_data(pair.load())
    assert facts["correlation in training (Cramér's V)"] == pytest.approx(1) and facts["values of 3 or 8"] == "3, 8"
    for part in pair.parts:
        train, test = ({image.numpy().tobytes() for image in split.images} for split in (part.train, part.test))
        assert not train & test


CLASSES = {  # as given: those of the two files
    "": ((), ()),
    "[bee, ant]": (("bee", "ant"),) * 2,
    "'ant', 'bee'": (("ant", "bee"),) * 2,
    "ant=bee, bee = ant": (("ant", "bee"), ("bee", "ant")),
}


@pytest.mark.parametrize("classes", CLASSES)
def test_two_files_are_a_pair_with_the_classes_asked_for(classes, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    sides = [str(write_folder(tmp_path / name)) for name in ("a", "b")]
    pair = source(first=sides[0], second=sides[1], classes=classes)
    assert tuple(part.classes for part in pair.parts) == CLASSES[classes]
    assert pair.name == "first-second" and pair.load().attributes == ("first", "second"), "two files of one name"


def test_a_table_is_one_with_its_columns_and_celeba_is_taken_from_the_data_root(tmp_path, monkeypatch):
    path = write_table(tmp_path)
    made = source(table=str(path), label="hair", attribute="gender", images=str(tmp_path / "images"))
    assert isinstance(made, Table) and made.attributes == ("hair", "gender")
    facts = your_data.of_data(made.load(0, 8))
    assert facts["correlation in training (Cramér's V)"] == 0 and facts["rarest combination in training"] == 12
    monkeypatch.setenv("SAM_DATA_ROOT", str(tmp_path))
    write_celeba(tmp_path)
    made = source(table="celeba", label="Male", attribute="Blond_Hair")
    assert made.natural and made.load(0, 8).values["Male"] == ("not Male", "Male")


TWO = {"label": "x", "attribute": "y"}
WRONG = {
    "one file": ({"first": "a.npz"}, ParameterError, "parameters first and second must be given both"),
    "the other file": ({"second": "a.npz"}, ParameterError, "parameters first and second must be given both"),
    "files and a table": ({"first": "a", "second": "b", "table": "c", **TWO}, ParameterError, "without table"),
    "no label": ({"table": "a.csv", "attribute": "x"}, ParameterError, "parameters label and attribute must name"),
    "no attribute": ({"table": "a.csv", "label": "x"}, ParameterError, "parameters label and attribute must name"),
    "no such file": ({"first": "/no/a.npz", "second": "/no/b.npz"}, RuntimeError, "/no/a.npz"),
    "no such table": ({"table": "/no/a.csv", **TWO}, RuntimeError, "/no/a.csv"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_parameters_that_name_no_data_are_refused_in_one_line(kind, refuses):
    given, error, line = WRONG[kind]
    refuses(error, source, **given, match=line)


@pytest.fixture
def pair(tmp_path):
    """Of two files, small."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    split = np.where(np.arange(48) % 4 < 2, "train", "test")
    first, second = write_npz(tmp_path / "a", split=split), write_folder(tmp_path / "b", {"0": 30, "1": 90})
    return source(first=str(first), second=str(second))


def test_own_data_travel_to_other_processes_and_a_cluster_and_give_what_they_give_here(pair, tmp_path):
    from distributed import LocalCluster

    given = {"label": "hair", "attribute": "gender", "images": str(tmp_path / "images")}
    nets = [
        ImageTrial(data, "sam", 0.05, 0.1, epochs=1, batch_size=12, size=size)
        for data, size in ((pair, None), (source(table=str(write_table(tmp_path)), **given), 8))
    ]
    trials, place = [*nets, *(WeightTrial(net, 0.1) for net in nets)], Place(device="cpu", threads=1, checkpoints=None)
    here = run(trials, Store(tmp_path / "here"), place)
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        for number, where in enumerate(({"jobs": 2}, {"scheduler": cluster.scheduler_address})):
            there = run(trials, Store(tmp_path / str(number)), place, **where)
            assert [record["metrics"] for record in there] == [record["metrics"] for record in here]
    assert not any(str(tmp_path) in str(record["configuration"]) for record in here), "no path of this machine"


def test_one_setting_is_measured_on_paired_seeds_and_said_in_words(pair, tmp_path):
    place = Place(device="cpu", threads=1, checkpoints=tmp_path / "nets")
    base = ImageTrial(pair, "sgd", 0.05, epochs=1, batch_size=12)
    result = your_data.measured(base, 0.1, 2, Store(tmp_path / "results"), place)
    assert {one["configuration"]["method"] for one in result.records} == {"sgd", "sam", "lsam"}
    assert len(real_data.rows_of_table(result)) == 5 and not result.lacking
    left, _ = natural_images.along_contributions([result], "real", "phantom").axes
    assert [line.get_label() for line in left.lines[::3]] == ["SGD net, real", "SAM net, phantom"]
    said = your_data.conclusions(result, your_data.of_data(pair.load()))
    assert all(words in said for words in ("hard feature", "tested on", "s nets"))
    plt.close("all")


GAINS = {  # by seed: what is said of SAM
    (4.0, 5.0, 6.0): "is <strong>lower</strong> than SGD's, by 5.0 points",
    (-4.0, -5.0, -6.0): "is <strong>higher</strong> than SGD's, by 5.0 points",
    (4.0, -5.0, 3.0): "is <strong>not told apart</strong> from SGD's: 0.7 points lower",
    (0.0, 5.0, 6.0): "is <strong>not told apart</strong> from SGD's: 3.7 points lower",
    (-4.0, 5.0, -3.0): "is <strong>not told apart</strong> from SGD's: 0.7 points higher",
    (0.0, 0.0, 0.0): "is <strong>the same</strong> as SGD's on each of 3 seeds: so few",
    (2.0,): "is 2.0 points lower than SGD's. One seed says nothing of chance",
}


def words(gains, **changes) -> str:
    gains = np.array(gains)
    given = {
        "easy": "shade",
        "hard": "shape",
        "seeds": len(gains),
        "errors": {"shade": 1.0, "shape": 9.0},
        "apart": estimate(np.array([7.0, 8.0, 9.0])),
        "gains": dict.fromkeys(("shade", "shape"), estimate(gains)),
        "detectable": dict.fromkeys(("shade", "shape"), your_data.detectable(gains)),
        "tested": 400,
        "trained": 100,
        "at_end": 0,
        "probes": 6,
        "correlation": 0.9,
        "evenness": {"SGD": -0.02, "SAM": 0.01},
    }
    return " ".join(re.sub(r"\s+", " ", render("your-data", **{**given, **changes})).split()).replace("&#39;", "'")


@pytest.mark.parametrize("gains", GAINS)
def test_conclusions_say_what_the_interval_says(gains):
    said = words(gains)
    assert f"<strong>shape</strong>: SAM's probing error {GAINS[gains]}" in said
    assert ("would be found in four runs of five" in said) == (len(gains) > 1 and any(gains))


LIMITS = {  # a line, what brings it, and what just does not
    "is not settled here": ({"apart": estimate([0.0, 2.0, 4.0])}, {"apart": estimate([1.9, 2.0, 2.1])}),
    "hardly correlated": ({"correlation": 0.29}, {"correlation": 0.3}),
    "That is few": ({"tested": 199}, {"tested": 200}),
    "For 2 of 6 probes of shape": ({"at_end": 2}, {"at_end": 0}),
    "more even than the real ones in SGD's nets (Gini coefficient -0.020), and no more even than": (
        {},
        {"evenness": {"SGD": -0.0005, "SAM": 0.01}},
    ),
    "phantom": ({}, {"evenness": {}}),
}


@pytest.mark.parametrize("line", LIMITS)
def test_conclusions_say_what_the_size_does_not_allow(line):
    brings, does_not = LIMITS[line]
    assert line in words([4.0, 5.0, 6.0], **brings) and line not in words([4.0, 5.0, 6.0], **does_not)


@pytest.mark.parametrize("n", [3, 10, 40])
def test_what_is_detectable_is_found_in_four_of_five(n):
    gains = np.random.default_rng(n).normal(size=n)
    effect = your_data.detectable(gains) * np.sqrt(n) / gains.std(ddof=1)
    power = 1 - nct.cdf(student.ppf(0.975, n - 1), n - 1, effect)
    assert power == pytest.approx(your_data.POWER, abs=0.07)
    assert np.isnan(your_data.detectable(gains[:1]))


def test_a_net_is_had_from_a_module_and_from_an_exported_file_and_measures_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my_nets.py").write_text(
        "import torch\nfrom torchvision.models import resnet18\n\n"
        "def load():\n    torch.manual_seed(0)\n    return resnet18(num_classes=2).eval()\n"
    )
    net = your_data.net("my_nets:load")
    exported = torch.export.export(net, (torch.rand(4, 3, 16, 8),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    torch.export.save(exported, tmp_path / "net.pt2")
    data = your_data.seen_plainly(source().load())
    assert data.mean_pixel.tolist() == [0, 0, 0]
    plain, found = (
        feature_quality(one, data, SAM(one.parameters(), rho=0.1, lr=0.1), batches=1)
        for one in (net, your_data.net(str(tmp_path / "net.pt2")))
    )
    assert found.weights["real"]["mean"] == pytest.approx(plain.weights["real"]["mean"], rel=1e-3)
    assert list(found.table().error) == pytest.approx(list(plain.table().error), abs=0.04)


NO_NETS = ("nothing", "no_such_module:load", "math:no_such", "math:sqrt", "os:getcwd", "/no/net.pt2", "a:")


@pytest.mark.parametrize("given", NO_NETS)
def test_what_gives_no_net_is_refused_in_one_line(given, refuses):
    refuses(ParameterError, your_data.net, given, match="parameter model must")
