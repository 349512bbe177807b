"""One trial of the image experiments (Section 4): data, training, probes, and the record for the store."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import sklearn
import torch
from torch import Tensor

from lib import device as devices
from lib import probes, stats, training
from lib.data import pairs
from lib.data.pairs import PairedSet, Split
from lib.models import ConvNet
from lib.store import Store, identity
from lib.training import METHODS, History, Images

# The paper's protocol for the two paired sets (Appendix B).
LEARNING_RATES = (0.01, 0.05, 0.1)
RADII = (0.01, 0.03, 0.05, 0.07, 0.1, 0.2)  # rho; 0 is SGD
EPOCHS = 20
SEEDS = 4
PROTOCOL = 1  # raised when the same configuration comes to mean something else (pairing, net, probe)


@dataclass(frozen=True)
class ImageTrial:
    """The configuration of one trial; its hash is the trial's name in the store.

    `seed` decides the data split and pairing, the initial weights and the order of the batches, so that
    trials of one seed are paired. With 0 epochs the trial is the untrained net. Raises ValueError for a value
    that is not allowed.
    """

    dataset: str
    method: str
    lr: float = 0.05  # of the first step; falls to 0 as a cosine
    rho: float = 0.0  # radius of SAM or LSAM; 0 for SGD
    epochs: int = EPOCHS
    batch_size: int = 100
    momentum: float = 0.9
    weight_decay: float = 0.0
    seed: int = 0
    train_limit: int | None = None  # training images used; None: all

    def __post_init__(self) -> None:
        for name, choices in (("dataset", tuple(pairs.PAIRED_SETS)), ("method", METHODS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}")
        for name, least in (("epochs", 0), ("batch_size", 1), ("seed", 0), ("train_limit", 1)):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
            if not (whole or name == "train_limit" and value is None):
                raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
        for name in ("lr", "rho", "momentum", "weight_decay"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
                raise ValueError(f"{name} must be a finite number of at least 0, not {value!r}")
            object.__setattr__(self, name, float(value))  # 0 and 0.0 are one configuration
        if self.lr == 0 or self.momentum >= 1:
            raise ValueError(f"lr must be above 0 and momentum below 1, not {self.lr:g}, {self.momentum:g}")
        if self.method == "sgd" and self.rho:
            raise ValueError(f"rho must be 0 where method is 'sgd', not {self.rho:g}")

    @property
    def configuration(self) -> dict:
        """The trial as plain values, as stored."""
        return {"experiment": "images", "protocol": PROTOCOL, **asdict(self)}

    @property
    def identity(self) -> str:
        """The trial's name in the store."""
        return identity(self.configuration)


class MissingTrials(RuntimeError):
    """Trials that are neither stored nor to be had here; shown in a notebook as one line."""

    def _render_traceback_(self) -> list[str]:  # IPython asks for this name
        return [f"MissingTrials: {self}"]


def paper_grid(dataset: str, seed: int = 0) -> list[ImageTrial]:
    """The paper's sweep of one data set: every learning rate with SGD and with SAM at every radius."""
    base = ImageTrial(dataset, "sgd", seed=seed)
    return [replace(base, lr=lr, rho=rho, method="sam" if rho else "sgd")
            for lr in LEARNING_RATES for rho in (0.0, *RADII)]


def comparison(dataset: str, *, lr: float, rho: float, epochs: int, seeds: int,
               batch_size: int = 100) -> list[ImageTrial]:
    """The untrained net, then SGD, SAM and LSAM at one setting, each with seeds 0, 1, ...: paired by seed."""
    trials = []
    for seed in range(seeds):
        trials.append(ImageTrial(dataset, "sgd", epochs=0, seed=seed))
        setting = dict(lr=lr, epochs=epochs, batch_size=batch_size, seed=seed)
        trials += [ImageTrial(dataset, method, rho=radius, **setting)
                   for method, radius in (("sgd", 0.0), ("sam", rho), ("lsam", rho))]
    return trials


def shortfalls(trials: Iterable[ImageTrial], store: Store) -> list[str]:
    """What stands between these trials and the paper's protocol, in words; empty where C7 may be judged."""
    trials, found = list(trials), []
    grid = paper_grid(trials[0].dataset)
    epochs, seeds = min(trial.epochs for trial in trials), len({trial.seed for trial in trials})
    stored = sum(store.read(trial.configuration) is not None for trial in grid)
    for there, needed, what in ((epochs, EPOCHS, "epochs"), (seeds, SEEDS, "seeds"),
                                (stored, len(grid), "settings of the sweep")):
        if there < needed:
            found.append(f"{there} of {needed} {what}")
    for name in ("batch_size", "momentum", "weight_decay", "train_limit"):
        if others := {getattr(trial, name) for trial in trials} - {getattr(grid[0], name)}:
            found.append(f"{name} {', '.join(map(str, others))}")
    return found


def collect(trials: Iterable[ImageTrial], store: Store, root: Path | None = None,
            device: str = "auto") -> list[dict]:
    """The trials' records, in order: read from the store, or computed and stored one by one.

    Raises MissingTrials, before any training, where the store lacks a trial and the data root its images.
    """
    trials = list(trials)
    records = [store.read(trial.configuration) for trial in trials]
    lacking = [trial for trial, record in zip(trials, records) if record is None]
    for dataset in dict.fromkeys(trial.dataset for trial in lacking):
        if not pairs.available(dataset, root):
            needed = " ".join(source for _, source in pairs.PAIRED_SETS[dataset][:2])
            raise MissingTrials(
                f"{len(lacking)} of {len(trials)} trials are not stored, and the images to train on are not "
                "under the data root: set SAM_DATA_ROOT to their folder, or get them with: "
                f"python -m lib.data.sources --download {needed}")
    for i, trial in enumerate(trials):
        if records[i] is None:
            records[i] = run_trial(trial, root, devices.pick(device))
            store.write(records[i])
    return records


def run_trial(trial: ImageTrial, root: Path | None = None, device: torch.device | None = None) -> dict:
    """Compute one trial: its record, of plain values, for the store.

    `status` is ``finished``, or ``diverged`` where a loss was NaN or infinite; then `diverged_at` is the
    step, from 0, and there are no metrics. Probing errors are those of equation (1), with 95 % intervals;
    `classifier_error` is the error of the net's own answer against each attribute on the balanced test
    pairs.
    """
    device = device or devices.pick()
    data = pairs.load(trial.dataset, trial.seed, root)
    model, history = train_model(trial, data, device)
    return {
        "configuration": trial.configuration,
        "status": "finished" if history.diverged_at is None else "diverged",
        "diverged_at": history.diverged_at,
        "metrics": measure(model, data, device) if history.diverged_at is None else None,
        "curve": {"train_loss": history.train_loss, "validation_loss": history.validation_loss,
                  "validation_error": history.validation_error},
        "seconds": {"training": round(history.seconds, 2)},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__,
                     "scikit-learn": sklearn.__version__},
        "hardware": hardware(device),
    }


def train_model(trial: ImageTrial, data: PairedSet, device: torch.device) -> tuple[ConvNet, History]:
    """The trial's trained net and what happened on the way."""
    model = training.initial_model(ConvNet, data.classes, seed=trial.seed, device=device)
    optimizer = training.make_optimizer(trial.method, model, trial.rho, lr=trial.lr, momentum=trial.momentum,
                                        weight_decay=trial.weight_decay)
    history = training.train(
        model, optimizer, as_images(data.train, data, device, trial.train_limit),
        as_images(data.validation, data, device), epochs=trial.epochs, batch_size=trial.batch_size,
        seed=trial.seed, label=f"{trial.dataset} {trial.method} seed {trial.seed}")
    return model, history


def measure(model: ConvNet, data: PairedSet, device: torch.device) -> dict:
    """Everything that is measured on a trained net, as plain values; see `run_trial`."""
    validation_loss, validation_error = training.evaluate(model, as_images(data.validation, data, device))
    test, probe_test = as_images(data.test, data, device), as_images(data.probe_test, data, device)
    answers = training.logits(model, probe_test).argmax(1).cpu()
    return {
        "validation_loss": validation_loss,
        "validation_error": validation_error,
        "test_error": _rate(training.logits(model, test).argmax(1) != test.labels),
        "probing_error": {name: {"error": probe.error, "low": probe.low, "high": probe.high,
                                 "examples": len(probe_test), "regularisation": probe.regularisation}
                          for name, probe in fit_probes(model, data, device).items()},
        "classifier_error": {name: _rate(answers != truth)
                             for name, truth in data.probe_test.attributes.items()},
    }


def fit_probes(model: ConvNet, data: PairedSet, device: torch.device) -> dict[str, probes.Probe]:
    """A linear probe on the net's features for each attribute, trained and measured on the balanced pairs."""
    train, test = (training.features(model, as_images(split, data, device))
                   for split in (data.probe_train, data.probe_test))
    truth = data.probe_train.attributes, data.probe_test.attributes
    return {name: probes.linear_probe(train, truth[0], test, truth[1], name) for name in data.attributes}


def as_images(split: Split, data: PairedSet, device: torch.device, limit: int | None = None) -> Images:
    """The first `limit` (None: all) pairs of a split on the device, less the training set's mean pixel."""
    return Images.of(split.images[:limit], split.labels[:limit], data.mean_pixel, device)


def _rate(wrong: Tensor) -> dict:
    """The share of wrong answers with its 95 % Wilson interval."""
    errors, examples = int(wrong.sum()), len(wrong)
    low, high = probes.wilson_interval(errors, examples)
    return {"error": errors / examples, "low": low, "high": high, "examples": examples}


@dataclass(frozen=True, eq=False)
class Reading:
    """What one trained net makes of test pairs whose two images are of different classes."""

    images: Tensor  # uint8 (n, 3, height, width)
    attributes: dict[str, Tensor]  # int64 (n,) each: the truth
    answers: Tensor  # int64 (n,): the net's own answer
    probed: dict[str, np.ndarray]  # int64 (n,) each: what the attribute's probe reads


def read_pairs(trial: ImageTrial, count: int, root: Path | None = None,
               device: torch.device | None = None) -> Reading:
    """Train the trial's net anew and let it read the first `count` balanced test pairs of two classes."""
    device = device or devices.pick()
    data = pairs.load(trial.dataset, trial.seed, root)
    model, _ = train_model(trial, data, device)
    first, second = data.probe_test.attributes.values()
    chosen = (first != second).nonzero()[:count, 0]
    truth = {name: values[chosen] for name, values in data.probe_test.attributes.items()}
    shown = Split(data.probe_test.images[chosen], truth, data.probe_test.labels[chosen])
    phi = training.features(model, as_images(shown, data, device))
    answers = training.logits(model, as_images(shown, data, device)).argmax(1).cpu()
    probed = {name: probe.predict(phi) for name, probe in fit_probes(model, data, device).items()}
    return Reading(shown.images, truth, answers, probed)


def table(records: Iterable[dict]) -> pd.DataFrame:
    """The finished trials' errors, one row each: dataset, method, seed, measure, error.

    The method at 0 epochs is ``untrained``. `measure` is ``test``, the attribute of a probing error, or
    ``answer`` and the attribute that the net's own answer is held against on the balanced test pairs.
    """
    rows = []
    for record in records:
        if record["status"] != "finished":
            continue
        trial, metrics = record["configuration"], record["metrics"]
        common = trial["dataset"], trial["method"] if trial["epochs"] else "untrained", trial["seed"]
        rates = {"test": metrics["test_error"], **metrics["probing_error"],
                 **{f"answer {name}": rate for name, rate in metrics["classifier_error"].items()}}
        rows += [(*common, measure, rate["error"]) for measure, rate in rates.items()]
    return pd.DataFrame(rows, columns=["dataset", "method", "seed", "measure", "error"])


def diverged(records: Iterable[dict]) -> list[str]:
    """The diverged trials in words. Raises MissingTrials where a method is left without a finished trial."""
    records = list(records)
    lost = [(record["configuration"], record["diverged_at"]) for record in records
            if record["status"] == "diverged"]
    finished = set(table(records).method)
    for trial, step in lost:
        if trial["method"] not in finished:
            raise MissingTrials(f"no trial of {trial['method']} finished: seed {trial['seed']} diverged at "
                                f"step {step}; take a smaller lr or rho")
    return [f"{trial['method']} seed {trial['seed']} at step {step}" for trial, step in lost]


def errors(rows: pd.DataFrame, dataset: str, method: str, measure: str) -> pd.Series:
    """One error of one method, indexed by seed; empty where no trial finished."""
    chosen = rows[(rows.dataset == dataset) & (rows.method == method) & (rows.measure == measure)]
    return chosen.set_index("seed").error.sort_index()


def easy_and_hard(rows: pd.DataFrame, dataset: str) -> tuple[str, str]:
    """The two attributes, the *easy* one first: by the paper's rule that of the lower error under SGD."""
    attributes = [attribute for attribute, _ in pairs.PAIRED_SETS[dataset][:2]]
    easy, hard = sorted(attributes, key=lambda name: errors(rows, dataset, "sgd", name).mean())
    return easy, hard


def difference(rows: pd.DataFrame, dataset: str, first: str, second: str, measure: str) -> stats.Estimate:
    """Mean of method `first`'s error less `second`'s over the seeds that both finished, with its interval."""
    columns = [errors(rows, dataset, method, measure) for method in (first, second)]
    return stats.paired_difference(*pd.concat(columns, axis=1, join="inner").to_numpy().T)


def hardware(device: torch.device) -> dict:
    """What the numbers were computed on: kind of device, its model, threads."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = names[0] if names else platform.machine()
    if device.type == "cuda":
        model = torch.cuda.get_device_name(device)
    return {"device": device.type, "model": model, "threads": torch.get_num_threads()}
