"""Table 1's rows on natural images, as far as they are stored: their errors, how they fall short of the
paper's protocol, and claims C3, C4 and C7 on them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from book import natural_plans
from book import real_data_report as report
from book import real_data_table as table
from book.claims import Check, weakest
from book.natural_plans import Protocol
from lib.trials.images import ImageTrial
from lib.trials.store import Store

TITLES = {"celeba": "CelebA", "waterbirds": "Waterbirds", "birds_on_scenes": "birds on scenes"}
PROTOCOLS = {
    "reduced": {dataset: natural_plans.groups_reduced(dataset) for dataset in natural_plans.REDUCED_MOMENTS},
    "full": {dataset: natural_plans.groups_full(dataset) for dataset in natural_plans.EPOCHS},
}
METHODS = "sgd", "sam"


@dataclass(frozen=True, eq=False)
class Row:
    """One data set's stored trials, complete: what a sweep selected, on every seed, and the importance
    weights of these nets."""

    dataset: str
    reduced: bool  # as planned, or as the set on disk is not complete
    protocol: Protocol
    settings: dict[str, ImageTrial]  # of SGD and SAM, selected on seed 0
    records: list[dict]  # of the untrained net, SGD and SAM at the selected settings, all seeds
    weights: list[dict]  # of SGD's and SAM's nets

    @property
    def title(self) -> str:
        """The data set as a page writes it."""
        return TITLES[self.dataset]

    @cached_property
    def errors(self) -> pd.DataFrame:
        """`table.table` of the records."""
        return table.table(self.records)

    @cached_property
    def features(self) -> tuple[str, str]:
        """The easy and the hard attribute."""
        return table.easy_and_hard(self.errors, self.dataset)

    @property
    def moments(self) -> list[int]:
        """The epochs after which weights were measured, the last one at the end."""
        return [*self.protocol.moments, self.protocol.base.epochs]

    def measured(self, epoch: int) -> dict[str, list[dict]]:
        """What was measured on SGD's and on SAM's nets after `epoch`, one entry a seed that both finished."""
        wanted = None if epoch == self.protocol.base.epochs else epoch
        by_seed: dict[str, dict[int, dict]] = {method: {} for method in METHODS}
        for record in self.weights:
            trial = record["configuration"]
            if trial["epoch"] == wanted and record["status"] == "finished":
                by_seed[trial["of"]["method"]][trial["of"]["seed"]] = record["metrics"]
        both = sorted(by_seed["sgd"].keys() & by_seed["sam"].keys())
        return {method: [by_seed[method][seed] for seed in both] for method in METHODS}


def stored(kind: str, store: Store, seeds: int) -> dict[str, Row | None]:
    """The row of every data set of the `kind` ("reduced" or "full"); None where a trial of it is missing."""
    return {dataset: _row(dataset, kind, protocol, store, seeds) for dataset, protocol in PROTOCOLS[kind].items()}


def _row(dataset: str, kind: str, protocol: Protocol, store: Store, seeds: int) -> Row | None:
    settings = natural_plans.selected(protocol, store)
    if settings is None:
        return None
    records, weights = (
        [store.read(trial.configuration) for trial in trials]
        for trials in (
            natural_plans.comparison(protocol, settings, seeds),
            natural_plans.weight_trials(protocol, settings, seeds),
        )
    )
    if None in (*records, *weights):
        return None
    reduced = kind == "reduced" or natural_plans.on_part(records)
    return Row(dataset, reduced, protocol, settings, records, weights)


def standing(dataset: str, kind: str, row: Row | None) -> str:
    """How a data set's row stands to the paper's protocol, in words."""
    command = dataset.replace("_", "-") + ("-full" if kind == "full" else "")
    if row is None:
        return f"not run here: python -m book.sweep {command}"
    return f"reduced: {shortfalls(row)}" if row.reduced else "the whole protocol"


def shortfalls(row: Row) -> str:
    """What a reduced row has, of how much in the paper's protocol; the stand-in has none of its own."""
    base = row.protocol.base
    images = row.records[-1]["images"]["train"]
    whole = PROTOCOLS["full"].get(row.dataset)
    values = [
        ("epochs", base.epochs),
        ("pixels a side", base.size),
        ("settings in the sweep", len(natural_plans.grid(row.protocol))),
        ("training images", images),
    ]
    if whole is not None:
        totals = [
            whole.base.epochs,
            whole.base.size,
            len(natural_plans.grid(whole)),
            natural_plans.training_images(whole.base.configuration),
        ]
        values = [(f"of {total:,} {what}", value) for (what, value), total in zip(values, totals)]
    parts = [f"{value:,} {what}" for what, value in values]
    fresh = row.records[-1]["weights"]["fresh"]
    parts.append(f"ImageNet's weights but for {' and '.join(fresh)}")
    return ", ".join(parts)


def rows_of_table(row: Row) -> dict[str, dict[str, str]]:
    """Table 1 on one data set: test error weighted by the groups' shares in training, that of the worst
    group, hard and easy probing error, in per cent, mean ± standard deviation over seeds; SGD's less
    SAM's."""
    easy, hard = row.features
    found, label = {}, row.title + (", reduced" if row.reduced else "")
    for what, measure in (
        ("test", "test"),
        ("worst group", "worst group"),
        (f"probe, {hard} (hard)", hard),
        (f"probe, {easy} (easy)", easy),
    ):
        columns = {
            name: 100 * table.errors(row.errors, row.dataset, method, measure)
            for method, name in (("untrained", "before training"), ("sgd", "SGD"), ("sam", "SAM"))
        }
        found[f"{label}: {what}"] = {
            **{name: report.mean_and_spread(values) for name, values in columns.items()},
            "SGD less SAM": report.points(table.difference(row.errors, row.dataset, "sgd", "sam", measure)),
        }
    return found


def checks_of_table(rows: Iterable[Row]) -> list[Check]:
    """Claim C7 on CelebA and Waterbirds: a check for either feature of each that is stored, one not run for
    the other. The stand-in is none of the paper's sets and has no part in it."""
    there = {row.dataset: row for row in rows}
    found = []
    for dataset in natural_plans.EPOCHS:
        row = there.get(dataset)
        if row is None:
            found.append(Check(f"{TITLES[dataset]}: SAM's probing errors below SGD's", None))
            continue
        for kind, attribute in zip(("easy", "hard"), row.features):
            found.append(report.check_of_gain(row.errors, dataset, row.title, kind, attribute, row.reduced))
    return found


def gini(row: Row, epoch: int) -> np.ndarray:
    """Gini coefficients (net, real or phantom, seed) of SGD's and SAM's nets after `epoch`."""
    return np.array(
        [
            [[metrics[point]["gini"] for metrics in found] for point in ("real", "phantom")]
            for found in row.measured(epoch).values()
        ]
    )


def checks_of_evenness(row: Row) -> list[Check]:
    """Claim C3 on one data set, at the end of training (Figure 3): within either net and between them."""
    sgd, sam = gini(row, row.moments[-1])
    parts = {
        "SGD-trained: Gini coefficient, real minus phantom, above 0": sgd[0] - sgd[1],
        "SAM-trained: Gini coefficient, real minus phantom, above 0": sam[0] - sam[1],
        "Gini coefficient, SGD-trained real minus SAM-trained phantom, above 0": sgd[0] - sam[1],
    }
    return [weakest(f"{row.title}, {what}", values, +1, reduced=row.reduced) for what, values in parts.items()]


def changes(row: Row, epoch: int, reading: str = "label") -> dict[str, np.ndarray]:
    """What the phantom changes for each feature after `epoch`, (net, seed), with contributions signed by
    "label" or by "attribute", see `group_weights.measure`: of ``share easy`` and ``share hard``, the share
    of all importance that the worst-fitted quarter holds, the difference; ``slope easy`` and ``slope
    hard``, of the log ratio on the contributions."""
    found = {}
    for kind, attribute in zip(("easy", "hard"), row.features):
        nets = [
            [metrics["contributions"][reading]["attributes"][attribute] for metrics in of_net]
            for of_net in row.measured(epoch).values()
        ]
        found[f"share {kind}"] = np.array(
            [[one["worst_share"]["phantom"] - one["worst_share"]["real"] for one in of_net] for of_net in nets]
        )
        found[f"slope {kind}"] = np.array([[one["slope"] for one in of_net] for of_net in nets])
    return found


def checks_of_which(row: Row) -> list[Check]:
    """Claim C4 on one data set, at the end of training (Figure 5): as a group and image by image, each for
    both nets, with contributions signed by the label."""
    found = changes(row, row.moments[-1])
    parts = {
        "share of the easy feature's worst quarter, change below 0": (found["share easy"], -1),
        "share of the hard feature's worst quarter, change above 0": (found["share hard"], +1),
        "slope on the easy contribution above 0": (found["slope easy"], +1),
        "slope on the hard contribution below 0": (found["slope hard"], -1),
    }
    return [
        weakest(f"{row.title}, both nets: {what}", values, sign, reduced=row.reduced)
        for what, (values, sign) in parts.items()
    ]


def rows_of_evenness(row: Row) -> dict[str, dict[str, str]]:
    """What C3 is about at every moment, mean ± standard deviation over seeds: Gini coefficients of either
    net's real and phantom weights."""
    found = {}
    for epoch in row.moments:
        even = gini(row, epoch)
        found[f"{row.title}, epoch {epoch}"] = {
            f"{name}, {point}": report.mean_and_spread(values, 3)
            for name, net in zip(("SGD", "SAM"), even)
            for point, values in zip(("real", "phantom"), net)
        }
    return found


def rows_of_which(row: Row, reading: str) -> dict[str, dict[str, str]]:
    """What C4 is about at every moment, with contributions signed by "label" or by "attribute", mean ±
    standard deviation over seeds: for each feature the change of the worst quarter's share and the slope."""
    found = {}
    for epoch in row.moments:
        change = changes(row, epoch, reading)
        for net, name in enumerate(("SGD", "SAM")):
            found[f"{row.title}, {name}, epoch {epoch}"] = {
                column: report.mean_and_spread(values[net], 3) for column, values in change.items()
            }
    return found


def in_words(row: Row) -> str:
    """What the paired seeds of one data set show, as a Markdown paragraph."""
    easy, hard = row.features
    sgd, sam = row.settings["sgd"], row.settings["sam"]

    def percent(method: str, measure: str) -> str:
        return f"{100 * table.errors(row.errors, row.dataset, method, measure).mean():.1f} %"

    def gain(measure: str) -> str:
        return report.points(table.difference(row.errors, row.dataset, "sgd", "sam", measure))

    probed = row.errors[row.errors.measure == hard].examples.iloc[0]
    seeds = len(table.errors(row.errors, row.dataset, "sam", hard))
    answers = {name: percent("sgd", f"answer {name}") for name in (easy, hard)}
    return report.paragraph(f"""
        **{row.title}** ({shortfalls(row) if row.reduced else "the whole protocol"}), {seeds} paired seeds;
        SGD at learning rate {sgd.lr:g}, SAM at {sam.lr:g} and $\\rho$ = {sam.rho:g}. The hard attribute is
        {hard}: its probing error is {percent("sgd", hard)} under SGD and {percent("sam", hard)} under SAM,
        and was {percent("untrained", hard)} before training; SGD less SAM is {gain(hard)} points for it and
        {gain(easy)} for the easy one, {easy}. Probes are tested on {int(probed)} images, so that one image is
        {100 / probed:.2f} points. Where the two attributes are independent, SGD's answer is wrong about
        {easy} in {answers[easy]} and about {hard} in {answers[hard]} of the images. The error of the worst
        group is {percent("sgd", "worst group")} under SGD and {percent("sam", "worst group")} under SAM.""")


def weights_measured(rows: Iterable[Row]) -> str:
    """How many images' weights were measured, and at which radius, in words."""
    parts = []
    for row in rows:
        trial = row.weights[0]["configuration"]
        points = row.weights[0]["metrics"]["real"]["points"]
        parts.append(f"{points:,} training images of {row.title} at $\\rho$ = {trial['rho']:g}")
    return " and ".join(parts)


def means_in_words(row: Row) -> str:
    """How the phantom moves the mean weight and the weight of the typical image at the end of training, in
    the nets of SGD and SAM, as Markdown: means over seeds."""
    parts = []
    for name, found in zip(("SGD", "SAM"), row.measured(row.moments[-1]).values()):
        real, phantom, median = (
            np.mean([value(metrics) for metrics in found])
            for value in (
                lambda metrics: metrics["real"]["mean"],
                lambda metrics: metrics["phantom"]["mean"],
                lambda metrics: metrics["median_ratio"],
            )
        )
        parts.append(
            f"in {name}'s nets the mean weight goes from {real:.3f} to {phantom:.3f} and the median "
            f"image's is multiplied by {median:.2f}"
        )
    return f"On {row.title} {'; '.join(parts)}."
