import json
import os
import re
from pathlib import Path

import pytest
from image_trees import snapshot as everything
from records import whole

from book.compute import efforts
from book.toy_trial import ToyTrial
from lib.data.toy import ToyConstants
from lib.toy.setting import intervention, lsam, sgd
from lib.trials import naming
from lib.trials.store import ResultWarning, Store, identity

CONFIGURATION = {"experiment": "chain", "protocol": 1, "dataset": "cifar-mnist", "lr": 0.05, "seed": 3, "limit": None}
RECORD = whole({"configuration": CONFIGURATION, "metrics": {"test_error": 1 / 3}, "curve": {"train_loss": [0.5, 0.25]}})
OTHER = RECORD | {"seconds": {"total": 2.0}}

NOISY = ToyConstants(dropout=0.1, noisy="hard")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


def files(store: Store) -> list[Path]:
    return sorted(path for path in store.folder.rglob("*") if path.is_file())


def test_round_trip_returns_the_record_exactly(store):
    path = store.write(RECORD)
    assert path.relative_to(store.folder) == Path(f"cifar-mnist/lr-0.05-seed-3.{identity(CONFIGURATION)[:8]}.json")
    assert store.read(CONFIGURATION) == RECORD
    assert list(store) == [RECORD]
    assert files(store) == [path]


def test_a_record_is_found_in_any_folder_under_any_label_and_replaced_where_it_is(store):
    path = Store(store.folder, "noise").write(RECORD)
    assert path.parent.name == "noise" and store.read(CONFIGURATION) == RECORD
    assert list(Store(store.folder, "noise")) == [RECORD] and not list(Store(store.folder, "other"))
    renamed = store.folder / "elsewhere" / f"my favourite.{identity(CONFIGURATION)[:8]}.json"
    renamed.parent.mkdir()
    path.rename(renamed)
    assert store.read(CONFIGURATION) == RECORD
    assert Store(store.folder, "noise").write(OTHER) == renamed
    assert files(store) == [renamed] and store.read(CONFIGURATION) == OTHER


def test_two_trials_whose_names_begin_alike_are_told_apart(store, monkeypatch):
    monkeypatch.setattr("lib.trials.store.DIGITS", 0)
    others = [whole({"configuration": CONFIGURATION | {"batch_size": size}}) for size in (1, 2, 3)]
    paths = {store.write(record) for record in others}
    assert len(paths) == len(files(store)) == 3
    assert [store.read(record["configuration"]) for record in others] == others
    assert store.read(CONFIGURATION) is None


@pytest.mark.parametrize(
    ("configuration", "name"),
    [
        ({"experiment": "groups", "dataset": "birds_on_scenes", "method": "sgd", "rho": 0.0, "seed": 0}, "sgd-seed-0"),
        ({"experiment": "weights", "of": {"method": "sam", "rho": 0.1, "seed": 2}, "epoch": 1, "rho": 0.1},
         "weights-of-sam-rho-0.1-seed-2-after-epoch-1"),
        (ToyTrial((lsam(0.7, data=NOISY),), 20), "lsam-rho-0.7-noisy-hard-dropout-0.1"),
        (ToyTrial((sgd(width=32), lsam(0.5, width=32), lsam(1, width=32)), 20), "sgd-lsam-rho-0-to-1-width-32"),
        (ToyTrial((sgd(), lsam(1), intervention("both", 2)), 20), "3-methods-rho-0-1-ratio-1-2"),
        (ToyTrial((sgd(gain=2), lsam(1, ascent=(0, 5))), 2), "sgd-lsam-rho-0-1-ascent-0.0-5.0-gain-2"),
        (ToyTrial((intervention("importance", 2, batch_size=1),), 20), "fixed-importance-ratio-2-batch-size-1"),
        ({"experiment": "groups", "attributes": ["Smiling", "Young"], "method": "sam", "ascent": [0, 2], "seed": 1},
         "sam-attributes-smiling-young-ascent-0-2-seed-1"),
        ({"experiment": "chain", "protocol": 1}, "trial"),
    ],
)  # fmt: skip
def test_a_label_says_what_a_trial_is_so_that_a_person_finds_its_file(configuration, name):
    assert naming.label(getattr(configuration, "configuration", configuration)) == name


def test_identity_ignores_the_order_of_keys_and_depends_on_every_value():
    assert identity(dict(reversed(CONFIGURATION.items()))) == identity(CONFIGURATION)
    others = [CONFIGURATION | {key: "other"} for key in CONFIGURATION]
    assert len(set(map(identity, [CONFIGURATION, *others]))) == 1 + len(others)


def test_damaged_and_foreign_files_are_named_and_skipped_and_a_temporary_one_is_none(store):
    path = store.write(RECORD)
    text = path.read_bytes().rstrip()
    for damage in [*(text[:length] for length in range(0, len(text) - 1, 7)), b"[1, 2]", b"\xff\xfe", b'{"a": NaN}']:
        path.write_bytes(damage)
        with pytest.warns(ResultWarning, match=path.name):
            assert store.read(CONFIGURATION) is None and list(store) == []
    path.write_bytes(text)
    stranger = path.parent / f"lr-1.{identity({'lr': 1})[:8]}.json"
    stranger.write_bytes(text)
    path.with_name(f".{path.stem}-x.tmp").write_text("{")
    with pytest.warns(ResultWarning) as caught:
        assert list(store) == [RECORD]
    assert [Path(str(one.message).split(": ")[0]).name for one in caught] == [stranger.name]


def test_interrupted_write_leaves_the_old_record(store, monkeypatch):
    store.write(RECORD)

    def interrupt(*_):
        raise KeyboardInterrupt

    for call in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, interrupt)
            with pytest.raises(KeyboardInterrupt):
                store.write(OTHER)
        assert list(store) == [RECORD]
        assert len(files(store)) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}])
def test_value_that_is_no_plain_json_is_refused_and_nothing_is_written(store, value):
    with pytest.raises(ValueError, match="plain JSON"):
        store.write(RECORD | {"metrics": {"test_error": value}})
    assert not store.folder.exists()


def test_unusable_file_is_kept_aside_when_its_trial_is_stored(tmp_path):
    store = Store(tmp_path)
    path = store.path(CONFIGURATION)
    path.parent.mkdir()
    path.write_text("not a record")
    with pytest.warns(ResultWarning, match=path.name):
        store.write(RECORD)
    assert store.read(CONFIGURATION) == RECORD and len(list(store)) == 1
    assert path.with_suffix(".json.unusable").read_text() == "not a record"


def image(**metrics) -> dict:
    return whole({"configuration": CONFIGURATION | {"experiment": "images"}, "metrics": metrics})


def toy() -> dict:
    rows = {name: [[1, None], [2, 3]] for name in ("easy", "hard", "model")}
    own = {"seeds": 2, "first_seed": 100, "shared": {"method": "sgd"}, "settings": [{"rho": 0.0}, {"rho": 1.0}]}
    metrics = {"wrong": {split: rows for split in ("train", "validation", "test")}, "heads": [None, [[0.5, 1.0], None]]}
    return whole({"configuration": {"experiment": "toy"} | own, "metrics": metrics})


DEEP = "[" * 100_000 + "]" * 100_000
NO_RECORDS = [  # a record, where in it, and what stands there (None: nothing; a text: as JSON)
    *((image(), key, None) for key in "configuration status metrics seconds versions hardware data".split()),
    *((image(), "metrics", value) for value in ("null", "[]", DEEP)),
    *((image(), "status", value) for value in ('"done"', '"diverged"')),
    *((image(), "seconds", value) for value in ("{}", '{"total": "1"}', '{"total": 1e999}', '{"total": -1}')),
    (image(), "seconds", '{"total": ' + "9" * 400 + "}"),
    (image(), "hardware", '{"device": "cpu"}'),
    (image(), "data", '{"cifar-mnist": 3}'),
    (image(), "format", "2"),
    (image(), "curve", '{"train_loss": [null]}'),
    (image(), "metrics.validation_error", None),
    (image(), "metrics.validation_error", "1.5"),
    (image(), "metrics.validation_loss", '"0.5"'),
    (image(), "metrics.test_error", '{"error": 0.5}'),
    (image(), "metrics.probing_error", "{}"),
    (toy(), "metrics.wrong", '{"test": 3}'),
    (toy(), "metrics.wrong.test", '{"model": [[1, 2]]}'),
    (toy(), "metrics.wrong.test.hard", "[[1, 2], [3]]"),
    (toy(), "metrics.wrong.test.hard", '[[1, 2], ["3", 4]]'),
    (toy(), "metrics.wrong.test.hard", "[[1, 2]]"),
    (toy(), "metrics.heads", "[[[1.0]], [[2.0]]]"),
]


@pytest.mark.parametrize(("record", "key", "text"), NO_RECORDS, ids=lambda value: str(value)[:20])
def test_valid_json_that_is_no_record_counts_nowhere(store, tmp_path, record, key, text):
    path = store.write(record)
    changed = json.loads(path.read_text())
    *within, last = key.split(".")
    part = changed
    for name in within:
        part = part[name]
    part.pop(last, None)
    if text is not None:
        part[last] = "here"
    path.write_text(json.dumps(changed).replace('"here"', text or ""))
    with pytest.warns(ResultWarning, match=re.escape(path.name)) as caught:
        assert store.read(record["configuration"]) is None
    assert all("\n" not in str(warning.message) and len(str(warning.message)) < 600 for warning in caught)
    with pytest.warns(ResultWarning):
        assert list(store) == []
        assert not len(efforts(store.folder))
    if text != DEEP:
        with pytest.raises(ValueError, match="is no record of a trial|plain JSON"):
            store.write(json.loads(path.read_text()))


def test_an_experiment_keeps_the_first_fingerprint_of_each_set_of_data(tmp_path):
    store, record = Store(tmp_path, "mine"), image()
    other = image() | {"configuration": record["configuration"] | {"seed": 4}, "data": {"a set": "2 images 1"}}
    store.write(record)
    store.write(image() | {"configuration": record["configuration"] | {"seed": 5}, "data": {"b set": "2 images 1"}})
    assert store.fingerprints() == {"mine": {"a set": "1 images 0", "b set": "2 images 1"}}
    with pytest.raises(ValueError, match=r"a set is other data \(2 images 1\) than those of the experiment mine"):
        store.write(other)
    path = Store(tmp_path, "another").write(other)
    assert path.parent.name == "another" and Store(tmp_path).read(other["configuration"]) == other
    with pytest.warns(ResultWarning, match="other data"):
        assert store.read(other["configuration"]) is None, "found elsewhere, and not of this experiment's data"
    (tmp_path / "data.json").write_text("[1]")
    for use in (store.fingerprints, lambda: list(store), lambda: store.read(record["configuration"])):
        with pytest.raises(ValueError, match="data.json must hold the fingerprints of data"):
            use()


def test_own_runs_are_stored_beside_the_results_of_the_repository_and_read_with_them(tmp_path, monkeypatch):
    monkeypatch.setattr("lib.trials.store.RESULTS", tmp_path / "results")
    monkeypatch.setattr("lib.trials.store.RUNS", tmp_path / "runs")
    kept, mine = RECORD, OTHER | {"configuration": CONFIGURATION | {"seed": 9}, "data": {"a set": "1 images 0"}}
    repository = Store(tmp_path / "results", own=tmp_path / "results")
    assert repository.write(kept).is_relative_to(tmp_path / "results")
    before = everything(tmp_path / "results")
    assert Store(tmp_path / "results").write(mine).is_relative_to(tmp_path / "runs")
    assert list(Store(tmp_path / "results")) == [kept, mine] and list(repository) == [kept]
    assert repository.read(mine["configuration"]) is None and Store(tmp_path / "results").read(CONFIGURATION) == kept
    assert everything(tmp_path / "results") == before
    assert Store(tmp_path / "results").fingerprints() == {"cifar-mnist": {"a set": "1 images 0"}}
    (tmp_path / "results" / "data.json").write_text('{"cifar-mnist": {"a set": "kept"}}')
    assert Store(tmp_path / "results").fingerprints() == {"cifar-mnist": {"a set": "kept"}}, "not what a reader has"


def test_what_is_read_is_noted_where_that_is_asked_for(store, tmp_path, monkeypatch):
    monkeypatch.setenv("SAM_RESULTS_READ", str(tmp_path / "noted"))
    store.read(CONFIGURATION)
    list(store), list(Store(store.folder, "noise"))
    assert (tmp_path / "noted").read_text() == f".{identity(CONFIGURATION)[:8]}\n/\nnoise/\n"
