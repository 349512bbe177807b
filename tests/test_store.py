from __future__ import annotations

import json
import os
import warnings

import pytest

from lib.trials.store import ResultWarning, Store, identity

CONFIGURATION = {"dataset": "cifar-mnist", "lr": 0.05, "seed": 3, "train_limit": None}
RECORD = {"configuration": CONFIGURATION, "status": "finished", "metrics": {"test_error": 1 / 3}, "curve": [0.5, 0.25]}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


def test_round_trip_returns_the_record_exactly(store):
    path = store.write(RECORD)
    assert path.name == f"{identity(CONFIGURATION)}.json"
    assert store.read(CONFIGURATION) == RECORD
    assert list(store) == [RECORD]
    assert [file.name for file in store.folder.iterdir()] == [path.name]


def test_absent_record_is_none_without_a_warning(store):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.read(CONFIGURATION) is None
        assert list(store) == []


def test_identity_ignores_the_order_of_keys_and_depends_on_every_value():
    assert identity(dict(reversed(CONFIGURATION.items()))) == identity(CONFIGURATION)
    others = [CONFIGURATION | {key: "other"} for key in CONFIGURATION]
    assert len({identity(configuration) for configuration in [CONFIGURATION, *others]}) == 1 + len(others)


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        '{"configuration": {"lr": 0.05}',
        "[1, 2]",
        '{"metrics": 1}',
        "\ufffe\udc80",
        '{"configuration": {}, "metrics": NaN}',
    ],
)
def test_damaged_file_is_named_and_skipped(store, damage):
    path = store.write(RECORD)
    path.write_bytes(damage.encode("utf-8", "surrogateescape"))
    with pytest.warns(ResultWarning, match=path.name):
        assert store.read(CONFIGURATION) is None
    with pytest.warns(ResultWarning, match=path.name):
        assert list(store) == []


def test_truncated_file_is_named_and_skipped_at_every_length(store):
    path = store.write(RECORD)
    whole = path.read_bytes()
    for length in range(len(whole.rstrip()) - 1):
        path.write_bytes(whole[:length])
        with pytest.warns(ResultWarning, match=path.name):
            assert store.read(CONFIGURATION) is None


def test_foreign_file_is_named_and_skipped(store):
    path = store.write(RECORD)
    (store.folder / "notes.json").write_text(json.dumps({"hello": 1}))
    stranger = store.folder / f"{identity({'lr': 1})}.json"
    stranger.write_text(path.read_text())
    with pytest.warns(ResultWarning) as caught:
        assert list(store) == [RECORD]
    messages = " ".join(str(warning.message) for warning in caught)
    assert "notes.json" in messages and stranger.name in messages and path.name not in messages


def test_interrupted_write_leaves_the_old_record(store, monkeypatch):
    store.write(RECORD)

    def interrupt(*_):
        raise KeyboardInterrupt

    for call in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, interrupt)
            with pytest.raises(KeyboardInterrupt):
                store.write(RECORD | {"status": "other"})
        assert list(store) == [RECORD]
        assert len(list(store.folder.iterdir())) == 1


def test_left_over_temporary_file_is_no_record(store):
    store.write(RECORD)
    (store.folder / f".{identity(CONFIGURATION)}-x.tmp").write_text("{")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(store) == [RECORD]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}])
def test_value_that_is_no_plain_json_is_refused_and_nothing_is_written(store, value):
    with pytest.raises(ValueError, match="plain JSON"):
        store.write(RECORD | {"metrics": {"test_error": value}})
    assert list(store) == [] and not store.folder.exists()


def test_unusable_file_is_kept_aside_when_its_trial_is_stored(tmp_path):
    store = Store(tmp_path)
    path = store.path({"seed": 1})
    path.write_text("not a record")
    with pytest.warns(ResultWarning, match=path.name):
        store.write({"configuration": {"seed": 1}})
    assert store.read({"seed": 1}) is not None and len(list(store)) == 1
    assert path.with_suffix(".json.unusable").read_text() == "not a record"
