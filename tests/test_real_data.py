"""Which trials make chapters 07 and 08: sweeps, what validation data select on them, seeds, and tables of records."""

from dataclasses import replace

import pytest
from book.real_data_table import difference, easy_and_hard, errors, table
from book.real_data_table1 import comparison, grid, one_setting, plan, select, selected, shortfalls
from image_trees import write_celeba

from book import natural_plans
from book import real_data_table1 as table1
from book.experiments import experiments
from lib.data import domains
from lib.trials import run
from lib.trials.images import ImageTrial, grouped, paired
from lib.trials.store import Store
from lib.trials.trial import Place
from lib.trials.weights import WeightTrial

TRIAL = paired("cifar-mnist", "sgd", epochs=1, batch_size=10)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


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


def write_natural_sweep(store: Store, sweep: list[ImageTrial], at: dict | None = None) -> None:
    """Made-up records: validation error .5, or that `at` (lr, rho); the loss falls with rho."""
    for trial in sweep:
        error = (at or {}).get((trial.lr, trial.rho), 0.5)
        metrics = {"validation_error": error, "validation_loss": 1 - trial.rho}
        store.write({"configuration": trial.configuration, "status": "finished", "metrics": metrics})


def test_natural_setting_is_selected_by_validation_error_then_loss_for_each_method(store):
    protocol = natural_plans.groups_reduced("celeba")
    sweep = natural_plans.grid(protocol)
    write_natural_sweep(store, sweep[1:])
    assert natural_plans.selected(protocol, store) is None
    write_natural_sweep(store, sweep, at={(0.001, 0.0): 0.2, (0.01, 0.02): 0.1, (0.001, 0.07): 0.1})
    chosen = {name: (trial.lr, trial.rho) for name, trial in natural_plans.selected(protocol, store).items()}
    assert chosen == {"sgd": (0.001, 0), "sam": (0.001, 0.07)}
    for trial in sweep[:2]:
        store.write({"configuration": trial.configuration, "status": "diverged", "metrics": None})
    assert natural_plans.select(sweep[:2] + sweep[3:4], store) == sweep[3]
    with pytest.raises(ValueError, match="all 2 of celeba with sgd diverged"):
        natural_plans.select(sweep[:2], store)


def test_group_plan_is_the_sweep_and_then_seeds_and_weights(store):
    protocol = natural_plans.groups_reduced("birds_on_scenes")
    before = natural_plans.plan([protocol], store, seeds=4)
    assert len(before.trials) == 6 == len(natural_plans.grid(protocol))
    write_natural_sweep(store, natural_plans.grid(protocol), at={(0.01, 0.07): 0.1})
    after = natural_plans.plan([protocol], store, seeds=4)
    assert after.later == 0 and len(after.trials) == 6 + before.later
    assert len({trial.identity for trial in after.trials}) == len(after.trials)
    nets = [trial for trial in after.trials if isinstance(trial, ImageTrial)]
    measured = [trial for trial in after.trials if isinstance(trial, WeightTrial)]
    assert {trial.seed for trial in nets} == {0, 1, 2, 3} and len(measured) == 4 * 2 * 2
    assert {trial.epoch for trial in measured} == {*protocol.moments, None} == {1, None}
    assert {trial.batches for trial in measured} == {natural_plans.REDUCED_BATCHES}
    assert {trial.of for trial in measured} <= set(nets) and {trial.rho for trial in measured} == {0.07}


def test_reduced_pacs_needs_no_selection(store):
    trials = natural_plans.plan(natural_plans.domains_reduced("pacs"), store, seeds=3)
    assert trials.later == 0 and len(trials.trials) == 4 * 3 * 3
    assert {(trial.data.target, trial.method, trial.seed) for trial in trials.trials if trial.epochs} == {
        (target, method, seed) for target in "ACPS" for method in ("sgd", "sam") for seed in range(3)
    }


def test_full_protocols_are_the_papers():
    for dataset, epochs in (("celeba", 20), ("waterbirds", 100)):
        sweep = natural_plans.grid(natural_plans.groups_full(dataset))
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
    for benchmark in domains.BENCHMARKS:
        protocols = natural_plans.domains_full(benchmark)
        assert [protocol.base.data.target for protocol in protocols] == list(domains.BENCHMARKS[benchmark].domains)
        assert all({one.rho for one in natural_plans.grid(protocol)} == {0, 0.03, 0.05, 0.1} for protocol in protocols)


def test_experiments_on_natural_images_say_what_is_reduced():
    known = experiments()
    for name in ("celeba", "birds-on-scenes", "pacs"):
        assert "reduced" in known[name].about
    for name in ("celeba-full", "waterbirds-full", "pacs-full", "vlcs-full", "office-home-full"):
        assert "the paper's protocol" in known[name].about


def test_whole_plan_is_computed_from_the_images_of_another_set(tmp_path, store, own_cache):
    write_celeba(tmp_path)
    place = Place(tmp_path, "cpu", checkpoints=tmp_path / "checkpoints")
    base = grouped("celeba", "sgd", epochs=1, batch_size=12, size=32, weights="none", lr=0.01)
    protocol = natural_plans.Protocol(base, rates=(0.01,), radii=(0.05,))
    whole = natural_plans.plan([protocol], store, seeds=1)
    (sgd, sam, *rest), later = whole.trials, whole.later
    assert later == 0 and len(rest) == 3 and rest[0] == replace(sgd, epochs=0, lr=protocol.base.lr)
    records = run([sgd, sam, *rest], store, place, progress=False)
    assert [record["status"] for record in records] == 5 * ["finished"]
    assert set(records[0]["metrics"]["probing_error"]) == {"hair", "gender"}
    assert all(
        set(record["metrics"]["contributions"]["label"]["attributes"]) == {"hair", "gender"} for record in records[3:]
    )
