"""Chapter 12: SAM's variants and two explicit re-weightings in the toy, and the variants on images: the trials, what is
read of them, what a step costs, and the figures."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle, product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn

from book import protocols, style
from book.image_trial import ImageTrial
from book.plan import Plan
from book.sam import prepared
from book.selection import at_choice, choose
from book.toy_trial import MEASURED, SEEDS, ToyTrial, errors, kept
from lib.data.toy import ToyConstants
from lib.device import threads
from lib.optim.variants import CONSTANTS, TITLES
from lib.stats import Estimate, estimate, paired_difference
from lib.toy.variants import WITHOUT_RADIUS, VariantSetting
from lib.trials.store import Store

STEP_SIZES = (0.01, 0.1, 1.0, 10.0, 100.0)  # of GroupDRO (its paper's: 0.01)
DECAY = 5e-4  # weight decay, where there is any (ours: the usual one)
STRONG = (0.0, 0.01)  # weight decays that the re-weightings choose from: their papers ask for a strong one
SAM_RADII = (0.1, 0.2, 0.3, 0.4, 0.5)


def _radii(method: str, *radii: float, **others: float) -> tuple[VariantSetting, ...]:
    return tuple(VariantSetting(method, radius, **others) for radius in radii)


def _grid(method: str, grid: Mapping[str, Sequence[float]], **others) -> tuple[VariantSetting, ...]:
    """Every combination of the values of `grid`, each with a strong weight decay and without one; the last varies
    fastest."""
    grid = {**grid, "weight_decay": STRONG}
    return tuple(VariantSetting(method, **dict(zip(grid, values)), **others) for values in product(*grid.values()))


# Every row of the toy's ranking: the settings that it may choose from. The grids come from exploration on
# seeds 0 to 3; each goes up to where training begins to fail.
ROWS: dict[str, tuple[VariantSetting, ...]] = {
    "SGD": (VariantSetting("sgd"),),
    "LSAM": _radii("lsam", 0.05, 0.1, 0.2, 0.4, 0.8, 1.4, 2.0, 2.8, 4.0),
    "SAM": _radii("sam", *SAM_RADII),
    "SAM, smaller steps": _radii("sam", 0.2, 0.4, 0.6, 0.8, 1.2, learning_rate=0.01),
    "ASAM": _radii("asam", 0.3, 0.5, 0.7, 1.0, 1.4, 2.0),
    "GSAM": _radii("gsam", 0.1, 0.2, 0.3, 0.4),
    "ESAM": _radii("esam", *SAM_RADII),
    "LookSAM": _radii("looksam", 0.2, 0.4, 0.8, 1.2, 1.6, 2.0, 2.4),
    "Friendly SAM": _radii("friendly", 0.2, 0.4, 0.6, 0.8, 1.0),
    "SGD, weight decay": (VariantSetting("sgd", weight_decay=DECAY),),
    "SAM, decay outside": _radii("sam", *SAM_RADII, weight_decay=DECAY),
    "SAM, decay inside": _radii("sam_decay_inside", *SAM_RADII, weight_decay=DECAY),
    "Adam": tuple(VariantSetting("adam", learning_rate=rate) for rate in (3e-5, 1e-4, 3e-4, 1e-3)),
    "SAM around Adam": _radii("sam_adam", 0.1, 0.2, 0.4, 0.8, 1.6, learning_rate=1e-4),
    "Just Train Twice": _grid("jtt", {"identification": (10, 20, 40), "upweight": (2, 5, 20)}),
    "GroupDRO by |z_e|": _grid("group_dro", {"step_size": STEP_SIZES}, groups="easy"),
    "GroupDRO by |z_h|": _grid("group_dro", {"step_size": STEP_SIZES}, groups="hard"),
}
# A method of `lib.optim.variants` without a row of its own has SAM's radii, or none.
ROWS |= {
    title: _radii(name, *((0.0,) if name in WITHOUT_RADIUS else SAM_RADII))
    for name, title in TITLES.items()
    if title not in ROWS
}
REWEIGHTINGS = ("Just Train Twice", "GroupDRO by |z_e|", "GroupDRO by |z_h|")
BASES = {
    "SAM, decay outside": "SGD, weight decay",
    "SAM, decay inside": "SGD, weight decay",
    "SAM around Adam": "Adam",
}  # a row's own base optimizer, where it is not SGD
WITH_RADIUS = tuple(name for name, settings in ROWS.items() if settings[-1].rho)
LIVE = tuple(name for name in TITLES if name not in (*WITHOUT_RADIUS, "sam_decay_inside", "sam_adam"))  # at any radius
FIT = 0.005  # mean training error up to which a method fits
RISE = 0.01  # how far the easy probing error may lie above SGD's
GAP = 0.05  # how far the hard probing error may lie above the easy one where both features are balanced
KEEPS = 0.01  # mean easy probing error up to which a method keeps the easy feature

# With feature-label noise there are points on which the easy feature is wrong: minority groups.
MINORITY = ToyConstants(label_noise=0.05)
MINORITY_ROWS: dict[str, tuple[VariantSetting, ...]] = {
    "SGD": (VariantSetting("sgd", data=MINORITY),),
    "LSAM": _radii("lsam", 0.4, 0.8, 1.4, 2.0, 2.8, data=MINORITY),
    "SAM": _radii("sam", 0.1, 0.2, 0.4, 0.5, 0.6, data=MINORITY),
    "Just Train Twice": _grid("jtt", {"identification": (60, 300, 1200), "upweight": (2, 5, 20)}, data=MINORITY),
    "GroupDRO by conflict": _grid("group_dro", {"step_size": STEP_SIZES}, groups="conflict", data=MINORITY),
}


def toy_plan(rows: Mapping[str, Sequence[VariantSetting]] = ROWS, seeds: int = SEEDS) -> list[ToyTrial]:
    """One trial for every row."""
    return [ToyTrial(tuple(settings), seeds, name=name) for name, settings in rows.items()]


def live_plan(methods: Sequence[str], rho: float, seeds: int, epochs: int) -> list[ToyTrial]:
    """A small comparison of `methods` (names of the toy) at one radius; those that have none go without."""
    radii = [0.0 if method in WITHOUT_RADIUS else rho for method in methods]
    settings = [VariantSetting(method, radius, epochs=epochs) for method, radius in zip(methods, radii)]
    return [ToyTrial((setting,), seeds, name=setting.method) for setting in settings]


def best(record: dict, settings: slice = slice(None)) -> pd.DataFrame:
    """Errors of a row, or of some of a record's settings, a line a seed: both probing errors on test data, "hard" and
    "easy", the model's on the training points, "training", and there "easy_training", where it is stored. Each seed is
    at the setting, its index is "chosen", that has the lowest mean of both probing errors on the validation data of the
    *other* seeds.

    A net that diverged has learned nothing: its errors count as chance, one half.
    """
    seen = [filled(errors(record, feature, "validation"))[settings] for feature in ("easy", "hard")]
    chosen = choose(seen[0] + seen[1])
    read = {"hard": ("hard", "test"), "easy": ("easy", "test"), "training": ("model", "train")}
    measured = MEASURED[record["configuration"]["experiment"]]["train"]
    read |= {"easy_training": ("easy", "train")} if "easy" in measured else {}
    found = {name: at_choice(filled(errors(record, *which))[settings], chosen) for name, which in read.items()}
    return pd.DataFrame(found | {"chosen": chosen})


def filled(values: np.ndarray) -> np.ndarray:
    """Errors with one half, chance, in place of NaN."""
    return np.nan_to_num(values, nan=0.5)


def words(setting: VariantSetting) -> str:
    """What a row's settings differ in."""
    decay = f", decay {setting.weight_decay:g}" if setting.weight_decay else ""
    if setting.method == "jtt":
        return f"{setting.identification} steps, weight {setting.upweight}{decay}"
    if setting.method == "group_dro":
        return f"step size {setting.step_size:g}{decay}"
    if setting.method == "adam":
        return f"learning rate {setting.learning_rate:g}"
    return f"ρ = {setting.rho:g}" if setting.rho else ""


def helps(row: pd.DataFrame, sgd: pd.DataFrame) -> bool:
    """The rule: it fits, the hard feature gains over SGD, and the easy one does not pay."""
    gain, rise = paired_difference(sgd.hard, row.hard), paired_difference(row.easy, sgd.easy)
    return bool(row.training.mean() <= FIT and gain.low > 0 and rise.high <= RISE)


def balances(row: pd.DataFrame, sgd: pd.DataFrame) -> bool:
    """It helps, and the hard feature is learned nearly as well as the easy one."""
    return helps(row, sgd) and bool(paired_difference(row.hard, row.easy).high <= GAP)


def judged(found: Mapping[str, pd.DataFrame]) -> dict[str, dict]:
    """A line of the table for every row of `ROWS` but SGD, the largest gain first, from the `best` of each."""
    sgd, table = found["SGD"], {}
    for name, row in sorted(found.items(), key=lambda item: item[1].hard.mean()):
        base, most = BASES.get(name), row.chosen.mode()[0]
        table[name] = {
            "setting": f"{words(ROWS[name][most])} ({(row.chosen == most).sum()})".strip(),
            **row[["hard", "easy", "training"]].mean(),
            "gain over SGD": protocols.interval(sgd.hard - row.hard, 3),
            "over its base": protocols.interval(found[base].hard - row.hard, 3) if base else "",
            "helps": helps(row, sgd),
            "balances": balances(row, sgd),
        }
    del table["SGD"]
    return table


def against(data: str, rows: Mapping[str, pd.DataFrame], others: Sequence[str]) -> dict[str, dict[str, float]]:
    """By how much the hard probing errors of `others` lie above those of SAM and of LSAM, paired by seed."""
    found = {}
    for other, name in product(others, ("SAM", "LSAM")):
        effect = paired_difference(rows[other].hard, rows[name].hard)
        found[f"{data}: {other} minus {name}"] = {"mean": effect.mean, "from": effect.low, "to": effect.high}
    return found


def reach(record: dict) -> pd.DataFrame:
    """Where a row's ascents go, in the mean through training and over seeds, one line a setting: of those with a mean
    training error of at most `FIT` and a mean easy probing error of at most `KEEPS`.

    length: of the part of the ascent that falls on the head, share: of the squared ascent that does; real: w_h / w_e of
    the mean real head, phantom: of the mean phantom head, moved: the second over the first; hard: probing error.
    """
    fits = filled(errors(record, "model", "train")).mean(axis=1) <= FIT
    fits &= filled(errors(record, "easy")).mean(axis=1) <= KEEPS
    easy, hard, phantom_easy, phantom_hard, share, length = np.moveaxis(
        kept(record, "ascents")[fits].mean(axis=1), -1, 0
    )
    found = {"length": length, "share": share, "real": hard / easy, "phantom": phantom_hard / phantom_easy}
    return pd.DataFrame(found | {"hard": errors(record, "hard")[fits].mean(axis=1)}).eval("moved = phantom / real")


# CIFAR-MNIST: every variant at the setting that chapter 7's sweep chose for SAM.

SHORT_EPOCHS, SHORT_SEEDS = 5, 3  # of the trials that the book reads; the paper's are the protocol's
WITHOUT_ASCENT = ("SGD", "SGD, weight decay", "Adam")
ADAM_RATE = 1e-3  # Adam's learning rate (its paper's)
ASAM_TIMES = 10.0  # ASAM's radius over SAM's: its paper's 0.5 against SAM's 0.05
IMAGES = protocols.PAIRED["cifar-mnist"]


def image_rows(store: Store, epochs: int) -> dict[str, ImageTrial]:
    """Every variant at the setting that the sweep chose for SAM, and SGD at its own; none while the sweep is not
    complete.

    ASAM's radius is `ASAM_TIMES` times SAM's, its norm being another; Adam has its own learning rate.
    """
    if not (settings := protocols.selected(IMAGES, store)):
        return {}
    sam = replace(settings["sam"], epochs=epochs)
    own: dict[str, dict] = {
        "sgd": {"lr": settings["sgd"].lr},
        "asam": {"rho": ASAM_TIMES * sam.rho},
        "sam_decay_inside": {"weight_decay": DECAY},
        "adam": {"lr": ADAM_RATE},
        "sam_adam": {"lr": ADAM_RATE},
    }
    rows = {}
    for name, title in TITLES.items():
        radius = 0.0 if name in WITHOUT_RADIUS else sam.rho
        rows[title] = replace(sam, **{"method": name, "rho": radius} | own.get(name, {}))
    decayed = {"SGD, weight decay": "SGD", "SAM, decay outside": "SAM"}
    return rows | {name: replace(rows[base], weight_decay=DECAY) for name, base in decayed.items()}


def image_plan(store: Store, seeds: int, epochs: int) -> Plan:
    """The image trials of all rows, which follow the sweep."""
    rows = image_rows(store, epochs).values()
    return Plan(tuple(protocols.on_seeds(rows, seeds)), 0 if rows else seeds * (len(TITLES) + 2))


Gains = Mapping[str, np.ndarray | None]  # row -> (2, seed), of the hard and of the easy feature


def image_gains(rows: Mapping[str, ImageTrial], seeds: int, store: Store) -> tuple[str, dict[str, np.ndarray | None]]:
    """The hard feature, and how far each row's probing errors lie below SGD's with the same seed, see
    `protocols.probing`; a row's name says how many seeds it has, or how many diverged.

    Where SGD itself is not stored, nothing is known: "" and no gain. A row of which a net diverged has none: a mean
    over the seeds that were left would flatter a method that fails on others.
    """
    records = protocols.by_seed(rows, store, seeds)
    errors, gains = protocols.probing(records, "SGD"), dict[str, np.ndarray | None]()
    for name, of_row in errors.items():
        lost = sum(record["status"] == "diverged" for record in records[name] if record)
        values = (errors["SGD"] - of_row).dropna().to_numpy().T
        words = f" ({lost} diverged)" if lost else f" (n = {values.shape[1]})" if values.size else ""
        gains[name + words] = values if values.size and not lost else None
    return next((name for of_row in errors.values() for name in of_row), ""), gains


def image_numbers(rows: Mapping[str, ImageTrial], gains: Gains) -> dict[str, str]:
    """What the prose quotes: the settings, how many seeds and epochs were run of how many, and from where to where the
    rows with an ascent gain on the hard feature in the mean, in points, and how many of their intervals lie above 0."""
    found = {name: 100 * values[0] for name, values in gains.items() if values is not None}
    effects = [estimate(values) for name, values in found.items() if name.split(" (")[0] not in WITHOUT_ASCENT]
    names = "lr", "rho", "sgd_lr", "epochs", "whole", "seeds", "rows", "lowest", "highest", "above"
    if not effects:
        return dict.fromkeys(names, protocols.NOT_RUN)
    seeds, means = {len(values) for values in found.values()}, [effect.mean for effect in effects]
    of_setting = rows["SAM"].lr, rows["SAM"].rho, rows["SGD"].lr, rows["SAM"].epochs, IMAGES.base.epochs
    of_seeds = " to ".join(map(str, sorted({min(seeds), max(seeds)})))
    ends = f"{min(means):.1f}", f"{max(means):.1f}"
    above = sum(effect.low > 0 for effect in effects)
    return dict(zip(names, (*map("{:g}".format, of_setting), of_seeds, str(len(effects)), *ends, str(above))))


# What a step of each variant costs: passes through the conv net, counted, and time, as ratios to SGD's.

BATCH, SIDE = 50, 32
PERIOD = CONSTANTS.looksam_period  # steps that are counted, and timed, together


def passes(method: str) -> dict[str, float]:
    """Batches of examples that go "forward" and "backward" through the body in one step, in the mean over a period.
    Counted on the conv net: an example forward, or its gradient backward, through the first layer."""
    model, step = prepared(method, BATCH, SIDE)
    counted = {"forward": 0, "backward": 0}

    def count(way: str, tensor: Tensor) -> None:
        counted[way] += len(tensor)

    def passed(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        count("forward", output)
        if output.requires_grad:
            output.register_hook(partial(count, "backward"))

    model.body[0].register_forward_hook(passed)
    with threads(1):
        for _ in range(PERIOD):
            step()
    return {way: examples / (PERIOD * BATCH) for way, examples in counted.items()}


def over_sgd(counted: Mapping[str, float]) -> float:
    """Passes in units of SGD's step, a backward pass counted as two forward ones."""
    return (counted["forward"] + 2 * counted["backward"]) / 3


# Figures.

KINDS = {  # colour and marker of a row
    "SAM and its variants": (style.SAM, "o"),
    "LSAM": (style.LSAM, "D"),
    "another base, or decay": (style.HARD, "^"),
    "re-weighting": (style.EASY, "s"),
    "SGD": (style.SGD, "v"),
}
LEAST_RANGE = 0.01  # a panel reaches at least so far to either side: rounding is no effect
# Of as many lines as there may be: the lengths have no common factor, so no pair of the two comes soon again.
COLOURS = (style.LSAM, style.SAM, style.SGD, style.HARD, style.EASY, style.GREY)
COLOURS += ("#CC79A7", "#56B4E9", "#22272E", "#8C6D31", "#117733")
MARKERS = "Dosp^vPX<>*hd"


def kind(label: str) -> str:
    """The kind of a row, of `KINDS`, by its name, which may be followed by something in brackets."""
    name = label.split(" (")[0]
    if name in ("SGD", "LSAM"):
        return name
    if name.startswith(("Just", "Group")):
        return "re-weighting"
    return "another base, or decay" if "decay" in name or "Adam" in name else "SAM and its variants"


def ranking(rows: Mapping[str, Sequence[Estimate] | None], titles: Sequence[str], labels: Sequence[str]) -> Figure:
    """One line a row, the largest effect of the first panel on top; rows that were not run, None, come last.

    rows: estimates, one a panel. titles, labels: one a panel.
    """
    order = sorted(rows, key=lambda name: -effects[0].mean if (effects := rows[name]) else np.inf)
    size, widths = (style.PAGE_WIDTH, 1.15 + 0.27 * len(rows)), [1.5] + [1] * (len(titles) - 1)
    fig, axes = plt.subplots(1, len(titles), figsize=size, sharey=True, width_ratios=widths, squeeze=False)
    unknown = {"va": "center", "color": style.GREY, "style": "italic", "fontsize": 8.5}
    for number, (panel, title, label) in enumerate(zip(axes[0], titles, labels)):
        style.rows(panel, order)
        for place, name in enumerate(order):
            if effects := rows[name]:
                style.whiskers(panel, effects[number : number + 1], [place], *KINDS[kind(name)])
            else:
                panel.text(0.02, place, protocols.NOT_RUN, transform=panel.get_yaxis_transform(), **unknown)
        panel.axvline(0, color="black", linewidth=0.6)
        panel.set(title=title, xlabel=label)
        panel.margins(x=0.08)
        low, high = panel.get_xlim()
        panel.set_xlim(min(low, -LEAST_RANGE), max(high, LEAST_RANGE))
        panel.xaxis.set_major_locator(MaxNLocator(6 if number == 0 else 3))
    there = [name for name in KINDS if name in {kind(row) for row in order if rows[row]}]
    if len(there) > 1:
        looks = {name: dict(zip(("color", "marker"), KINDS[name]), linestyle="") for name in there}
        spacing = {"columnspacing": 1.2, "handletextpad": 0.4}
        style.legend(fig, looks, loc="outside upper center", ncols=len(there), fontsize=8.5, **spacing)
    return fig


def every_radius(curves: Mapping[str, tuple[Sequence[float], np.ndarray, np.ndarray]], sgd: float) -> Figure:
    """One panel a method: its radii, and the hard and the easy probing error at each, (radius, seed); dotted, SGD's
    mean hard one."""
    fig, axes = style.grid(len(curves), 4, 1.75, sharey=True)
    for panel, (name, (radii, hard, easy)) in zip(axes.flat, curves.items()):
        panel.axhline(sgd, color=style.SGD, linestyle=":", linewidth=1.1, label="hard, SGD")
        style.line(panel, radii, hard, style.HARD, "o", label="hard")
        style.line(panel, radii, easy, style.EASY, "s", label="easy")
        panel.set(title=name, ylim=(-0.02, 0.56), xlim=(0, None))
        panel.tick_params(labelsize=8)
    plt.setp(axes[-1], xlabel=r"radius $\rho$")
    plt.setp(axes[:, 0], ylabel="probing error")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return fig


def where_the_ascent_goes(methods: Mapping[str, pd.DataFrame], sgd: float) -> Figure:
    """Each point one setting of a method, of its `reach`, in the order of its radii: hard probing error against the
    length of the ascent on the head (left) and against the phantom head's ratio (right), 1 being balanced; dotted,
    SGD's."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(style.PAGE_WIDTH, 3.6), sharey=True)
    for (name, found), colour, marker in zip(methods.items(), cycle(COLOURS), cycle(MARKERS)):
        for panel, values in ((left, found["length"]), (right, found["phantom"])):
            panel.plot(values, found["hard"], color=colour, marker=marker, markersize=5, linewidth=0.8, label=name)
    for panel in (left, right):
        panel.axhline(sgd, color="black", linestyle=":", linewidth=0.9)
    left.set(xscale="log", xlabel=r"length of $\varepsilon$ on the head", title="how far the ascent moves the head")
    left.set(ylabel="hard probing error", ylim=(-0.015, None))
    right.set(xlabel=r"$\tilde w_h / \tilde w_e$", title="the phantom's head", xlim=(0, None))
    right.axvline(1, color="black", linewidth=0.6)
    fig.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=5, fontsize=8.5)
    return fig
