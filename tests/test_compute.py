"""What the stored results took to compute, and how the book's page lists it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import result_tables
from records import whole

from book.compute import efforts
from book.plan import duration
from lib.trials.store import Store

CPU = {"device": "cpu", "model": "a processor", "threads": 2}
GPU = {"device": "cuda", "model": "a graphics card", "threads": 8}


def image(seed: int, seconds: dict, status: str = "finished", device: dict = CPU) -> dict:
    configuration = {"experiment": "images", "protocol": 1, "dataset": "cifar-mnist", "seed": seed}
    metrics = {} if status == "finished" else None
    return {
        "configuration": configuration, "status": status, "metrics": metrics, "seconds": seconds, "hardware": device
    }  # fmt: skip


def toy(wrong: list | None) -> dict:
    """A trial of two settings and three seeds; `wrong` holds None for a net that diverged."""
    configuration = {
        "experiment": "toy",
        "protocol": 1,
        "first_seed": int(wrong is None),
        "seeds": 3,
        "shared": {"method": "sam"},
    }
    configuration["settings"] = [{"rho": 0.0}, {"rho": 1}]
    split = {"easy": wrong, "hard": wrong, "model": wrong}
    metrics = {"wrong": {"train": split, "validation": split, "test": split}, "heads": [None, None]} if wrong else None
    return {
        "configuration": configuration, "status": "finished" if wrong else "diverged", "metrics": metrics,
        "seconds": {"total": 5.0}, "hardware": CPU | {"threads": 1},
    }  # fmt: skip


@pytest.fixture
def results(tmp_path) -> Path:
    Store(tmp_path, "cifar-mnist").write(whole(image(0, {"training": 10.0})))
    Store(tmp_path, "cifar-mnist").write(whole(image(1, {"training": 20.0, "total": 30.0}, "diverged", GPU)))
    for wrong in ([[0, None, 2], [1, 1, None]], None):
        Store(tmp_path, "noise").write(whole(toy(wrong)))
    (tmp_path / ".locks").mkdir(exist_ok=True)
    (tmp_path / "claims.json").write_text("{}")
    return tmp_path


def test_efforts_add_up_by_experiment_and_kind_of_trial_with_threads_on_a_cpu_only(results):
    images, toys = efforts(results).to_dict("split")["data"]
    assert images == ["cifar-mnist, images", 2, 2, 1, 40, "a graphics card; a processor, 2 threads"]
    assert toys == ["noise, toy", 2, 12, 8, 10, "a processor, 1 thread"]


def test_a_duration_has_the_unit_that_one_would_use():
    times = (0, 0.42, 45.4, 89, 90, 150, 5399, 5400, 100_000)
    assert [duration(seconds) for seconds in times] == "0 s,0.4 s,45 s,89 s,2 min,2 min,90 min,1.5 h,27.8 h".split(",")


def test_page_lists_every_kind_of_trial_and_their_sum(results):
    table = result_tables.computing_time(efforts(results))
    assert table.count("<tr>") == 4
    assert "<td>together</td><td>4</td><td>14</td><td>9</td><td>50 s</td>" in table
    assert "a graphics card; a processor, 1 thread; a processor, 2 threads" in table
    assert "No result" in result_tables.computing_time(efforts(results / "none"))


def test_page_lists_the_chapters_by_title_with_their_times(tmp_path):
    for name, metadata in (("01_a", {"seconds": 12, "cores": 2}), ("02_b", {})):
        cells = [{"cell_type": "markdown", "source": [f"# Chapter {name}: more\n", "text"]}]
        (tmp_path / f"{name}.ipynb").write_text(json.dumps({"metadata": metadata, "cells": cells}))
    table = result_tables.chapter_times(list(tmp_path.glob("*.ipynb")))
    assert "<td>Chapter 01_a</td><td>12 s</td><td>2</td>" in table
    assert "<td>Chapter 02_b</td><td>–</td><td>–</td>" in table
    assert "<td>together</td><td>12 s</td>" in table
