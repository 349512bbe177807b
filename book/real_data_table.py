"""Stored records as tables: errors by method and seed, which feature is the easy one, paired differences."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from lib import stats
from lib.trials.trial import MissingTrials

SETTING = ("dataset", "method", "lr", "rho", "seed")


def table(records: Iterable[dict]) -> pd.DataFrame:
    """The finished trials' errors, one row each: dataset, method, lr, rho, seed, measure, error, examples.

    The method at 0 epochs is ``untrained``. `measure` is ``test``, ``worst group`` (the test error of the
    group with the highest, for sets that have groups), the attribute of a probing error, or ``answer`` and
    the attribute that the net's own answer is held against on the balanced test images. `examples` is how
    many the error is of (None where it is weighted).
    """
    rows = []
    for record in records:
        if record["status"] != "finished":
            continue
        trial, metrics = dict(record["configuration"]), record["metrics"]
        trial["method"] = trial["method"] if trial["epochs"] else "untrained"
        rates = {
            "test": metrics["test_error"],
            **metrics["probing_error"],
            **{f"answer {name}": rate for name, rate in metrics["classifier_error"].items()},
        }
        if "worst_group_error" in metrics["test_error"]:
            rates["worst group"] = {"error": metrics["test_error"]["worst_group_error"]}
        setting = [trial[name] for name in SETTING]
        rows += [(*setting, measure, rate["error"], rate.get("examples")) for measure, rate in rates.items()]
    return pd.DataFrame(rows, columns=[*SETTING, "measure", "error", "examples"])


def diverged(records: Iterable[dict]) -> list[str]:
    """The diverged trials in words. Raises MissingTrials where a method is left without a finished trial."""
    records = list(records)
    lost = [(record["configuration"], record["diverged_at"]) for record in records if record["status"] == "diverged"]
    finished = set(table(records).method)
    for trial, step in lost:
        if trial["method"] not in finished:
            raise MissingTrials(
                f"no trial of {trial['method']} finished: seed {trial['seed']} diverged at "
                f"step {step}; take a smaller lr or rho"
            )
    return [f"{trial['method']} seed {trial['seed']} at step {step}" for trial, step in lost]


def errors(rows: pd.DataFrame, dataset: str, method: str, measure: str) -> pd.Series:
    """One error of one method, indexed by seed; empty where no trial finished.

    Raises ValueError where the method is there at two settings: they must be told apart before.
    """
    chosen = rows[(rows.dataset == dataset) & (rows.method == method) & (rows.measure == measure)]
    if chosen.seed.duplicated().any():
        settings = chosen[["lr", "rho"]].drop_duplicates().to_dict("records")
        raise ValueError(f"rows must hold {method} on {dataset} at one setting, not at {settings}")
    return chosen.set_index("seed").error.sort_index()


def easy_and_hard(rows: pd.DataFrame, dataset: str) -> tuple[str, str]:
    """The two attributes, the *easy* one first: by the paper's rule that of the lower error under SGD."""
    measures = rows[rows.dataset == dataset].measure.unique()
    attributes = [measure for measure in measures if f"answer {measure}" in measures]
    easy, hard = sorted(attributes, key=lambda name: errors(rows, dataset, "sgd", name).mean())
    return easy, hard


def difference(rows: pd.DataFrame, dataset: str, first: str, second: str, measure: str) -> stats.Estimate:
    """Mean of method `first`'s error less `second`'s over the seeds that both finished, with its interval."""
    columns = [errors(rows, dataset, method, measure) for method in (first, second)]
    return stats.paired_difference(*pd.concat(columns, axis=1, join="inner").to_numpy().T)
