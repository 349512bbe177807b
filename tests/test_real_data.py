"""Chapter 7: sweeps and what validation data select on them, results by data set, the rules of C7, C3 and C4 on either
side of their borders, tables and figures."""

from dataclasses import replace
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from image_trees import write_celeba
from records import whole

from book import protocols, real_data
from book.claims import Outcome
from book.experiments import experiments
from book.protocols import FULL, PAIRED, REDUCED, SEEDS, comparison, grid, selected, table, weight_trials
from lib.measure import BINS, binned, mapped, summary
from lib.trials import run
from lib.trials.images import ImageTrial, grouped
from lib.trials.store import Store
from lib.trials.trial import MissingTrials, Place
from lib.trials.weights import WeightTrial

CIFAR, CELEBA = PAIRED["cifar-mnist"], REDUCED["celeba"]
NOWHERE = Place("/nowhere", "cpu", checkpoints=None)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


def error_record(trial: ImageTrial, validation: float = 0.5, hard: float = 0.3, easy: float = 0.1) -> dict:
    """Made up: SAM's and LSAM's probing errors are 0.05 below the given ones, and all fall by 0.001 a seed."""
    gain = (0.05 if trial.rho else 0.0) + 0.001 * trial.seed
    natural = trial.weights is not None
    names = ("hair", "gender") if natural else ("cifar", "mnist")
    rates = {name: {"error": error - gain, "examples": 64} for name, error in zip(names, (hard, easy))}
    test = {"worst_group_error": 0.4, "groups": {}} if natural else {"examples": 100}
    curve = {name: [0.5] * trial.epochs for name in ("train_loss", "validation_loss", "validation_error")}
    return {
        "configuration": trial.configuration,
        "status": "finished",
        "diverged_at": None,
        "metrics": {
            "validation_error": validation,
            "validation_loss": 1 - trial.rho,
            "probing_error": rates,
            "classifier_error": rates,
            "test_error": {"error": 0.05, **test},
        },
        "curve": curve,
        "images": {"train": 7000},
        "weights": {"fresh": ["layer4", "fc"] if natural else []},
        "seconds": {"total": 1.0},
    }


def weight_record(trial: WeightTrial, tilt: float = 0.3) -> dict:
    """Weights that fall with both contributions; at the phantom less with that of gender, the easy one."""
    random = np.random.default_rng([trial.of.seed, trial.of.method == "sam", trial.epoch or 0])
    contributions = {"hair": random.normal(1, 1, 400), "gender": random.normal(2, 1, 400)}
    real = 0.5 / (1 + np.exp(contributions["hair"] + contributions["gender"]))
    phantom = real * np.exp(tilt * contributions["gender"] - 0.1 * contributions["hair"])
    values = {"real": real, "phantom": phantom, "ratio": phantom / real / np.median(phantom / real)}
    attributes = {
        name: {
            "probing_error": 0.1,
            "slope": slope,
            "worst_share": {"real": 0.5, "phantom": 0.5 + change},
            "bins": binned(contributions[name], values),
        }
        for name, slope, change in (("hair", -0.1, 0.02), ("gender", tilt, -0.1))
    }
    own = {name: found | {"slope": 7.0} for name, found in attributes.items()}
    shown = mapped(contributions, values)
    readings = {"label": {"attributes": attributes, "map": shown}, "attribute": {"attributes": own, "map": shown}}
    metrics = {"real": summary(real), "phantom": summary(phantom), "median_ratio": 1.0, "contributions": readings}
    return {"configuration": trial.configuration, "status": "finished", "metrics": metrics, "seconds": {"total": 1.0}}


def diverge(store: Store, trial: ImageTrial) -> None:
    store.write(whole(error_record(trial) | {"status": "diverged", "diverged_at": 3, "metrics": None, "curve": {}}))


def write_sweep(store: Store, protocol: protocols.Protocol, at: dict | None = None) -> None:
    """Validation error .5, or that `at` (lr, rho); the loss falls with rho."""
    for trial in grid(protocol):
        store.write(whole(error_record(trial, (at or {}).get((trial.lr, trial.rho), 0.5))))


def write_all(store: Store, protocol: protocols.Protocol, seeds: int = SEEDS, **changes) -> None:
    """A whole row, made up: SGD at the first setting of the sweep, SAM at the last one, of the largest radius."""
    write_sweep(store, protocol)
    for trial in comparison(protocol, selected(protocol, store), seeds):
        store.write(whole(error_record(trial) | changes))
    for weights in weight_trials(protocol, selected(protocol, store), seeds):
        store.write(whole(weight_record(weights)))


@pytest.fixture
def celeba(store) -> protocols.Result:
    write_all(store, CELEBA)
    return protocols.stored(CELEBA, store)


@pytest.fixture
def pair(store) -> protocols.Result:
    write_all(store, CIFAR)
    return protocols.stored(CIFAR, store)


# Sweeps and selection.


@pytest.mark.parametrize(
    "protocol, at, sgd, sam",
    [
        (CIFAR, {(0.01, 0.0): 0.2, (0.05, 0.1): 0.1, (0.1, 0.01): 0.1}, (0.01, 0), (0.05, 0.1)),
        (CELEBA, {(0.001, 0.0): 0.2, (0.01, 0.02): 0.1, (0.001, 0.07): 0.1}, (0.001, 0), (0.001, 0.07)),
    ],
)
def test_setting_is_selected_by_validation_error_then_loss_for_each_method(store, protocol, at, sgd, sam):
    for trial in grid(protocol)[1:]:
        store.write(whole(error_record(trial)))
    assert selected(protocol, store) is None, "the sweep is not complete"
    write_sweep(store, protocol, at)
    chosen = {name: (trial.method, trial.lr, trial.rho) for name, trial in selected(protocol, store).items()}
    expected = {"sgd": ("sgd", *sgd), "sam": ("sam", *sam), "lsam": ("lsam", *sam)}
    assert chosen == {name: expected[name] for name in (expected if protocol.lsam else ("sgd", "sam"))}


def test_diverged_trials_are_never_selected(store):
    write_sweep(store, CIFAR)
    for trial in grid(CIFAR):
        if (trial.lr, trial.rho) not in ((0.1, 0.01), (0.05, 0)):
            diverge(store, trial)
    chosen = selected(CIFAR, store)
    assert (chosen["sgd"].lr, chosen["sam"].lr) == (0.05, 0.1)
    diverge(store, replace(CIFAR.base, lr=0.05))
    with pytest.raises(ValueError, match="a trial that finished, but all 3 as cifar-mnist sgd lr 0.01 seed 0 did not"):
        selected(CIFAR, store)


def test_protocols_are_the_papers():
    for name, protocol in PAIRED.items():
        trials = grid(protocol)
        assert len({trial.identity for trial in trials}) == 21 and protocol.base.data.name == name
        assert {trial.lr for trial in trials} == {0.01, 0.05, 0.1}
        assert {trial.rho for trial in trials} == {0, 0.01, 0.03, 0.05, 0.07, 0.1, 0.2}
    base = PAIRED["fmnist-mnist"].base
    assert (base.epochs, base.momentum, base.batch_size, base.weight_decay) == (20, 0.9, 100, 0)
    for name, epochs in (("celeba", 20), ("waterbirds", 100)):
        trials, base = grid(FULL[name]), FULL[name].base
        assert len(trials) == 20 and {trial.lr for trial in trials} == {0.0005, 0.001, 0.005, 0.01}
        assert {trial.rho for trial in trials} == {0, 0.01, 0.02, 0.05, 0.07}
        assert (base.epochs, base.momentum, base.batch_size, base.weights) == (epochs, 0.9, 128, "imagenet")
        assert base.weight_decay > 0
    for protocol in (*PAIRED.values(), *FULL.values(), *REDUCED.values()):
        assert all((trial.method == "sgd") == (trial.rho == 0) and trial.seed == 0 for trial in grid(protocol))
        assert protocol.moments[-1] == protocol.base.epochs


def test_comparison_pairs_every_method_by_seed():
    one = replace(CIFAR, rates=(0.05,), radii=(0.1,), base=replace(CIFAR.base, epochs=3))
    trials = comparison(one, selected(one, Store("nowhere")), seeds=2)
    kinds = [(trial.method, trial.rho, trial.epochs) for trial in trials]
    assert kinds == 2 * [("sgd", 0, 0), ("sgd", 0, 3), ("sam", 0.1, 3), ("lsam", 0.1, 3)]
    assert [trial.seed for trial in trials] == 4 * [0] + 4 * [1]
    others = comparison(one, selected(replace(one, rates=(0.1,), radii=(0.2,)), Store("nowhere")), seeds=2)
    assert [trial.epochs for trial in set(trials) & set(others)] == [0, 0], "the untrained nets, whatever the setting"


@pytest.mark.parametrize("protocol, sweep", [(CIFAR, 21), (REDUCED["birds_on_scenes"], 6)])
def test_plan_is_the_sweep_and_then_the_selected_settings_on_every_seed(store, protocol, sweep):
    before = protocols.plan([protocol], store, seeds=4)
    assert len(before.trials) == sweep == len(grid(protocol))
    write_sweep(store, protocol)
    after = protocols.plan([protocol], store, seeds=4)
    assert after.later == 0 and len({trial.identity for trial in after.trials}) == sweep + before.later
    nets = [trial for trial in after.trials if isinstance(trial, ImageTrial)]
    measured = [trial for trial in after.trials if isinstance(trial, WeightTrial)]
    assert {trial.seed for trial in nets} == {0, 1, 2, 3} and len(measured) == 4 * 2 * len(protocol.moments)
    assert {trial.method for trial in nets} == set(selected(protocol, store))
    assert {trial.epoch for trial in measured} == {*protocol.moments[:-1], None}
    assert {trial.batches for trial in measured} == {protocol.batches}
    assert {trial.of for trial in measured} <= set(nets) and {trial.rho for trial in measured} == {protocol.radii[-1]}
    order = [after.trials.index(trial) for trial in measured if trial.epoch and trial.of.seed == 1]
    whole = [after.trials.index(trial) for trial in nets if trial.epochs and trial.seed == 1]
    assert not order or max(order) < min(whole), "a training goes on from where weights within it were measured"


def test_experiments_on_natural_images_say_what_is_reduced():
    known = experiments()
    for name in ("celeba", "birds-on-scenes", "pacs"):
        assert "reduced" in known[name].about
    for name in ("celeba-full", "waterbirds-full", "pacs-full", "vlcs-full", "office-home-full"):
        assert "the paper's protocol" in known[name].about
    assert all(known[name].store.experiment == name for name in ("celeba", "vlcs-full"))


def test_whole_plan_is_computed_from_the_images(tmp_path, store, own_cache):
    write_celeba(tmp_path)
    place = Place(tmp_path, "cpu", checkpoints=tmp_path / "checkpoints")
    base = grouped("celeba", "sgd", epochs=1, batch_size=12, size=32, weights="none", lr=0.01)
    protocol = protocols.Protocol(base, rates=(0.01,), radii=(0.05,), moments=(1,))
    plan = protocols.plan([protocol], store, seeds=1)
    sgd, sam, *rest = plan.trials
    assert plan.later == 0 and len(rest) == 3 and rest[0] == replace(sgd, epochs=0, lr=protocol.base.lr)
    records = run(plan.trials, store, place, progress=False)
    assert [record["status"] for record in records] == 5 * ["finished"]
    assert set(records[0]["metrics"]["probing_error"]) == {"hair", "gender"}
    assert protocols.stored(protocol, store, 1).measured()["sam"][0].keys() >= {"real", "phantom", "contributions"}


# Results.


def test_result_is_there_only_where_all_its_trials_are(store, celeba):
    assert len(celeba.records) == 3 * SEEDS and len(celeba.weights) == 2 * 2 * SEEDS and len(celeba.sweep) == 6
    assert celeba.features == ("gender", "hair") and celeba.title == "CelebA, hair and gender"
    assert (
        protocols.stored(REDUCED["birds_on_scenes"], store) is None and protocols.stored(FULL["celeba"], store) is None
    )
    assert protocols.stored(CELEBA, store, SEEDS + 1) is None
    assert len(protocols.stored(CELEBA, store, SEEDS + 1, partial=True).records) == 3 * SEEDS


def test_table_tells_easy_from_hard_by_sgd_and_pairs_differences_by_seed(store):
    for trial in comparison(CIFAR, selected(replace(CIFAR, rates=(0.05,), radii=(0.1,)), store), 3):
        store.write(whole(error_record(trial, hard=0.3 + 0.1 * trial.seed)))
        if trial.seed == 2 and trial.method == "sam":
            diverge(store, trial)
    found = protocols.computed(CIFAR, store, NOWHERE, 3, lr=0.05, rho=0.1)
    assert found.features == ("mnist", "cifar"), "the lower mean error under SGD"
    np.testing.assert_allclose(found.errors["sam", "cifar"], [0.25, 0.349, np.nan])
    np.testing.assert_allclose(found.gains("cifar"), [0.05, 0.05])
    assert len(found.gains("cifar", "lsam")) == 3
    assert found.errors["untrained", "mnist"].tolist() == pytest.approx([0.1, 0.099, 0.098])
    assert len(protocols.diverged(found)) == 1 and not found.weights, "short of the protocol nothing is weighed"


def test_missing_trials_are_named_with_the_command(store):
    assert protocols.computed(CIFAR, store, NOWHERE) is None, "something has to be selected"
    with pytest.raises(MissingTrials, match="CIFAR-MNIST: not run here: python -m book.sweep cifar-mnist"):
        protocols.require({"cifar-mnist": None})
    with pytest.raises(MissingTrials, match="4 of 4 trials"):
        protocols.computed(CIFAR, store, NOWHERE, 1, lr=0.05, rho=0.1)
    for trial in comparison(CIFAR, selected(replace(CIFAR, rates=(0.05,), radii=(0.1,)), store), 1):
        diverge(store, trial) if trial.method == "lsam" else store.write(whole(error_record(trial)))
    with pytest.raises(MissingTrials, match="no trial of lsam finished: seed 0 diverged at step 3; take a smaller lr"):
        protocols.computed(CIFAR, store, NOWHERE, 1, lr=0.05, rho=0.1)


def test_own_learning_rate_or_radius_replaces_the_selected_one(store, pair):
    changed = dict(epochs=20, batch_size=100)
    same = protocols.computed(CIFAR, store, NOWHERE, **changed)
    assert same.settings == pair.settings and same.lacking == [] and len(same.weights) == 2 * SEEDS
    for trial in comparison(CIFAR, {name: replace(one, lr=0.05) for name, one in pair.settings.items()}, SEEDS):
        store.write(whole(error_record(trial)))
    other = protocols.computed(CIFAR, store, NOWHERE, lr=0.05)
    assert {trial.lr for trial in other.settings.values()} == {0.05} and other.settings["sam"].rho == 0.2
    assert other.lacking == ["another setting than the selected one"]


def test_what_a_result_lacks_of_the_protocol_is_said_with_the_command(store, celeba, pair):
    words = protocols.standing("celeba", celeba)
    assert words.startswith(
        "reduced: 2 of 20 epochs, 64 of 112 pixels a side, 6 of 20 settings in the sweep, 7,000 of 162,770 training "
        "images, ImageNet's weights but for layer4; SGD at learning rate 0.001, SAM at 0.001 and rho 0.07"
    )
    assert protocols.standing("cifar-mnist", pair).startswith("the whole protocol;")
    assert protocols.standing("waterbirds", None, "full") == "not run here: python -m book.sweep waterbirds-full"
    assert protocols.standing("birds_on_scenes", None, "reduced").endswith("book.sweep birds-on-scenes")
    own = replace(CIFAR.base, epochs=1, batch_size=10, train_limit=50)
    short = protocols.shortfalls(CIFAR, CIFAR, [error_record(own)], swept=0)
    assert short == [
        "1 of 20 epochs",
        "0 of 21 settings in the sweep",
        "1 of 4 seeds",
        "batch_size 10",
        "train_limit 50",
    ]
    write_all(store, REDUCED["birds_on_scenes"])
    birds = protocols.stored(REDUCED["birds_on_scenes"], store)
    assert birds.lacking[:3] == ["4 epochs", "64 pixels a side", "6 settings in the sweep"], "it has no protocol"


@pytest.mark.parametrize("images, lacking", [(162_769, ["162,769 of 162,770 training images"]), (162_770, [])])
def test_whole_protocol_on_part_of_the_images_is_reduced(store, images, lacking):
    write_all(store, FULL["celeba"], images={"train": images}, weights={"fresh": ["fc"]})
    assert protocols.stored(FULL["celeba"], store).lacking == lacking


def test_seeds_are_paired_and_a_diverged_net_leaves_its_seed_out(celeba):
    lost = [
        record | {"status": "diverged", "metrics": None}
        if record["configuration"]["of"]["method"] == "sam" and record["configuration"]["of"]["seed"] == 1
        else record
        for record in celeba.weights
    ]
    assert real_data.gini(celeba, 1)[1, 0, 2] == celeba.measured(1)["sgd"][2]["phantom"]["gini"]
    assert real_data.gini(replace(celeba, weights=lost), 1).shape == (2, 2, SEEDS - 1)


def test_sweep_has_the_further_seeds_of_which_all_of_it_is_stored(store, pair):
    again = [replace(trial, seed=seed) for seed in (1, 2) for trial in grid(CIFAR)]
    for trial in again[:-1]:
        store.write(whole(error_record(trial)))
    assert {one["configuration"]["seed"] for one in protocols.stored(CIFAR, store).sweep} == {0, 1}
    store.write(whole(error_record(again[-1])))
    more = protocols.stored(CIFAR, store)
    assert {one["configuration"]["seed"] for one in more.sweep} == {0, 1, 2} and more.lacking == pair.lacking


def test_hardware_is_told_with_the_number_of_records():
    cpu = {"hardware": {"device": "cpu", "model": "a CPU", "threads": 1}}
    gpu = {"hardware": {"device": "cuda", "model": "a GPU", "threads": 1}}
    assert protocols.hardware([cpu, gpu, gpu]) == "a GPU (2); a CPU, 1 thread (1)"


# Rules. Means on the claim's side are not enough: an interval that touches the border does not hold.

LETTERS = {"h": Outcome.HOLDS, "u": Outcome.UNDECIDED, "c": Outcome.CONTRADICTED, "-": Outcome.NOT_RUN}
HELD = np.linspace(0.018, 0.022, 8)
SMALL = np.linspace(-1, 1, 8) * 0.005
SIDES = [  # the effect on the claim's side by seed, and what becomes of it where half a point is too small to matter
    (HELD, "h"),
    (HELD[1:], "u"),  # seven seeds
    (0.01 + 5 * SMALL, "u"),  # the interval reaches below 0
    (-HELD, "c"),
    (0.3 * SMALL, "c"),  # wholly within half a point
    (0.004 + 0.03 * SMALL, "c"),
    (0.005 + 0.03 * SMALL, "h"),  # in part beyond
]


def outcomes(checks) -> str:
    return "".join(next(letter for letter, one in LETTERS.items() if one is check.outcome) for check in checks)


def a_result(gain=HELD, sgd=(0.1, 0.3), images=300, lacking=(), name="a set"):
    """What C7 asks of a result: both features are gained alike."""
    errors = {("sgd", feature): np.full(len(gain), error) for feature, error in zip(("easy", "hard"), sgd)}
    rows = {"measure": ["easy", "hard", "test"], "examples": [images + 1, images, 5]}
    given = {"features": ("easy", "hard"), "table": pd.DataFrame(rows), "lacking": list(lacking), "title": name}
    return SimpleNamespace(errors=errors, gains=lambda measure: gain, **given)


@pytest.mark.parametrize(
    "options, found",
    [
        *(({"gain": gain}, 2 * letter) for gain, letter in SIDES),
        ({"images": 299}, "uu"),
        ({"images": 300}, "hh"),
        ({"gain": -HELD, "images": 299}, "uu"),
    ],
)
def test_c7_holds_for_a_feature_where_the_whole_interval_is_above_zero(options, found):
    hard, easy, *rest = real_data.checks_c7({"cifar-mnist": a_result(**options)})
    assert outcomes([hard, easy]) == found and outcomes(rest) == "---"
    assert (hard.main, easy.main) == (True, False) and "hard" in hard.what and "easy" in easy.what
    assert hard.effect.mean == pytest.approx(np.mean(options.get("gain", HELD))) and not (hard.trivial or easy.trivial)
    few = options.get("images", 300) < 300
    assert ("on 299 images" in hard.what) == few and not (few and hard.needs), "more seeds would not decide"


@pytest.mark.parametrize("low, trivial", [(0.005, True), (0.0051, False)])
def test_c7_counts_no_feature_that_sgd_has_no_error_of(low, trivial):
    hard, easy, *_ = real_data.checks_c7({"cifar-mnist": a_result(0.01 * HELD, sgd=(low, 0.3))})
    assert easy.trivial is trivial and not hard.trivial
    assert outcomes([hard, easy]) == ("ch" if trivial else "cc"), (
        "half a point is the margin where there is more to lower"
    )


def test_c7_is_of_the_papers_sets_and_celebas_pairs_and_says_what_is_reduced_or_not_run():
    short, other = a_result(lacking=["1 of 4 seeds"]), protocols.OTHER_PAIRS[1].name
    given = {"fmnist-mnist": short, "celeba": short, other: short, "birds_on_scenes": short}
    checks = real_data.checks_c7(given)
    assert outcomes(checks) == "--hh-hh"
    assert [check.main for check in checks] == [True, True, True, False, True, False, False]
    assert [check.reduced for check in checks] == [False, False, True, True, False, True, True]


def test_changes_are_those_of_the_phantom_by_either_reading(celeba):
    found = real_data.changes(celeba)
    assert {name: values.shape for name, values in found.items()} == dict.fromkeys(found, (2, SEEDS))
    means = {name: round(values.mean(), 6) for name, values in found.items()}
    assert means == {"share easy": -0.1, "slope easy": 0.3, "share hard": 0.02, "slope hard": -0.1}
    assert real_data.changes(celeba, 1, "attribute")["slope hard"].mean() == 7


# Rows, numbers and figures.


def test_table_has_every_method_and_measure_that_there_is(celeba, pair):
    rows = real_data.rows(real_data.rows_of_table, [celeba, pair])
    what = ("test", "worst group", "probe, hair (hard)", "probe, gender (easy)")
    assert list(rows)[:4] == [f"{celeba.title}, reduced: {one}" for one in what]
    hard = rows["CelebA, hair and gender, reduced: probe, hair (hard)"]
    assert hard["SGD"] == hard["before training"] == "29.85 ± 0.13" and hard["SGD less SAM"].startswith("5.00 [")
    assert "LSAM" not in hard and rows["CIFAR-MNIST: probe, CIFAR (hard)"]["LSAM"] == "24.85 ± 0.13"
    assert "CIFAR-MNIST: worst group" not in rows and "CIFAR-MNIST: own answer, MNIST (easy)" in rows
    assert real_data.rows(real_data.rows_of_table, []) == {"": "not run here"}


def test_sweep_is_told_in_numbers_seed_by_seed_and_over_seeds(store, pair):
    column = {name: row["CIFAR-MNIST, seed 0"] for name, row in real_data.rows_of_sweep([pair]).items()}
    assert column == {
        "SGD, from to": "30.0 to 30.0",
        "SAM, from to": "25.0 to 25.0",
        "SAM's settings below SGD at the same rate": "18 of 18",
        "SGD less SAM, chosen by validation": "5.0",
        "SGD less SAM, chosen by the hard probe": "5.0",
        "SGD's settings at the lowest validation error": "3 of 3",
        "SAM's settings at the lowest validation error": "18 of 18",
        "rank correlation with the test error": "0.00",
    }
    assert real_data.rows_of_surface(pair) == {} and real_data.rows_of_sweep([]) == {"": "not run here"}
    for trial in grid(CIFAR, 1):
        # The probe likes SAM at (.1, .2), validation SAM at (.01, .01), where the loss is not the lowest.
        place = {(0.1, 0.2): (0.5, 0.251), (0.01, 0.01): (0.4, 0.361)}.get((trial.lr, trial.rho), (0.5, 0.351))
        store.write(whole(error_record(trial, *place)))
    more = protocols.stored(CIFAR, store)
    rows = real_data.rows_of_sweep([more])
    over = {name: row["CIFAR-MNIST, over 2 seeds"] for name, row in rows.items()}
    assert over["SAM's settings below SGD at the same rate"] == "18 of 18"
    assert over["SGD less SAM, chosen by the hard probe"].startswith("10.0 [")
    assert over["SGD less SAM, chosen by validation"].startswith("4.5 [") and over["SGD, from to"] == ""
    assert rows["SAM's settings at the lowest validation error"]["CIFAR-MNIST, seed 1"] == "1 of 18"
    assert real_data.rows_of_surface(more)["CIFAR-MNIST, SGD"]["rate 0.05"].startswith("32.5 [")


def test_a_setting_is_below_sgd_in_the_mean_on_every_seed_or_by_its_interval(pair):
    for gains, counts in (
        ([5, 5.1, 4.9], "111"),
        ([5, 0.1, 0.1], "110"),
        ([5, 0, 1], "100"),
        ([1, -1, 0], "000"),
        ([0, 0, 0], "000"),
    ):
        nets = [
            one
            | {
                "configuration": one["configuration"] | {"seed": seed},
                "metrics": one["metrics"] | {"probing_error": {"cifar": {"error": 0.5 - gain * (trial.rho > 0) / 100}}},
            }
            for seed, gain in enumerate(gains)
            for one, trial in zip(pair.sweep, grid(CIFAR))
        ]
        result = replace(pair, sweep=nets)
        result.__dict__["features"] = pair.features
        rows = real_data.rows_of_sweep([result])
        found = [row["CIFAR-MNIST, over 3 seeds"] for name, row in rows.items() if "same rate" in name]
        assert found == [f"{18 * int(count)} of 18" for count in counts], gains
        own = [rows["SAM's settings below SGD at the same rate"][f"CIFAR-MNIST, seed {seed}"] for seed in range(3)]
        assert own == [f"{18 * (gain > 0)} of 18" for gain in gains]


def test_weights_are_told_by_net_and_moment(celeba):
    even = real_data.rows_of_evenness(celeba)
    assert list(even) == [f"{celeba.title}, {net}, epoch {epoch}" for epoch in (1, 2) for net in ("SGD", "SAM")]
    means = [metrics["real"]["mean"] for metrics in celeba.measured(2)["sam"]]
    row = even["CelebA, hair and gender, SAM, epoch 2"]
    assert row["mean, real"].startswith(f"{np.mean(means):.2g}") and row["median, times"] == "1.00 ± 0.00"
    assert (
        real_data.rows_of_which(celeba, "label")["CelebA, hair and gender, SAM, epoch 2"]["slope easy"]
        == "0.300 ± 0.000"
    )
    assert real_data.rows_of_which(celeba, "attribute")["CelebA, hair and gender, SGD, epoch 1"][
        "slope hard"
    ].startswith("7.0")


def test_numbers_of_the_prose_are_texts_whatever_is_there(celeba, pair):
    found = real_data.numbers(celeba)
    assert found["hard"].startswith("5.00 [") and found["images"] == "64" and found["image"] == "1.56"
    assert (found["weights"], found["rho"], found["lsam"]) == ("400", "0.07", "not run here")
    assert real_data.numbers(pair)["lsam"].startswith("5.00 [") and real_data.numbers(pair)["wrong"] == "3 to 6 of 64"
    assert set(real_data.numbers(None).values()) == {"not run here"} and real_data.numbers(None).keys() == found.keys()


def test_figures_of_weights_show_every_set_and_the_easy_feature_to_the_left(celeba):
    fig = real_data.lorenz_curves([celeba, celeba, celeba])
    assert [ax.get_title() for ax in fig.axes] == [*3 * ["CelebA, hair and gender"], ""] and fig.axes[3].axison is False
    assert {len(ax.get_lines()) for ax in fig.axes[:3]} == {1 + 4} and fig.axes[0].get_xscale() == "linear"
    even = real_data.lorenz_curves([celeba], first=1).axes[0].get_lines()[0]
    assert (even.get_xdata() == even.get_ydata()).all() and even.get_xdata()[0] == 0.01
    along = real_data.along_contributions([celeba]).axes
    assert [ax.get_title().split("\n")[1] for ax in along[:2]] == ["gender (easy)", "hair (hard)"]
    line = along[0].get_lines()[0]
    nets = celeba.measured(2)["sgd"]
    first = [one["contributions"]["label"]["attributes"]["gender"]["bins"]["ratio"][0] for one in nets]
    assert line.get_ydata()[0] == pytest.approx(np.exp(np.mean(np.log(first)))) and len(line.get_xdata()) == BINS
    found, real = nets[0]["contributions"]["label"]["map"], real_data._maps(nets[0], ("gender", "hair"))[0]
    assert real.easy_edges.tolist() == found["edges"][1] and real.count[3, 4] == found["images"][4][3]
    assert len(real_data.weight_maps(celeba).axes) == 3 * 4 + 2
    plt.close("all")


def test_figures_of_errors_have_every_feature_and_the_sweep_with_its_selection(pair, celeba):
    (ax,) = real_data.gains([pair, celeba]).axes
    names = [
        "CIFAR-MNIST: CIFAR",
        "CIFAR-MNIST: MNIST",
        "CelebA, hair and gender: hair",
        "CelebA, hair and gender: gender",
    ]
    assert [label.get_text() for label in ax.get_yticklabels()] == names
    hard, easy = ax.containers
    assert [one.lines[0].get_ydata().tolist() for one in (hard, easy)] == [[0, 2], [1, 3]]
    np.testing.assert_allclose(hard.lines[0].get_xdata(), [5, 5])
    (ax,) = real_data.against_rho([pair]).axes
    rings = [line for line in ax.get_lines() if line.get_markersize() == 11]
    assert ax.get_title() == "CIFAR-MNIST: CIFAR (hard), one seed" and len(ax.get_lines()) == 3 + 2
    assert [round(line.get_xdata()[0]) for line in rings] == [0, 6] and not ax.containers
    plt.close("all")


def test_readings_mark_a_probes_mistake():
    import torch

    truth = {"cifar": torch.tensor([0]), "mnist": torch.tensor([1])}
    probed = {"cifar": np.array([1]), "mnist": np.array([1])}
    reading = real_data.Reading(torch.zeros((1, 3, 4, 2), dtype=torch.uint8), truth, torch.tensor([1]), probed)
    fig = real_data.readings({"sgd": reading})
    texts = [text.get_text() for ax in fig.axes for text in ax.texts]
    assert texts == ["SGD answers by\nits probes read", "MNIST\nautomobile \N{BALLOT X}, 1"]
    plt.close("all")


def test_table_leaves_diverged_trials_out(store):
    diverge(store, CIFAR.base)
    assert table(store).empty
