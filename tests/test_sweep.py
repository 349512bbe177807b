import csv
import errno
import fcntl
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sweep_trials import ChainTrial, FailingStore

from book import sweep
from book.plan import Experiment, Plan, seconds_left, status
from lib.trials import SweepError, engine, run
from lib.trials.store import ResultWarning, Store, identity
from lib.trials.trial import MissingTrials, Place

SCRIPT = Path(__file__).with_name("sweep_trials.py")
KILLS = int(os.environ.get("SWEEP_KILLS", 50))


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


def heard() -> None:
    """In a new process: signals that this one ignores, under nohup or in the background, end it all the same."""
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_DFL)


def start(folder: Path, count: int, jobs: int, step: float, behaviour="finish", **options) -> subprocess.Popen:
    environment = {**os.environ, "SWEEP_STEP": str(step), "PYTHONPATH": str(SCRIPT.parents[1])}
    command = [sys.executable, SCRIPT, folder, str(count), str(jobs), behaviour]
    how = {"stderr": subprocess.DEVNULL, "start_new_session": True, "preexec_fn": heard} | options
    return subprocess.Popen(command, env=environment, **how)


def undisturbed(tmp_path: Path, *numbers: int) -> dict[str, str]:
    """The store's contents after a sweep in this process that nothing disturbed."""
    store = Store(tmp_path / "undisturbed")
    run(chains(*numbers), store, Place(checkpoints=tmp_path / "undisturbed" / "fresh"))
    return contents(store)


def contents(store: Store) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(store.folder.glob("chain/*"))}


@pytest.mark.parametrize("jobs", [1, 2])
def test_sweep_computes_only_what_is_missing_and_returns_records_in_order_whatever_the_jobs(
    store, place, log, jobs, tmp_path
):
    run(chains(3), store, place)
    records = run(chains(1, 3, 2, 1), store, place, jobs=jobs)
    assert [record["configuration"]["number"] for record in records] == [1, 3, 2, 1]
    assert all(count == 1 for count in log().values()) and len(contents(store)) == 3
    assert run(chains(1, 2), store, place, jobs=jobs) == [records[0], records[2]]
    assert contents(store) == undisturbed(tmp_path, 1, 2, 3)


def test_missing_data_stop_a_sweep_before_any_work(store, place, log):
    with pytest.raises(MissingTrials, match="1 of 2 trials are not stored, and its links are lost"):
        run([*chains(1), *chains(2, behaviour="lack")], store, place)
    assert not log()


FAILURES = {  # of a trial's behaviour: the reason that is told
    "raise": "RuntimeError: a link broke",
    "exit": "SystemExit: 0",
    "other": "ValueError: its record is that of another configuration",
    "no record": "ValueError: is no record of a trial: .*",
}


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("behaviour", FAILURES)
def test_trial_that_fails_is_named_in_one_line_and_the_others_are_computed(store, place, jobs, behaviour):
    trials = [*chains(1), *chains(7, behaviour=behaviour), *chains(2)]
    with pytest.raises(SweepError) as caught:
        run(trials, store, place, jobs=jobs)
    assert re.fullmatch(f"chain 7: {FAILURES[behaviour]}", str(caught.value))
    assert sorted(record["configuration"]["number"] for record in store) == [1, 2]
    for count, more in ((3, ""), (4, " and 1 more")):
        with pytest.raises(SweepError, match=f"^chain 10, chain 11, chain 12{more}: [^\n]*$"):
            run(chains(*range(10, 10 + count), behaviour=behaviour), store, place)


@pytest.mark.parametrize(("jobs", "behaviour"), [(1, "hang"), (2, "hang in C")])
def test_trial_that_takes_more_than_its_time_has_failed_whatever_it_sits_in(store, place, jobs, behaviour, log):
    run(chains(8, 9), store, place, jobs=2)  # workers are there then
    trials = [*chains(7, behaviour=behaviour), *chains(0, 1, step=0.1), *chains(2)]
    with pytest.raises(SweepError) as caught:
        run(trials, store, place, jobs=jobs, time_limit=3)
    assert str(caught.value) == "chain 7: it took more than 3 s" and len(list(store)) == 5
    assert log()["begin", "7"] == 1


def test_dead_worker_costs_its_trial_one_retry(store, place, log, tmp_path):
    trials = [*chains(*range(4)), *chains(7, behaviour="die once"), *chains(*range(4, 8))]
    records = run(trials, store, place, jobs=2)
    assert len(records) == 9 and contents(store).items() >= undisturbed(tmp_path, *range(8)).items()
    assert records[4]["metrics"] == records[8]["metrics"], "went on from its checkpoint to the same result"
    assert log()["begin", "7"] == 3  # died, retried, and the harmless chain 7 of the last line


def test_trial_that_kills_its_worker_again_is_named_and_harms_no_other(store, place, log):
    trials = [*chains(7, behaviour="die"), *chains(*range(6)), *chains(8, behaviour="die")]
    with pytest.raises(SweepError, match="chain [78], chain [78]: its worker died 2 times$"):
        run(trials, store, place, jobs=2)
    assert sorted(record["configuration"]["number"] for record in store) == list(range(6))
    assert log()["begin", "7"] == log()["begin", "8"] == 2


def test_two_sweeps_share_a_store_and_compute_nothing_twice(tmp_path, store, log):
    sweeps = [start(tmp_path, 20, jobs, step=0.06) for jobs in (1, 2)]
    assert [sweep.wait(120) for sweep in sweeps] == [0, 0]
    assert log() == {(event, str(number)): 1 for event in ("begin", "end") for number in range(20)}
    assert len({pid for _, _, pid in _lines(tmp_path / "log")}) > 1, "both took part"


def test_sweeps_killed_at_random_moments_end_as_an_undisturbed_one(tmp_path, store):
    """Three at a time on one store. Half of the kills take the whole process group, half the parent alone, whose
    workers are orphans then."""
    count, moments, kills = 60, random.Random(0), 0
    while kills < KILLS:
        sweeps = [start(tmp_path, count, jobs, step=0.02) for jobs in (1, 1, 2)]
        for running in sweeps:
            try:
                running.wait(moments.uniform(0.1, 0.7))
            except subprocess.TimeoutExpired:
                moments.choice([running.kill, lambda: os.killpg(running.pid, signal.SIGKILL)])()
                kills += 1
            running.wait()
        for path in sorted(store.folder.glob("chain/*.json"))[::3]:  # else it is done too early for the kills left
            name = identity(json.loads(path.read_text())["configuration"])
            path.unlink()
            (tmp_path / "checkpoints" / f"{name}.pt").unlink()
    assert start(tmp_path, count, jobs=2, step=0).wait(120) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResultWarning)  # no file is half written or foreign
        assert len(list(store)) == count
    whole = {name: text for name, text in contents(store).items() if not name.endswith(".tmp")}
    assert whole == undisturbed(tmp_path, *range(count))


ALONE = ("--nthreads", "1", "--no-nanny")


@pytest.fixture
def cluster(tmp_path):
    """A Dask scheduler, `cluster("worker", ...)` workers for it, and `cluster("sweep", ...)` a sweep on it; what they
    print goes to files of these names."""
    pytest.importorskip("distributed")
    address, processes = tmp_path / "scheduler.json", []
    environment = {**os.environ, "SWEEP_STEP": "0.05", "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "60s"}

    def launch(kind: str, *options: str, first: Path | None = None) -> subprocess.Popen:
        path = os.pathsep.join(map(str, [*([first] if first else []), SCRIPT.parent, SCRIPT.parents[1]]))
        command = ["-m", f"distributed.cli.dask_{kind}", "--no-dashboard", "--scheduler-file", address, *options]
        if kind == "sweep":
            command = [SCRIPT, tmp_path, "12", "1", "finish", json.loads(address.read_text())["address"]]
        with (tmp_path / kind).open("a") as output:
            how = {"env": environment | {"PYTHONPATH": path}, "cwd": tmp_path, "stderr": output}
            processes.append(subprocess.Popen([sys.executable, *command], **how))
        return processes[-1]

    launch("scheduler", "--port", "0", "--host", "127.0.0.1")
    _wait(lambda: address.exists() and address.read_text().rstrip().endswith("}"))
    yield launch
    for process in processes:
        process.kill()
        process.wait()


def test_dask_cluster_computes_what_one_machine_does_though_workers_are_killed(tmp_path, store, cluster):
    """It waits for the first worker, and where all are dead for a new one, with a word each time."""
    running, told = cluster("sweep"), tmp_path / "sweep"
    _wait(lambda: told.read_text().count("waiting for workers: the cluster has none") == 1)
    workers = [cluster("worker", *ALONE) for _ in range(2)]
    _wait(lambda: len({pid for _, _, pid in _lines(tmp_path / "log")}) == 2)
    for worker in workers:  # while they compute: each has a trial at any time
        worker.kill()
    _wait(lambda: told.read_text().count("waiting for workers: the cluster has none") == 2)
    cluster("worker", *ALONE)
    assert running.wait(120) == 0
    assert contents(store) == undisturbed(tmp_path, *range(12))


@pytest.mark.parametrize("library", ["none", "another version"])
def test_worker_with_another_library_is_told_in_one_line_before_any_work(tmp_path, cluster, library, log):
    folder = tmp_path / "own" / "lib"
    if library == "none":
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
    else:
        shutil.copytree(SCRIPT.parents[1] / "lib", folder, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "stats.py").open("a").write("# changed\n")
    cluster("worker", *ALONE, first=folder.parent)
    running = cluster("sweep")
    assert running.wait(60) == 1 and not log()
    (line,) = [line for line in (tmp_path / "sweep").read_text().splitlines() if "SweepError" in line]
    assert re.search("the worker tcp://.* lacks this version of the library; install it there$", line)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense", "tls://127.0.0.1:9", ""])
def test_wrong_address_of_a_cluster_is_one_line(store, place, address, monkeypatch, capfd):
    pytest.importorskip("distributed")
    monkeypatch.setattr(engine, "CONNECT_SECONDS", 1.0)
    with pytest.raises(SweepError, match=f"no scheduler could be reached at '{address}': ") as caught:
        run(chains(1), store, place, scheduler=address, progress=False)
    assert "\n" not in str(caught.value) and not capfd.readouterr().err


def _lines(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def _wait(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "what the test waits for did not come"
        time.sleep(0.05)


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
    costs = pd.DataFrame({"kind": "chain", "amount": [1, 2, 4], "seconds": [1, 4, np.nan]})
    assert seconds_left(costs, later=2) == 4 * 1.5 + 2 * (1.5 * 7 / 3)
    assert seconds_left(costs.assign(kind=["chain", "chain", "ring"])) is None


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


def test_command_names_results_that_no_experiment_has_and_prints_those_of_one_as_a_table(command, store, place):
    run(chains(1, 2, 99), store, place)
    assert command("--orphans")[1] == f"chain/{store.path(chains(99)[0].configuration).name}\n"
    code, out, _ = command("--table", "chains")
    lines = list(csv.DictReader(out.splitlines()))
    assert code == 0 and [line["number"] for line in lines] == ["1", "2"]
    stored = [store.read(chain.configuration)["metrics"]["state"] for chain in chains(1, 2)]
    assert [int(line["state"]) for line in lines] == stored


def test_a_trial_of_the_toy_is_a_line_a_setting_and_seed():
    own = {"seeds": 2, "first_seed": 100, "shared": {"width": 8}, "settings": [{"rho": 0.0}, {"rho": 1.0}]}
    metrics = {"wrong": {"test": {"hard": [[1, 2], [3, None]]}}, "means": [None, [[5.0], [6.0]]]}
    record = {"configuration": own, "status": "finished", "seconds": {"total": 1.0}, "metrics": metrics}
    lines = list(sweep._nets(record))
    settings = [(line["width"], line["rho"], line["seed"]) for line in lines]
    assert settings == [(8, 0.0, 100), (8, 0.0, 101), (8, 1.0, 100), (8, 1.0, 101)]
    assert [line["wrong"]["test"]["hard"] for line in lines] == [1, 2, 3, None]
    assert [line["means"] for line in lines] == [None, None, [5.0], [6.0]]


def test_command_adopts_results_computed_elsewhere_and_never_overwrites_another(
    command, store, place, tmp_path, capsys
):
    elsewhere, there = tmp_path / "elsewhere" / "toy", Store(tmp_path / "there")
    elsewhere.mkdir(parents=True)
    run(chains(1, 2, 99), there, place)
    for record in there:  # the layout of an earlier day
        (elsewhere / f"{identity(record['configuration'])}.json").write_text(json.dumps(record))
    run(chains(2), store, place)
    for _ in range(2):  # what is there already is passed over
        assert command("--adopt", str(elsewhere.parent))[0] == 0
        assert len(list(store)) == 3 and contents(store) == contents(there)
    record = store.read(chains(2)[0].configuration)
    for text, line in ((json.dumps(record | {"metrics": {"state": 0}}), "differs from"), ("[]", "is no record")):
        (elsewhere / "changed.json").write_text(text)
        with pytest.raises(SystemExit):
            command("--adopt", str(elsewhere.parent))
        assert re.search(f"changed.json .*{line}", capsys.readouterr().err)
    assert store.read(chains(2)[0].configuration) == record


@pytest.mark.parametrize("jobs", [1, 2])
def test_interrupted_command_says_so_in_one_line(tmp_path, jobs):
    running = start(tmp_path, 20, jobs, step=0.2, stderr=subprocess.PIPE, text=True)
    _wait(lambda: len({pid for _, _, pid in _lines(tmp_path / "log")}) == jobs)
    os.killpg(running.pid, signal.SIGINT)
    assert running.communicate(timeout=60)[1] == "interrupted; what was finished before stays\n"
    assert running.returncode == 130


OTHER = "mps" if sys.platform == "linux" else "cuda"
WRONG = {
    "rings": "experiment must be one of chains, not 'rings'",
    "chains --jobs 0": "jobs must be a whole number of at least 1, not 0",
    "chains --seeds 0": "seeds must be a whole number of at least 1, not 0",
    "chains --threads 100000": "threads must be a whole number of at least 1 and at most",
    "chains --time-limit 0": "time_limit must be a finite number above 0, not 0",
    f"chains --device {OTHER}": f"device '{OTHER}' is not available on this machine",
    "chains --backend dask": "scheduler must be an address",
    "chains --backend dask --scheduler tcp://a:1 --time-limit 1": "time_limit must be None where a cluster computes",
    "--adopt nowhere": "adopt must be a folder with records, not 'nowhere'",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_command_refuses_wrong_arguments_in_one_line_before_any_work(command, arguments, capsys, log):
    with pytest.raises(SystemExit) as caught:
        command(*arguments.split())
    assert caught.value.code == 2 and WRONG[arguments] in capsys.readouterr().err.splitlines()[-1] and not log()


def test_command_names_failures(command, monkeypatch, experiment):
    plan = Plan(tuple(chains(1, behaviour="raise")))
    monkeypatch.setattr(sweep, "experiments", lambda: {"chains": replace(experiment, plan=lambda store, seeds: plan)})
    said = "chains: 0 done, 1 missing, 0 diverged; time left: unknown\n"
    assert command("chains") == (1, said, "chain 1: RuntimeError: a link broke\n")


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(
    ("error", "line"),
    [
        (errno.ENOSPC, r"chain \d cannot be stored, nor what comes after it: \[Errno 28\] No space left on device"),
        (errno.EROFS, r"chain \d cannot be stored, nor what comes after it: \[Errno 30\] Read-only file system"),
        (None, r"chain \d was computed, and is not in .*: do the workers see that folder\?"),
    ],
)
def test_sweep_ends_in_one_line_at_the_first_trial_that_is_not_stored(
    tmp_path, place, log, monkeypatch, jobs, error, line
):
    monkeypatch.setenv("SWEEP_STEP", "0.3")
    monkeypatch.setattr(engine, "SEEN_SECONDS", 0.1)
    store = FailingStore(tmp_path / "store")
    store.error = error
    with pytest.raises(SweepError) as caught:
        run(chains(*range(9), *range(100, 200)), store, place, jobs=jobs)
    assert re.fullmatch(line, str(caught.value))
    assert sum(count for (event, _), count in log().items() if event == "begin") < 50


@pytest.mark.parametrize("code", [None, errno.ENOLCK, errno.ENOSYS])
def test_no_place_for_locks_ends_the_sweep_in_one_line(tmp_path, place, monkeypatch, code):
    if code:
        monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(code, "no locks")))
    else:
        (tmp_path / "store").write_text("a file where the folder is to be")
    reason = "no locks" if code else "store"
    with pytest.raises(SweepError, match=f"^chain 1 cannot be stored, nor what comes after it: [^\n]*{reason}[^\n]*$"):
        run(chains(1, 2), Store(tmp_path / "store"), place)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_sweep_however_it_ends(tmp_path, end):
    sweep = start(tmp_path, 4, jobs=2, step=0, behaviour="hang")
    _wait(lambda: len(_lines(tmp_path / "log")) == 2)
    workers = {int(pid) for _, _, pid in _lines(tmp_path / "log")}
    sweep.send_signal(end)
    sweep.wait()
    _wait(lambda: not any(map(_lives, workers)), seconds=5)


def test_held_trial_is_waited_for_with_a_word_on_who_holds_it(tmp_path, store, place, monkeypatch, capsys):
    other = start(tmp_path, 1, jobs=1, step=0, behaviour="hang")
    try:
        _wait(lambda: len(_lines(tmp_path / "log")) == 1)
        monkeypatch.setattr("lib.files.SILENT_SECONDS", 1.0)
        threading.Timer(4, other.kill).start()
        with pytest.raises(SweepError, match="took more than 2 s"):
            run(chains(0, behaviour="hang"), store, place, time_limit=2)
    finally:
        other.kill()
        other.wait()
    told = [line for line in capsys.readouterr().err.splitlines() if "waiting" in line]
    assert len(told) == 1, "once, however long"
    assert f"waiting for chain 0, held by process {other.pid} on {socket.gethostname()} since" in told[0]


def _lives(pid: int) -> bool:
    """Whether a process is there that is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
