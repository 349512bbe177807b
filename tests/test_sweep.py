import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import pytest
from sweep_trials import ChainTrial

from book import sweep
from lib.trials import SweepError, run, status
from lib.trials.plan import Experiment, Plan, seconds_left
from lib.trials.store import ResultWarning, Store, identity
from lib.trials.trial import MissingTrials, Place

SCRIPT = Path(__file__).with_name("sweep_trials.py")
KILLS = 50


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def place(tmp_path):
    return Place(checkpoints=tmp_path / "checkpoints")


@pytest.fixture
def log(tmp_path):
    """Counts of (event, number) in all processes of a test."""
    path = tmp_path / "log"
    path.touch()
    return lambda: Counter(tuple(line.split()[:2]) for line in path.read_text().splitlines())


def chains(*numbers: int, **changes) -> list[ChainTrial]:
    return [ChainTrial(number, **changes) for number in numbers]


def start(folder: Path, count: int, jobs: int, step: float) -> subprocess.Popen:
    environment = {**os.environ, "SWEEP_STEP": str(step), "PYTHONPATH": str(SCRIPT.parents[1])}
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder), str(count), str(jobs)],
        env=environment,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def contents(store: Store) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(store.folder.glob("chain/*"))}


@pytest.mark.parametrize("jobs", [1, 2])
def test_sweep_computes_only_what_is_missing_and_returns_records_in_order(store, place, log, jobs):
    run(chains(3), store, place)
    records = run(chains(1, 3, 2, 1), store, place, jobs=jobs)
    assert [record["configuration"]["number"] for record in records] == [1, 3, 2, 1]
    assert all(count == 1 for count in log().values()) and len(contents(store)) == 3
    assert run(chains(1, 2), store, place, jobs=jobs) == [records[0], records[2]]


def test_jobs_and_processes_change_no_record(store, place, tmp_path):
    run(chains(*range(6)), store, place)
    other = Store(tmp_path / "other")
    run(chains(*range(6)), other, Place(checkpoints=tmp_path / "others"), jobs=3)
    assert contents(store) == contents(other)


def test_missing_data_stop_a_sweep_before_any_work(store, place, log):
    with pytest.raises(MissingTrials, match="1 of 2 trials are not stored, and its links are lost"):
        run([*chains(1), *chains(2, behaviour="lack")], store, place)
    assert not log()


@pytest.mark.parametrize("jobs", [1, 2])
def test_trial_that_raises_is_named_and_the_others_are_computed(store, place, jobs):
    trials = [*chains(1), *chains(7, behaviour="raise"), *chains(2)]
    with pytest.raises(SweepError) as caught:
        run(trials, store, place, jobs=jobs)
    assert str(caught.value) == "chain 7: RuntimeError: a link broke"
    assert sorted(record["configuration"]["number"] for record in store) == [1, 2]
    assert not list((store.folder / ".locks").glob("*.begun"))


def test_dead_worker_costs_its_trial_one_retry(store, place, log):
    trials = [*chains(*range(4)), *chains(7, behaviour="die once"), *chains(*range(4, 8))]
    records = run(trials, store, place, jobs=2)
    assert len(records) == 9 and None not in records
    (expected,) = run(chains(7), store, place)
    assert records[4]["metrics"] == expected["metrics"], "went on from its checkpoint to the same result"
    assert log()["begin", "7"] == 3  # died, retried, and the harmless chain 7 of the last line


def test_trial_that_kills_its_worker_again_is_named_and_harms_no_other(store, place, log):
    trials = [*chains(7, behaviour="die"), *chains(*range(6)), *chains(8, behaviour="die")]
    with pytest.raises(SweepError) as caught:
        run(trials, store, place, jobs=2)
    assert sorted(str(caught.value).splitlines()) == [
        "chain 7: its worker died 2 times",
        "chain 8: its worker died 2 times",
    ]
    assert sorted(record["configuration"]["number"] for record in store) == list(range(6))
    assert log()["begin", "7"] == log()["begin", "8"] == 2


def test_two_sweeps_share_a_store_and_compute_nothing_twice(tmp_path, store, log):
    sweeps = [start(tmp_path, 30, jobs, step=0.06) for jobs in (1, 2)]
    assert [sweep.wait(120) for sweep in sweeps] == [0, 0]
    assert log() == {(event, str(number)): 1 for event in ("begin", "end") for number in range(30)}
    assert len({pid for _, _, pid in _lines(tmp_path / "log")}) > 1, "both took part"
    assert len(list(store)) == 30


def test_sweep_killed_at_fifty_random_moments_ends_as_an_undisturbed_one(tmp_path, store):
    """Half of the kills take the whole process group, half the parent alone, which orphans its workers."""
    count, moments, kills = 120, random.Random(0), 0
    while kills < KILLS:
        sweep = start(tmp_path, count, jobs=1 + kills % 2, step=0.02)
        try:
            sweep.wait(moments.uniform(0, 2.5))
        except subprocess.TimeoutExpired:
            pass
        if sweep.poll() is None:
            if moments.random() < 0.5:
                os.killpg(sweep.pid, signal.SIGKILL)
            else:
                sweep.kill()
            kills += 1
        elif kills < KILLS:  # done too early for the kills that are left: take results away
            for path in sorted(store.folder.glob("chain/*.json"))[::3]:
                name = identity(json.loads(path.read_text())["configuration"])
                path.unlink()
                (tmp_path / "checkpoints" / f"{name}.pt").unlink()
        sweep.wait()
    assert start(tmp_path, count, jobs=2, step=0).wait(120) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResultWarning)  # no file is half written or foreign
        assert len(list(store)) == count
    undisturbed = Store(tmp_path / "undisturbed")
    run(chains(*range(count)), undisturbed, Place(checkpoints=tmp_path / "fresh"))
    assert contents(undisturbed) == {name: text for name, text in contents(store).items() if not name.endswith(".tmp")}


def test_dask_cluster_computes_what_one_machine_does_though_a_worker_is_killed(tmp_path, store, place, log):
    pytest.importorskip("distributed")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (SCRIPT.parent, SCRIPT.parents[1]))),
        "SWEEP_STEP": "0.05",
        "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "60s",
    }
    address, processes = tmp_path / "scheduler.json", []

    def launch(*command: str) -> subprocess.Popen:
        arguments = [
            sys.executable,
            "-m",
            f"distributed.cli.{command[0]}",
            *command[1:],
            "--scheduler-file",
            str(address),
        ]
        process = subprocess.Popen(arguments, env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL)
        processes.append(process)
        return process

    try:
        launch("dask_scheduler", "--port", "0", "--no-dashboard", "--host", "127.0.0.1")
        workers = [
            launch("dask_worker", "--nthreads", "1", "--no-nanny", "--no-dashboard", "--name", name)
            for name in ("first", "second")
        ]
        scheduler = _address(address)
        sweep = subprocess.Popen([sys.executable, str(SCRIPT), str(tmp_path), "24", "1", scheduler], env=environment)
        _wait(lambda: len({pid for _, _, pid in _lines(tmp_path / "log")}) == 2)
        workers[0].kill()  # while it computes: each has a trial at any time
        assert sweep.wait(120) == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert log()["begin", "0"] >= 1 and sum(n for (event, _), n in log().items() if event == "end") >= 24
    undisturbed = Store(tmp_path / "undisturbed")
    run(chains(*range(24)), undisturbed, Place(checkpoints=tmp_path / "fresh"))
    assert contents(undisturbed) == contents(store)


def _lines(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()]


def _address(path: Path) -> str:
    _wait(path.exists)
    _wait(lambda: path.read_text().rstrip().endswith("}"))
    return json.loads(path.read_text())["address"]


def _wait(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "what the test waits for did not come"
        time.sleep(0.05)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"jobs": 0}, "jobs must be a whole number of at least 1, not 0"),
        ({"jobs": True}, "jobs must be"),
        ({"backend": "spark"}, "backend must be one of local, dask, not 'spark'"),
        ({"backend": "dask"}, "scheduler must be an address such as tcp://host:8786 where backend is 'dask'"),
        ({"scheduler": "tcp://a:1"}, "None elsewhere, not 'tcp://a:1' where backend is 'local'"),
    ],
)
def test_wrong_argument_is_refused_before_any_work(store, place, log, changes, message):
    with pytest.raises(ValueError, match=message):
        run(chains(1), store, place, **changes)
    assert not log()


@pytest.fixture
def experiment(store):
    """Three chains, and one more for every seed once the first is there."""

    def plan(store: Store, seeds: int) -> Plan:
        first = tuple([*chains(1, 2), *chains(3, behaviour="diverge")])
        if store.read(first[0].configuration) is None:
            return Plan(first, later=seeds)
        return Plan((*first, *chains(*range(10, 10 + seeds))))

    return Experiment("chains", "chains of numbers", plan, store, seeds=2)


def test_status_counts_trials_and_estimates_the_rest_from_those_of_the_same_kind(experiment, store, place):
    now = status(experiment)
    assert (now.finished, now.diverged, len(now.missing), now.later) == (0, 0, 3, 2)
    assert now.seconds_left is None
    run(chains(1), store, place)
    now = status(experiment)
    assert (now.finished, now.diverged, len(now.missing), now.later) == (1, 0, 4, 0)
    assert now.seconds_left == 4 * 3.0
    run(now.missing, store, place)
    now = status(experiment, seeds=1)
    assert (now.finished, now.diverged, now.missing, now.later, now.seconds_left) == (3, 1, (), 0, 0)
    trial, record = chains(1)[0], store.read(chains(1)[0].configuration)
    assert seconds_left([(trial, record)], [trial], later=2) == 3 * 3.0


@pytest.fixture
def command(experiment, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sweep, "experiments", lambda: {experiment.name: experiment})
    monkeypatch.setattr(sweep, "RESULTS", experiment.store.folder)

    def call(*arguments: str) -> tuple[int, str, str]:
        exit_status = sweep.main([*arguments, "--checkpoints", str(tmp_path / "checkpoints")])
        return exit_status, *capsys.readouterr()

    return call


def test_command_lists_computes_and_follows_what_results_decide(command, store, log):
    code, out, _ = command()
    assert code == 0 and "chains" in out and "     0        5         0   unknown" in out and not log()
    code, out, _ = command("chains", "--dry-run", "--seeds", "3")
    assert code == 0 and "0 done, 6 missing" in out and "chain 1" in out and "and 3 that follow" in out
    assert not log()
    code, out, _ = command("chains", "--seeds", "3")
    assert code == 0 and len(list(store)) == 6
    assert out.splitlines()[-1] == "chains: 5 done, 0 missing, 1 diverged; time left: 0 s"


def test_command_prints_a_table_of_settings_and_metrics(command, store, place):
    run(chains(1, 2), store, place)
    code, out, _ = command("--table", "chains")
    lines = list(csv.DictReader(out.splitlines()))
    assert code == 0 and [line["number"] for line in lines] == ["1", "2"]
    assert [int(line["state"]) for line in lines] == [record["metrics"]["state"] for record in store]


def test_a_trial_of_the_toy_is_a_line_a_setting_and_seed():
    record = {
        "configuration": {
            "seeds": 2,
            "first_seed": 100,
            "shared": {"width": 8},
            "settings": [{"rho": 0.0}, {"rho": 1.0}],
        },
        "status": "finished",
        "seconds": {"total": 1.0},
        "metrics": {"wrong": {"test": {"hard": [[1, 2], [3, None]]}}, "means": [None, [[5.0], [6.0]]]},
    }
    lines = list(sweep._nets(record))
    assert [(line["width"], line["rho"], line["seed"]) for line in lines] == [
        (8, 0.0, 100), (8, 0.0, 101), (8, 1.0, 100), (8, 1.0, 101)
    ]  # fmt: skip
    assert [line["wrong"]["test"]["hard"] for line in lines] == [1, 2, 3, None]
    assert [line["means"] for line in lines] == [None, None, [5.0], [6.0]]


def test_command_names_results_that_no_experiment_has(command, store, place):
    run(chains(1, 99), store, place)
    assert command("--orphans")[1] == f"chain/{store.path(chains(99)[0].configuration).name}\n"


def test_command_adopts_results_computed_elsewhere_and_never_overwrites_another(
    command, store, place, tmp_path, capsys
):
    elsewhere = tmp_path / "elsewhere" / "toy"
    elsewhere.mkdir(parents=True)
    run(chains(1, 2, 99), Store(tmp_path / "there"), place)
    for record in Store(tmp_path / "there"):  # the layout of an earlier day
        (elsewhere / f"{identity(record['configuration'])}.json").write_text(json.dumps(record))
    run(chains(2), store, place)
    assert command("--adopt", str(tmp_path / "elsewhere"))[0] == 0
    assert len(list(store)) == 3 and contents(store) == contents(Store(tmp_path / "there"))
    assert command("--adopt", str(tmp_path / "elsewhere"))[0] == 0, "what is there already is passed over"
    record = store.read(chains(2)[0].configuration)
    (elsewhere / "changed.json").write_text(json.dumps(record | {"metrics": {"state": 0}}))
    with pytest.raises(SystemExit):
        command("--adopt", str(tmp_path / "elsewhere"))
    assert "changed.json differs from" in capsys.readouterr().err
    assert store.read(chains(2)[0].configuration) == record
    for wrong in (elsewhere / "changed.json", tmp_path / "nowhere"):
        with pytest.raises(SystemExit):
            command("--adopt", str(wrong))
        assert "adopt must be a folder with records" in capsys.readouterr().err


def test_command_names_failures_and_wrong_arguments(command, monkeypatch, experiment, capsys):
    plan = Plan(tuple(chains(1, behaviour="raise")))
    monkeypatch.setattr(
        sweep,
        "experiments",
        lambda: {"chains": Experiment("chains", "", lambda store, seeds: plan, experiment.store, 1)},
    )
    assert command("chains") == (
        1,
        "chains: 0 done, 1 missing, 0 diverged; time left: unknown\n",
        "chain 1: RuntimeError: a link broke\n",
    )
    for arguments, message in (
        (["rings"], "experiment must be one of chains, not 'rings'"),
        (["chains", "--jobs", "0"], "jobs must be a whole number"),
        (["chains", "--seeds", "0"], "must be a whole number of at least 1, not 0"),
        (["chains", "--backend", "dask"], "scheduler must be an address"),
    ):
        with pytest.raises(SystemExit) as caught:
            command(*arguments)
        assert caught.value.code == 2 and message in capsys.readouterr().err
