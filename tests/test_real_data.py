"""Chapter 7: sweeps and what validation data select on them, results by data set, the rules of C7, C3 and C4 on either
side of their borders, tables and figures."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from image_trees import write_celeba
from records import whole

from book import protocols, real_data
from book.experiments import experiments
from book.protocols import FULL, PAIRED, REDUCED, SEEDS, comparison, grid, selected, table, weight_trials
from lib.measure import BINS, binned, mapped, summary
from lib.trials import run
from lib.trials.images import ImageTrial, Reading, grouped
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


def test_full_protocol_is_counted_in_passes():
    base = replace(FULL["celeba"].base, epochs=10)
    protocol, images = protocols.Protocol(base, (0.1,), (0.05,)), 162_770
    assert protocols.training_images(base.configuration) == images
    assert protocols.passes(protocol, seeds=3) == (10 * 3 + 2 * 10 * 3) * images
    assert protocols.passes(replace(protocol, moments=(4, 10)), 3) == (90 + 3 * (4 * 3 + 2 * 2 * 2)) * images
    double = replace(protocol, base=replace(base, size=224))
    assert protocols.hours([double], 3) == pytest.approx(4 * protocols.hours([protocol], 3))


# Results.


def test_result_is_there_only_where_all_its_trials_are(store, celeba):
    assert len(celeba.records) == 3 * SEEDS and len(celeba.weights) == 2 * 2 * SEEDS and len(celeba.sweep) == 6
    assert celeba.features == ("gender", "hair") and celeba.title == "CelebA"
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
    assert real_data.gini(celeba, 1).shape == (2, 2, SEEDS)
    assert real_data.gini(replace(celeba, weights=lost), 1).shape == (2, 2, SEEDS - 1)


# Rules. Means on the claim's side are not enough: an interval that touches the border does not hold.

HOLDS, TOUCHES = np.array([0.03, 0.01, 0.02, 0.01]), np.array([0.05, 0.0, 0.0, 0.0])


@pytest.mark.parametrize("gains, holds", [(HOLDS, True), (TOUCHES, False), (-HOLDS, False)])
def test_c7_holds_for_a_feature_where_the_whole_interval_is_above_zero(pair, gains, holds):
    errors = pair.errors.copy()
    errors["sam", "cifar"] = errors["sgd", "cifar"].to_numpy() - gains
    pair.__dict__["errors"] = errors
    hard, easy, *rest = real_data.checks_c7({"cifar-mnist": pair})
    assert "hard" in hard.what and (hard.holds, easy.holds) == (holds, True) and not hard.reduced
    assert hard.effect.mean == pytest.approx(gains.mean())
    assert [check.holds for check in rest] == [None] * 3


def test_c7_is_of_the_papers_sets_pairs_only_by_the_whole_protocol_natural_ones_as_reduced(celeba, pair):
    short = replace(pair, lacking=["1 of 4 seeds"])
    checks = real_data.checks_c7({"fmnist-mnist": short, "celeba": celeba, "birds_on_scenes": celeba})
    found = [(check.what.split(":")[0], check.holds, check.reduced) for check in checks]
    unrun = [(name, None, False) for name in ("CIFAR-MNIST", "FMNIST-MNIST", "Waterbirds")]
    assert found == [*unrun[:2], ("CelebA", True, True), ("CelebA", True, True), unrun[2]]


@pytest.mark.parametrize("gap, holds", [(HOLDS, True), (TOUCHES, False), (-HOLDS, False)])
@pytest.mark.parametrize("part", range(3))
def test_c3_is_within_either_net_and_between_them(part, gap, holds):
    """Each part fails alone, or holds, by the gap that it looks at."""
    even = np.array([[HOLDS + 0.4, np.full(4, 0.3)], [np.full(4, 0.35), np.full(4, 0.3)]])
    if part == 2:
        even[0, 0], even[0, 1], even[1, 0] = even[1, 1] + gap, even[1, 1] + gap - 0.1, even[1, 1] + 0.1
    else:
        even[part, 0] = even[part, 1] + gap
        even[1, 1 - part] -= 0.2 * (part == 0)
    checks = real_data.checks_c3("CelebA", even, reduced=True)
    assert checks[part].holds == holds and checks[part].effect.mean == pytest.approx(gap.mean())
    sgd, sam = even
    means = [np.mean(sgd[0] - sgd[1]), np.mean(sam[0] - sam[1]), np.mean(sgd[0] - sam[1])]
    assert [check.effect.mean for check in checks] == pytest.approx(means) and all(check.reduced for check in checks)


@pytest.mark.parametrize("values, holds", [(HOLDS, True), (TOUCHES, False), (-HOLDS, False)])
@pytest.mark.parametrize("name, sign", [("share easy", -1), ("share hard", 1), ("slope easy", 1), ("slope hard", -1)])
def test_c4_has_the_signs_of_the_claim_for_both_nets(name, sign, values, holds):
    good = {"share easy": -HOLDS, "share hard": HOLDS, "slope easy": HOLDS, "slope hard": -HOLDS}
    changed = {key: np.array([one, one]) for key, one in good.items()}
    changed[name][1] = sign * values
    checks = dict(zip(good, real_data.checks_c4("CelebA", changed, reduced=False)))
    assert {key: check.holds for key, check in checks.items()} == dict.fromkeys(good, True) | {name: holds}
    assert f"({1 + holds} of 2)" in checks[name].what and not checks[name].reduced


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
    assert list(rows)[:4] == [f"CelebA, reduced: {one}" for one in what]
    hard = rows["CelebA, reduced: probe, hair (hard)"]
    assert hard["SGD"] == hard["before training"] == "29.85 ± 0.13" and hard["SGD less SAM"].startswith("5.00 [")
    assert "LSAM" not in hard and rows["CIFAR-MNIST: probe, CIFAR (hard)"]["LSAM"] == "24.85 ± 0.13"
    assert "CIFAR-MNIST: worst group" not in rows and "CIFAR-MNIST: own answer, MNIST (easy)" in rows
    assert real_data.rows(real_data.rows_of_table, []) == {"": "not run here"}


def test_sweep_is_told_in_numbers(pair):
    assert real_data.rows_of_sweep(pair)["CIFAR-MNIST"] == {
        "SGD, from to": "30.0 to 30.0",
        "SAM, from to": "25.0 to 25.0",
        "SAM below SGD at the same rate": "18 of 18",
        "selected: SGD less SAM": "5.0",
        "SGD at its best less SAM": "5.0",
    }
    test = real_data.rows_of_test(pair)["CIFAR-MNIST"]
    assert test["settings"] == "21" and test["test images wrong"] == "5 to 5 of 100"


def test_weights_are_told_by_net_and_moment(celeba):
    even = real_data.rows_of_evenness(celeba)
    assert list(even) == [f"CelebA, {net}, epoch {epoch}" for epoch in (1, 2) for net in ("SGD", "SAM")]
    means = [metrics["real"]["mean"] for metrics in celeba.measured(2)["sam"]]
    row = even["CelebA, SAM, epoch 2"]
    assert row["mean, real"].startswith(f"{np.mean(means):.2g}") and row["median, times"] == "1.00 ± 0.00"
    assert real_data.rows_of_which(celeba, "label")["CelebA, SAM, epoch 2"]["slope easy"] == "0.300 ± 0.000"
    assert real_data.rows_of_which(celeba, "attribute")["CelebA, SGD, epoch 1"]["slope hard"].startswith("7.0")


def test_numbers_of_the_prose_are_texts_whatever_is_there(celeba, pair):
    found = real_data.numbers(celeba)
    assert found["hard"].startswith("5.00 [") and found["images"] == "64" and found["image"] == "1.56"
    assert (found["weights"], found["rho"], found["lsam"]) == ("400", "0.07", "not run here")
    assert real_data.numbers(pair)["lsam"].startswith("5.00 [") and real_data.numbers(pair)["wrong"] == "3 to 6 of 64"
    assert set(real_data.numbers(None).values()) == {"not run here"} and real_data.numbers(None).keys() == found.keys()


def test_figures_show_every_moment_and_the_easy_feature_to_the_right(celeba):
    fig = real_data.lorenz_curves([celeba, celeba])
    assert [ax.get_title() for ax in fig.axes[:2]] == ["CelebA, epoch 1", "CelebA, epoch 2 (the end)"]
    along = real_data.along_contributions([celeba])
    lines = along.axes[0].get_lines()
    assert len(along.axes) == 4 and len(lines) == 4 and len(lines[0].get_xdata()) == BINS
    nets = celeba.measured(2)["sgd"]
    first = [one["contributions"]["label"]["attributes"]["gender"]["bins"]["real"][0] for one in nets]
    assert lines[0].get_ydata()[0] == pytest.approx(np.exp(np.mean(np.log(first))))
    found, real = nets[0]["contributions"]["label"]["map"], real_data._maps(nets[0], ("gender", "hair"))[0]
    assert real.easy_edges.tolist() == found["edges"][1] and real.count[3, 4] == found["images"][4][3]
    assert len(real_data.weight_maps(celeba).axes) == 3 * 4 + 2
    plt.close("all")


def test_figures_of_pairs_have_the_sweep_and_its_selection(pair):
    (above, *_), (hard, easy) = real_data.probing_errors([pair]).axes, real_data.against_rho([pair]).axes
    assert above.get_title() == "CIFAR (hard) in CIFAR-MNIST" and easy.get_title() == "MNIST (easy)\nin CIFAR-MNIST"
    rings = [line for line in hard.get_lines() if line.get_markersize() == 11]
    assert len(hard.get_lines()) == 3 + 2 and [line.get_xdata()[0] for line in rings] == [0, 6]
    (points,) = real_data.against_test_error([pair]).axes
    assert [len(line.get_xdata()) for line in points.get_lines()] == [18, 3]
    assert len(real_data.learning_curves([pair]).axes) == 3
    (lorenz,) = real_data.lorenz_of_pairs([pair]).axes
    even = lorenz.get_lines()[0]
    assert (
        (even.get_xdata() == even.get_ydata()).all() and len(even.get_xdata()) == 100 and len(lorenz.get_lines()) == 5
    )
    plt.close("all")


def test_readings_mark_a_probes_mistake():
    import torch

    truth = {"cifar": torch.tensor([0]), "mnist": torch.tensor([1])}
    probed = {"cifar": np.array([1]), "mnist": np.array([1])}
    reading = Reading(torch.zeros((1, 3, 4, 2), dtype=torch.uint8), truth, torch.tensor([1]), probed)
    fig = real_data.readings({"sgd": reading})
    texts = [text.get_text() for ax in fig.axes for text in ax.texts]
    assert texts == ["SGD answers by\nits probes read", "MNIST\nautomobile \N{BALLOT X}, 1"]
    plt.close("all")


def test_table_leaves_diverged_trials_out(store):
    diverge(store, CIFAR.base)
    assert table(store).empty
