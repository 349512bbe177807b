"""Chapter 14, your own data and your own net: what its parameters name, what is measured, what can be concluded."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from scipy.stats import t as student
from scipy.stats.contingency import association
from sklearn.datasets import load_digits
from torch import nn

from book.image_trial import ImageTrial
from book.notebook import ParameterError
from book.protocols import METHODS, Protocol, Result, result
from book.templates import render
from lib import stats
from lib.data.dataset import Dataset, Source, Split
from lib.data.own import Files, Table
from lib.data.pairs import Pair, Part
from lib.trials.store import Store
from lib.trials.trial import Place

SIDE = 64  # pixels of a table's images, where none are asked for
BATCHES = 20  # of training images whose importance weights are measured, at most
POWER = 0.8  # how often a difference that counts as detectable is found
SPLITS = ("train", "validation", "test", "probe_train", "probe_test")


def example() -> Pair:
    """A small pair of scikit-learn's digits, 8 by 8 pixels: 0 or 1 above, 3 or 8 below."""
    digits, parts = load_digits(), []
    for upper, lower in ((0, 1), (3, 8)):
        rows = np.flatnonzero(np.isin(digits.target, (upper, lower)))
        images = (digits.images[rows] * 255 / 16).round().astype(np.uint8)
        labels = (digits.target[rows] == lower).astype(int)
        train, test = (Split.of(images[of], labels[of]) for of in (np.arange(len(rows)) % 3 > 0, slice(0, None, 3)))
        parts.append(Part(f"{upper} or {lower}", train, test, (str(upper), str(lower))))
    return Pair("digits", (parts[0], parts[1]))


def source(
    *, first: str, second: str, classes: str, table: str, label: str, attribute: str, size: int, **columns: Any
) -> Source:
    """The data set that the parameters name: two files, a table with `columns`, or, of neither, `example`.

    Raises ParameterError, in one line, where a parameter lacks another, and as the sources do.
    """
    if table and not (label and attribute):
        raise ParameterError("parameters label and attribute must name two columns of the table")
    if bool(first) != bool(second) or (first and table):
        raise ParameterError("parameters first and second must be given both, and without table")
    if table:
        return Table(table, (label, attribute), **columns)
    if not first:
        return example()
    pairs = [name.strip(" '\"").partition("=") for name in classes.strip("[] ").split(",") if name.strip()]
    sides = [[name.strip() for name, _, _ in pairs], [(other or name).strip() for name, _, other in pairs]]
    names = [Path(path).expanduser().resolve().stem for path in (first, second)]
    names = names if names[0] != names[1] else ["first", "second"]
    parts = [Files(path, tuple(side), size or None, name) for path, side, name in zip((first, second), sides, names)]
    return Pair("-".join(names), (parts[0], parts[1]))


def of_data(data: Dataset) -> dict[str, Any]:
    """What a data set holds, as rows: images, values, and Cramér's V of the label and the other attribute."""
    counts = pd.crosstab(*(data.train.attributes[name].numpy() for name in data.attributes)).to_numpy()
    rows: dict[str, Any] = {f"images, {split.replace('_', ' ')}": len(getattr(data, split)) for split in SPLITS}
    rows |= {f"values of {name}": ", ".join(values) for name, values in data.values.items()}
    rows["correlation in training (Cramér's V)"] = float(association(counts, method="cramer"))
    return rows | {"rarest combination in training": int(np.bincount(data.groups(data.train), minlength=1).min())}


def measured(
    trial: ImageTrial, rho: float, seeds: int, store: Store, place: Place, jobs: int = 1, scheduler: str = ""
) -> Result:
    """SGD's setting `trial`, SAM and LSAM at `rho`, and the net before training, on paired seeds: errors, and the
    importance weights of SGD's and SAM's nets. Raises MissingTrials where all nets of a method diverged."""
    protocol = Protocol(trial, (trial.lr,), (rho,), moments=(trial.epochs,), batches=BATCHES, lsam=True)
    return cast(Result, result(protocol, store, seeds, place, jobs=jobs, scheduler=scheduler or None))


def net(given: str) -> nn.Module:
    """The net that `given` names: ``module:function``, which is called without arguments, or a file of torch.export
    (.pt2). Raises ParameterError, in one line, where there is none."""
    try:
        if given.endswith(".pt2"):
            return torch.export.unflatten(torch.export.load(Path(given).expanduser()))
        module, _, function = given.partition(":")
        sys.path.insert(0, "")  # the folder that the notebook is run from
        found = getattr(import_module(module), function)()
        if not isinstance(found, nn.Module):
            raise TypeError(f"a {type(found).__name__} is no net")
        return found
    except Exception as error:  # whatever the reader's code raises
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        allowed = "module:function or a .pt2 file that gives a net"
        raise ParameterError(f"parameter model must be {allowed}, and {given!r} gives {reason}") from error


def seen_plainly(data: Dataset) -> Dataset:
    """The data as a net trained elsewhere takes them: images from 0 to 1, or photographs normalised as ImageNet's."""
    return data if data.mean_pixel is None else replace(data, mean_pixel=torch.zeros(3))


def detectable(gains: np.ndarray) -> float:
    """The difference that a paired t test of as many seeds, with this spread, finds with probability POWER at a level
    of 5 %; NaN for one seed."""
    n = len(gains)
    return float(student.ppf([0.975, POWER], n - 1).sum() * stats.spread(gains) / n**0.5) if n > 1 else float("nan")


def conclusions(result: Result, of: Mapping[str, Any]) -> str:
    """In plain words, as HTML: what can be said of these nets at this size, and what cannot; `of` is `of_data`'s."""
    easy, hard = result.features
    sgd, gains = 100 * result.errors["sgd"], {name: 100 * result.gains(name) for name in result.features}
    probed = [one["metrics"]["probing_error"][hard] for one in result.records if one["metrics"]]
    evenness = {
        METHODS[method]: np.mean([one["phantom"]["gini"] - one["real"]["gini"] for one in net])
        for method, net in result.measured().items()
        if net
    }
    probes = {"tested": probed[0]["examples"], "at_end": sum(one["at_end"] for one in probed), "probes": len(probed)}
    facts = {"trained": of["images, probe train"], "correlation": of["correlation in training (Cramér's V)"]}
    effects = {"gains": {name: stats.estimate(gain) for name, gain in gains.items()}, "errors": sgd.mean()}
    effects |= {"detectable": {name: detectable(gain) for name, gain in gains.items()}, "evenness": evenness}
    apart = stats.estimate((sgd[hard] - sgd[easy]).dropna())
    seeds = len(gains[hard])
    return render("your-data", easy=easy, hard=hard, seeds=seeds, apart=apart, **probes, **facts, **effects)
