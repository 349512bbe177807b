"""Table 1 in words and numbers: its rows, what else the seeds and the sweep show, and the importance
weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from book.claims import Check
from book.real_data_table import difference, easy_and_hard, errors
from lib import stats
from lib.data.pairs import PAIRED_SETS
from lib.stats import Estimate
from lib.trials.images import ImageTrial

METHODS = {"sgd": "SGD", "sam": "SAM", "lsam": "LSAM"}


def rows_of_table(rows: pd.DataFrame, dataset: str, names: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """One data set of Table 1: test, hard and easy probing error in per cent, mean ± standard deviation
    over seeds, and SGD's less SAM's with its 95 % interval."""
    easy, hard = easy_and_hard(rows, dataset)
    found = {}
    for label, measure in (
        ("test", "test"),
        (f"probe, {names[hard]} (hard)", hard),
        (f"probe, {names[easy]} (easy)", easy),
    ):
        columns = {name: 100 * errors(rows, dataset, method, measure) for method, name in METHODS.items()}
        found[f"{names[dataset]}: {label}"] = {
            **{name: mean_and_spread(values) for name, values in columns.items()},
            "SGD less SAM": points(difference(rows, dataset, "sgd", "sam", measure)),
        }
    return found


def mean_and_spread(values: np.ndarray | pd.Series, digits: int = 2) -> str:
    """Mean ± standard deviation over seeds."""
    return f"{values.mean():.{digits}f} ± {stats.spread(values):.{digits}f}"


def points(effect: Estimate) -> str:
    """A difference of errors in percentage points, with its interval."""
    return f"{100 * effect.mean:.2f} [{100 * effect.low:.2f}, {100 * effect.high:.2f}]"


def checks_of_table(rows: pd.DataFrame, names: Mapping[str, str], judged: Sequence[str]) -> list[Check]:
    """Claim C7's parts on the paired sets: a check for either feature of each judged one, and one not run for
    every other."""
    found = []
    for dataset in PAIRED_SETS:
        if dataset not in judged:
            found.append(Check(f"{names[dataset]}: SAM's probing errors below SGD's", None))
            continue
        easy, hard = easy_and_hard(rows, dataset)
        for kind, attribute in (("hard", hard), ("easy", easy)):
            found.append(check_of_gain(rows, dataset, names[dataset], kind, attribute))
    return found


def check_of_gain(
    rows: pd.DataFrame, dataset: str, title: str, kind: str, attribute: str, reduced: bool = False
) -> Check:
    """Claim C7 for one feature of one data set, the ``easy`` or the ``hard`` one."""
    gain = difference(rows, dataset, "sgd", "sam", attribute)
    return Check(f"{title}: {kind} probing error of SGD less SAM's above 0", gain.low > 0, gain, reduced=reduced)


def seeds_in_words(
    rows: pd.DataFrame, dataset: str, names: Mapping[str, str], settings: Mapping[str, ImageTrial]
) -> str:
    """What the paired seeds show on one data set, as a Markdown paragraph."""
    easy, hard = easy_and_hard(rows, dataset)

    def percent(method: str, measure: str, digits: int = 1) -> str:
        return f"{100 * errors(rows, dataset, method, measure).mean():.{digits}f} %"

    sgd, sam = settings["sgd"], settings["sam"]
    count = len(errors(rows, dataset, "sgd", hard))
    gain = {measure: points(difference(rows, dataset, "sgd", "sam", measure)) for measure in (hard, easy)}
    return paragraph(f"""
        **{names[dataset]}**, {count} paired seeds; SGD at learning rate {sgd.lr:g}, SAM and LSAM at
        {sam.lr:g} and $\\rho$ = {sam.rho:g}. The hard feature is {names[hard]}: its probing error is
        {percent("sgd", hard)} under SGD, {percent("sam", hard)} under SAM and {percent("lsam", hard)}
        under LSAM, and was {percent("untrained", hard)} before training. SGD less SAM is {gain[hard]}
        points for the hard feature and {gain[easy]} for the easy one, {names[easy]}; SGD less LSAM is
        {points(difference(rows, dataset, "sgd", "lsam", hard))} for the hard one. The net answers by the
        easy feature: where the two are independent, SGD's answer is wrong about {names[hard]} in
        {percent("sgd", f"answer {hard}")} and about {names[easy]} in {percent("sgd", f"answer {easy}")}
        of the pairs, SAM's in {percent("sam", f"answer {hard}")} and {percent("sam", f"answer {easy}")}.
        The test error of SGD less that of SAM is {points(difference(rows, dataset, "sgd", "sam", "test"))}
        points. Differences of the easy feature are small in number: its probe errs on
        {_wrong(rows, dataset, easy)} pairs under any of the three methods.""")


def _wrong(rows: pd.DataFrame, dataset: str, measure: str) -> str:
    """How many examples a trained net gets wrong: from, to, of how many."""
    chosen = rows[(rows.dataset == dataset) & (rows.measure == measure) & (rows.method != "untrained")]
    wrong = (chosen.error * chosen.examples).round().astype(int)
    return f"{wrong.min()} to {wrong.max()} of {int(chosen.examples.max())}"


def test_in_words(sweep: pd.DataFrame, dataset: str, hard: str, names: Mapping[str, str]) -> str:
    """Whether the test error tells of the hard feature over the sweep of one data set, as a Markdown
    paragraph."""
    of_set = sweep[sweep.dataset == dataset].set_index(["lr", "rho", "measure"]).error.unstack("measure")
    correlation = stats.rank_correlation(of_set["test"].to_numpy(), of_set[[hard]].to_numpy())[0]
    return paragraph(f"""
        **{names[dataset]}**: the {len(of_set)} settings get {_wrong(sweep, dataset, "test")} test pairs
        wrong; the rank correlation of the test error with the probing error of {names[hard]} is
        {correlation:.2f}.""")


def sweep_in_words(
    sweep: pd.DataFrame, dataset: str, hard: str, names: Mapping[str, str], settings: Mapping[str, ImageTrial]
) -> str:
    """What the sweep shows on one data set, as a Markdown paragraph: how much of the difference is tuning?

    settings: the selected trials of "sgd" and "sam".
    """
    found = sweep[(sweep.dataset == dataset) & (sweep.measure == hard)].set_index(["lr", "rho"]).error
    sgd, sam = found.xs(0.0, level="rho"), found[found.index.get_level_values("rho") > 0]
    better = sum(error < sgd[lr] for (lr, _), error in sam.items())
    best = min(sam.items(), key=lambda item: item[1])
    rates = ", ".join(f"{100 * error:.1f} % at {lr:g}" for lr, error in sgd.items())
    ours = {method: found.get((settings[method].lr, settings[method].rho)) for method in ("sgd", "sam")}
    tuning = (
        ""
        if None in ours.values()
        else (
            f" The settings selected on validation data are {100 * (ours['sgd'] - ours['sam']):.1f} points apart"
            f" on this seed; had SGD been given the learning rate with its lowest probing error, it would be"
            f" {100 * (sgd.min() - ours['sam']):.1f}."
        )
    )
    return paragraph(f"""
        **{names[dataset]}**, one net a setting: SGD's probing error of {names[hard]} is {rates}; SAM's
        runs from {100 * sam.min():.1f} % (learning rate {best[0][0]:g}, $\\rho$ = {best[0][1]:g}) to
        {100 * sam.max():.1f} %. In {better} of SAM's {len(sam)} settings it is below that of SGD at the
        same learning rate. The spread of SGD over learning rates is {100 * (sgd.max() - sgd.min()):.1f}
        points.{tuning}""")


def weights_in_words(records: Iterable[dict], dataset: str, names: Mapping[str, str]) -> str:
    """How evenly importance is spread on one data set, as a Markdown paragraph: paired differences of Gini
    coefficients over seeds."""
    gini = {}
    for record in records:
        trial = record["configuration"]["of"]
        if record["status"] == "finished" and trial["dataset"] == dataset:
            for point in ("real", "phantom"):
                gini[trial["method"], point, trial["seed"]] = record["metrics"][point]["gini"]
    seeds = sorted(
        {seed for method, _, seed in gini if method == "sgd"} & {seed for method, _, seed in gini if method == "sam"}
    )

    def less(first: tuple[str, str], second: tuple[str, str]) -> str:
        return str(stats.paired_difference(*([gini[*one, seed] for seed in seeds] for one in (first, second))))

    return paragraph(f"""
        **{names[dataset]}**: the Gini coefficient of the real weights less that of the phantom ones is
        {less(("sgd", "real"), ("sgd", "phantom"))} in the nets of SGD and
        {less(("sam", "real"), ("sam", "phantom"))} in those of SAM; that of the real weights of SGD's
        nets less that of the phantom weights of SAM's is {less(("sgd", "real"), ("sam", "phantom"))}.""")


def paragraph(text: str) -> str:
    """The text in one line."""
    return " ".join(text.split())
