"""Chapters 7 and 16: sweeps and what validation data select on them, results by data set, the rules of C7, C3 and C4 on
either side of their borders, numbers and figures; the tables of stored results are compared in the notebooks."""

from dataclasses import replace
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from records import whole

from book import mechanism, natural_images, protocols, real_data
from book.claims import Outcome
from book.image_trial import ImageTrial
from book.protocols import FULL, NATURAL_SEEDS, PAIRED, PAIRED_SEEDS, REDUCED, comparison, grid, selected, weight_trials
from lib.trials.store import Store
from lib.trials.trial import MissingTrials, Place

CIFAR, CELEBA, BIRDS = PAIRED["cifar-mnist"], REDUCED["celeba"], REDUCED["birds_on_scenes"]
NOWHERE = Place("/nowhere", "cpu", checkpoints=None)
OWN = replace(CIFAR, rates=(0.05,), radii=(0.1,))  # a single setting, which needs no sweep


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(scope="module")
def celeba() -> protocols.Result:
    return protocols.result(CELEBA, Store(), NATURAL_SEEDS)


@pytest.fixture(scope="module")
def pair() -> protocols.Result:
    return protocols.result(CIFAR, Store(), PAIRED_SEEDS)


def error_record(trial: ImageTrial, validation: float = 0.5, hard: float = 0.3, easy: float = 0.1) -> dict:
    """Made up: SAM's and LSAM's probing errors are 0.05 below the given ones, and all fall by 0.001 a seed; the
    validation loss falls with rho."""
    gain = (0.05 if trial.rho else 0.0) + 0.001 * trial.seed
    natural = trial.weights is not None
    names = ("hair", "gender") if natural else ("cifar", "mnist")
    metrics = {"validation_error": validation, "validation_loss": 1 - trial.rho}
    metrics["probing_error"] = {name: {"error": error - gain} for name, error in zip(names, (hard, easy))}
    given = {"images": {"train": 7000}, "weights": {"fresh": ["layer4", "fc"] if natural else []}}
    return whole({"configuration": trial.configuration, "metrics": metrics, **given})


def diverge(store: Store, trial: ImageTrial) -> None:
    store.write(error_record(trial) | {"status": "diverged", "diverged_at": 3, "metrics": None})


def write_sweep(store: Store, protocol: protocols.Protocol, at: dict | None = None) -> None:
    """Validation error .5, or that `at` (lr, rho)."""
    for trial in grid(protocol):
        store.write(error_record(trial, (at or {}).get((trial.lr, trial.rho), 0.5)))


# Sweeps and selection.


def test_setting_is_selected_by_validation_error_then_loss_for_each_method(store):
    for trial in grid(CIFAR)[1:]:
        store.write(error_record(trial))
    assert selected(CIFAR, store) is None, "the sweep is not complete"
    write_sweep(store, CIFAR, {(0.01, 0.0): 0.2, (0.05, 0.1): 0.1, (0.1, 0.01): 0.1})
    chosen = [(name, trial.method, trial.lr, trial.rho) for name, trial in selected(CIFAR, store).items()]
    assert chosen == [("sgd", "sgd", 0.01, 0), ("sam", "sam", 0.05, 0.1), ("lsam", "lsam", 0.05, 0.1)]
    diverge(store, replace(CIFAR.base, lr=0.01))
    assert selected(CIFAR, store)["sgd"].lr != 0.01
    for lr in CIFAR.rates:
        diverge(store, replace(CIFAR.base, lr=lr))
    with pytest.raises(ValueError, match="finished, and all of sgd diverged: cifar-mnist"):
        selected(CIFAR, store)


def test_a_training_goes_on_from_where_weights_within_it_were_measured(store):
    write_sweep(store, BIRDS)
    trials = protocols.plan([BIRDS], store, seeds=2).trials
    measured = weight_trials(BIRDS, selected(BIRDS, store), 2)
    assert {trial.epoch for trial in measured} == {1, None} and set(measured) <= set(trials)
    assert all(trials.index(trial) < trials.index(trial.of) for trial in measured if trial.epoch and trial.of.seed)


# Results.


def test_result_has_what_is_stored_from_two_paired_seeds_on_and_all_weights_or_none(store, celeba):
    assert len(celeba.records) == 3 * 8 and len(celeba.weights) == 2 * 2 * 8 and len(celeba.sweep) == 6
    assert celeba.features == ("hair", "gender") and celeba.title == "CelebA, hair and gender"
    more = protocols.result(CELEBA, Store(), 9)
    assert len(more.records) == 3 * 8 and more.weights == []
    write_sweep(store, BIRDS)
    settings = selected(BIRDS, store)
    for seed, there in ((0, False), (1, True)):
        for trial in comparison(BIRDS, settings, seed + 1):
            store.write(error_record(trial))
        assert (protocols.result(BIRDS, store) is not None) is there
    diverge(store, replace(settings["sam"], seed=1))
    assert protocols.result(BIRDS, store) is None


def test_table_tells_easy_from_hard_by_sgd_and_pairs_differences_by_seed(store):
    for trial in comparison(CIFAR, selected(OWN, store), 3):
        store.write(error_record(trial, hard=0.3 + 0.1 * trial.seed))
        if trial.seed == 2 and trial.method == "sam":
            diverge(store, trial)
    found = protocols.result(CIFAR, store, 3, NOWHERE, lr=0.05, rho=0.1)
    assert found.features == ("mnist", "cifar"), "the lower mean error under SGD"
    np.testing.assert_allclose(found.errors["sam", "cifar"], [0.25, 0.349, np.nan])
    np.testing.assert_allclose(found.gains("cifar"), [0.05, 0.05])
    np.testing.assert_allclose(found.errors["untrained", "mnist"], [0.1, 0.099, 0.098])
    assert len(found.gains("cifar", "lsam")) == 3


def test_what_cannot_be_computed_is_said_in_a_line(store):
    assert protocols.result(CIFAR, store, place=NOWHERE) is None, "something has to be selected"
    with pytest.raises(MissingTrials, match="4 of 4 trials"):
        protocols.result(CIFAR, store, 1, NOWHERE, lr=0.05, rho=0.1)
    for trial in comparison(CIFAR, selected(OWN, store), 1):
        diverge(store, trial) if trial.method == "lsam" else store.write(error_record(trial))
    with pytest.raises(MissingTrials, match="all nets of lsam diverged; take a smaller lr"):
        protocols.result(CIFAR, store, 1, NOWHERE, lr=0.05, rho=0.1)


def test_own_settings_replace_the_selected_ones(store, pair):
    same = protocols.result(CIFAR, Store(), PAIRED_SEEDS, NOWHERE, epochs=20, batch_size=100)
    assert same.settings == pair.settings and same.lacking == [] and len(same.weights) == 2 * PAIRED_SEEDS
    write_sweep(store, CIFAR)
    own = {"epochs": 5, "batch_size": 50}
    settings = {name: replace(one, lr=0.05, **own) for name, one in selected(CIFAR, store).items()}
    for trial in comparison(replace(CIFAR, base=replace(CIFAR.base, **own)), settings, 4):
        store.write(error_record(trial))
    found = protocols.result(CIFAR, store, 4, NOWHERE, lr=0.05, **own)
    assert found.settings == settings and not found.weights
    assert found.lacking == ["5 of 20 epochs", "batch_size 50", "another setting than the selected one"]


def test_what_a_result_lacks_of_the_protocol_is_said_with_the_command(celeba, pair):
    lacking = "2 of 20 epochs, 64 of 112 pixels a side, 6 of 20 settings in the sweep, 7,002 of 162,770 training images"
    settings = "ImageNet's weights but for layer4; SGD at learning rate 0.01, SAM at 0.01 and rho 0.02"
    assert protocols.standing("celeba", celeba) == f"reduced: {lacking}, {settings}"
    assert protocols.standing("cifar-mnist", pair).startswith("the whole protocol;")
    assert protocols.standing("waterbirds", None, "full") == "not run here: python -m book.sweep waterbirds-full"
    assert protocols.standing("birds_on_scenes", None, "reduced").endswith("book.sweep birds-on-scenes")
    own = replace(pair, records=[error_record(replace(CIFAR.base, epochs=1, batch_size=10))], sweep=[])
    short = "1 of 20 epochs, 0 of 21 settings in the sweep, 1 of 4 seeds, batch_size 10"
    assert ", ".join(protocols.shortfalls(own, CIFAR)) == short
    birds = protocols.shortfalls(replace(celeba, protocol=BIRDS), None)
    assert birds[:3] == ["2 epochs", "64 pixels a side", "6 settings in the sweep"], "it has no protocol"
    full = [error_record(replace(FULL["celeba"].base, seed=seed)) | {"weights": {"fresh": ["fc"]}} for seed in range(4)]
    for images, lacks in ((162_769, ["162,769 of 162,770 training images"]), (162_770, [])):
        records = [record | {"images": {"train": images}} for record in full]
        whole_sweep = replace(celeba, records=records, sweep=full[:1] * 20)
        assert protocols.shortfalls(whole_sweep, FULL["celeba"]) == lacks


def test_weights_are_paired_and_a_diverged_net_leaves_its_seed_out(celeba):
    gone = {"status": "diverged", "metrics": None}
    of = [(record["configuration"]["of"]["method"], record["configuration"]["of"]["seed"]) for record in celeba.weights]
    lost = [record | gone if net == ("sam", 1) else record for net, record in zip(of, celeba.weights)]
    assert real_data.gini(celeba, 1)[1, 0, 2] == celeba.measured(1)["sgd"][2]["phantom"]["gini"]
    assert real_data.gini(replace(celeba, weights=lost), 1).shape == (2, 2, 7)


def test_sweep_has_the_further_seeds_of_which_all_of_it_is_stored(store):
    for trial in [trial for seed in range(4) for trial in grid(BIRDS, seed)]:
        if trial != grid(BIRDS, 2)[-1]:
            store.write(error_record(trial))
    assert {one["configuration"]["seed"] for one in protocols.swept(BIRDS, store)} == {0, 1}


def test_the_hard_attribute_is_the_one_that_sgd_leaves_worse_and_what_is_not_there_is_nan():
    def record(cat, dog):
        return {"metrics": {"probing_error": {"cat": {"error": cat}, "dog": {"error": dog}}}}

    records = {"sgd": [None, record(0.1, 0.2), record(0.1, 0.3)], "sam": [None, record(0.0, 0.4), {"metrics": None}]}
    found = protocols.probing(records, "sgd")
    assert list(found["sam"]) == list(found["sgd"]) == ["dog", "cat"]
    np.testing.assert_array_equal(found["sam"].dog, [np.nan, 0.4, np.nan])


# Rules. Means on the claim's side are not enough: an interval that touches the border does not hold.

LETTERS = {Outcome.HOLDS: "h", Outcome.UNDECIDED: "u", Outcome.CONTRADICTED: "c", Outcome.NOT_RUN: "-"}
HELD = np.linspace(0.018, 0.022, 8)
SMALL = np.linspace(-1, 1, 8) * 0.005


def outcomes(checks) -> str:
    return "".join(LETTERS[check.outcome] for check in checks)


def a_result(gain=HELD, sgd=(0.1, 0.3), images=300, lacking=()):
    """What C7 asks of a result: both features are gained alike."""
    errors = {("sgd", feature): np.full(len(gain), error) for feature, error in zip(("easy", "hard"), sgd)}
    rows = pd.DataFrame({"measure": ["easy", "hard", "test"], "examples": [images + 1, images, 5]})
    given = {
        "attributes": [(one, one) for one in ("easy", "hard")],
        "features": ("easy", "hard"),
        "table": rows,
        "lacking": list(lacking),
        "title": "a set",
    }
    return SimpleNamespace(errors=errors, gains=lambda measure: gain, **given)


@pytest.mark.parametrize(
    "gain, images, found",
    [  # half a point is too small to matter
        (HELD, 300, "hh"),
        (HELD, 299, "uu"),
        (-HELD, 299, "uu"),
        (HELD[1:], 300, "uu"),  # seven seeds
        (0.01 + 5 * SMALL, 300, "uu"),  # the interval reaches below 0
        (-HELD, 300, "cc"),
        (0.3 * SMALL, 300, "cc"),
        (0.004 + 0.03 * SMALL, 300, "cc"),
        (0.005 + 0.03 * SMALL, 300, "hh"),  # in part beyond
    ],
)
def test_c7_holds_for_a_feature_where_the_whole_interval_is_above_zero(gain, images, found):
    hard, easy = real_data.checks_c7({"cifar-mnist": a_result(gain, images=images)})
    assert outcomes([hard, easy]) == found
    assert (hard.main, easy.main) == (True, False) and "hard" in hard.what and "easy" in easy.what
    assert hard.effect.mean == pytest.approx(np.mean(gain)) and not (hard.trivial or easy.trivial)
    assert ("on 299 images" in hard.what) == (images < 300) and (images == 300 or not hard.needs)


@pytest.mark.parametrize("low, trivial", [(0.005, True), (0.0051, False)])
def test_c7_counts_no_feature_that_sgd_has_no_error_of(low, trivial):
    hard, easy = real_data.checks_c7({"cifar-mnist": a_result(0.01 * HELD, sgd=(low, 0.3))})
    assert easy.trivial is trivial and not hard.trivial
    assert outcomes([hard, easy]) == ("ch" if trivial else "cc"), "half a point is the margin where there is more"


def test_c7_is_of_the_papers_sets_and_celebas_pairs_and_says_what_is_reduced_or_not_run():
    short, other = a_result(lacking=["1 of 4 seeds"]), protocols.OTHER_PAIRS[1].name
    paired = real_data.checks_c7({"cifar-mnist": None, "fmnist-mnist": short})
    assert outcomes(paired) == "--" and all(check.main for check in paired)
    checks = natural_images.checks_c7({"celeba": short, other: short, "birds_on_scenes": short})
    assert outcomes(checks) == "hh-hh" and "Waterbirds" in checks[2].what
    assert [check.main for check in checks] == [True, False, True, False, False]
    assert [check.reduced for check in checks] == [True, True, False, True, True]


def test_c3_and_c4_have_their_main_check_on_the_papers_pair(celeba):
    other = replace(celeba, protocol=BIRDS, lacking=[])
    c3, c4 = natural_images.checks_c3([other, celeba]), natural_images.checks_c4([other, celeba])
    assert [(check.main, check.reduced) for check in c3] == [*[(False, False)] * 2, (True, True), (False, True)]
    assert [check.main for check in c4] == 3 * [False] + [True] + 3 * [False], "slopes by themselves are not judged"
    real, phantom = real_data.gini(celeba)
    assert c3[3].effect.mean == pytest.approx((real[0] - phantom[1]).mean())
    changed, own = natural_images.changes(celeba), natural_images.changes(celeba, 1, "attribute")
    of = [(celeba.measured(2)["sam"], "label", "hair"), (celeba.measured(1)["sgd"], "attribute", "gender")]
    label, attribute = (net[0]["contributions"][reading]["attributes"][name] for net, reading, name in of)
    assert changed["share easy"][1, 0] == label["worst_share"]["phantom"] - label["worst_share"]["real"]
    assert changed["slope easy"][1, 0] == label["slope"] and own["slope hard"][0, 0] == attribute["slope"]
    assert not c4[-1].effect and mechanism.WHICH["share carried"][0] in c4[-1].what


# Numbers and figures.


def test_a_seed_chooses_by_the_first_column_and_by_the_second_among_equals():
    columns = ["seed", "method", "validation error", "validation loss", "hard"]
    sgd, low, loss, probe = ("sgd", 0.5, 1, 30), ("sam", 0.5, 2, 20), ("sam", 0.5, 1, 25), ("sam", 0.6, 0, 10)
    nets = pd.DataFrame([(seed, *net) for seed in (0, 1) for net in (sgd, low, loss, probe)], columns=columns)
    by = {name: real_data.gains_of_choice(nets[1:], columns).tolist() for name, columns in real_data.CHOICES.items()}
    assert by == {"validation": [5], "oracle": [20]}, "a seed without SGD is left out"


@pytest.mark.parametrize(
    "gains, counts", [([5, 5.1, 4.9], "111"), ([5, 0.1, 0.1], "110"), ([5, 0, 1], "100"), ([1, -1, 0], "000")]
)
def test_a_setting_is_below_sgd_in_the_mean_on_every_seed_or_by_its_interval(pair, gains, counts):
    nets = []
    for seed, gain in enumerate(gains):
        for record, trial in zip(pair.sweep, grid(CIFAR, seed)):
            rates = {"probing_error": {"cifar": {"error": 0.5 - gain * (trial.rho > 0) / 100}}}
            nets.append(record | {"configuration": trial.configuration, "metrics": record["metrics"] | rates})
    table = real_data.rows_of_sweep([replace(pair, sweep=nets)])
    rows = [row for name, row in table.items() if "same rate" in name]
    assert [row["CIFAR-MNIST, over 3 seeds"] for row in rows] == [f"{18 * int(count)} of 18" for count in counts]
    assert [rows[0][f"CIFAR-MNIST, seed {seed}"] for seed in range(3)] == [f"{18 * (gain > 0)} of 18" for gain in gains]


def test_numbers_of_the_prose_are_texts_whatever_is_there(celeba, pair):
    found, of_pair = real_data.numbers(celeba), real_data.numbers(pair)
    known = {"images": "64", "image": "1.56", "weights": "1,024", "rho": "0.02", "lsam": "not run here"}
    assert {name: found[name] for name in known} == known and of_pair["lacking"] == "nothing is lacking"
    errors = 100 * pair.errors.xs("cifar", axis=1, level="measure").mean()
    gains = {
        "hard": errors.sgd - errors.sam,
        "trained": errors.untrained - errors.sgd,
        "lsam": errors.sgd - errors.lsam,
    }
    assert all(of_pair[name].startswith(f"{gain:.2f} [") for name, gain in gains.items())
    wrong = [round(980 * error) for name in ("sgd", "sam", "lsam") for error in pair.errors[name, "mnist"]]
    assert of_pair["wrong"] == f"{min(wrong)} to {max(wrong)} of 980"
    swept = real_data.numbers_of_sweep(pair)
    assert swept["seeds"] == "4"
    for of, some in ((real_data.numbers, found), (real_data.numbers_of_sweep, swept)):
        assert of(None) == dict.fromkeys(some, "not run here")
    assert real_data.rows(real_data.rows_of_table, []) == real_data.rows_of_sweep([]) == {"": "not run here"}


@pytest.mark.usefixtures("styled")
def test_figures_of_weights_show_every_set_and_the_easy_feature_to_the_left(celeba):
    curves = real_data.lorenz_curves([celeba, celeba, celeba], first=1).axes
    assert [len(ax.get_lines()) for ax in curves] == [5, 5, 5, 0] and not curves[3].axison
    assert curves[0].get_lines()[0].get_xdata()[0] == 0.01
    along, nets = natural_images.along_contributions([celeba], "ratio").axes, celeba.measured(2)["sgd"]
    assert [ax.get_title("left").split("\n")[1] for ax in along[:2]] == ["hair (easy)", "gender (hard)"]
    bins = [one["contributions"]["label"]["attributes"]["gender"]["bins"]["ratio"] for one in nets]
    np.testing.assert_allclose(along[1].get_lines()[0].get_ydata(), np.exp(np.mean(np.log(bins), axis=0)))
    found = nets[0]["contributions"]["label"]["map"]
    for features in (("hair", "gender"), ("gender", "hair")):
        turned, own = features != tuple(found["attributes"]), natural_images._maps(nets[0], features)[0]
        assert own.easy_edges.tolist() == found["edges"][turned]
        assert own.count[3, 4] == (found["images"][4][3] if turned else found["images"][3][4])
    assert len(natural_images.weight_maps(celeba).axes) == 3 * 4 + 2
    plt.close("all")


@pytest.mark.usefixtures("styled")
def test_figures_of_errors_have_every_feature_and_the_sweep_with_its_selection(pair, celeba):
    (ax,) = real_data.gains([pair, celeba]).axes
    names = [label.get_text().split(": ")[1] for label in ax.get_yticklabels()]
    assert names == ["CIFAR", "MNIST", "gender", "hair"]
    hard, easy = (one.lines[0] for one in ax.containers)
    assert (hard.get_ydata().tolist(), easy.get_ydata().tolist()) == ([0, 2], [1, 3])
    np.testing.assert_allclose(hard.get_xdata()[0], 100 * pair.gains("cifar").mean())
    (ax,) = real_data.against_rho([pair]).axes
    rings = [line.get_xdata() for line in ax.get_lines() if line.get_markersize() == 11 and len(line.get_xdata())]
    assert len(ax.containers) == 3 and [round(at[0]) for at in rings] == [0, 5]
    plt.close("all")


def test_readings_have_the_words_of_every_net_below_a_picture():
    images = torch.zeros((1, 3, 4, 2), dtype=torch.uint8)
    fig = real_data.readings([(images, ["SGD reads 1"]), (images, ["SAM reads 0"])])
    assert [[text.get_text() for text in ax.texts] for ax in fig.axes] == [["SGD reads 1\nSAM reads 0"], [], [], []]
    plt.close("all")
