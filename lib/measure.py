"""What is measured on a trained net: errors of linear probes and of its own answers on a data set, and importance
weights at its parameters and at the phantom, over all images and by what the feature of an attribute contributes.

`feature_quality` measures any net. The parts below it take one with `features` and `head`, and give plain values, as a
record has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib import check, probes, training
from lib.data.dataset import Dataset, Split
from lib.importance import gini, lorenz_curve, real_and_phantom_weights, weight_map, worst_share
from lib.models import FeatureNet, Opened
from lib.optim import SAM
from lib.probes import Probe
from lib.stats import rate
from lib.training import Images

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FRACTIONS = np.linspace(0, 1, 101)  # of the images, at which Lorenz curves are stored
BINS = 20  # of equally many images, along the contribution of one attribute
MAP_BINS = 14  # of equal width, along either contribution, over all but 0.5 % of the images at each end
SMALLEST = float(np.finfo(np.float32).tiny)  # a weight below it would have no logarithm
DIGITS = 5  # of a stored median
Columns = dict[str, np.ndarray]  # (n,) each, by name
Strengths = Sequence[float] | None  # of probes, see `probes.linear_probe`


@dataclass(frozen=True, eq=False)
class FeatureQuality:
    """What was found of a net on the data set `name` with `attributes`, the label first: `errors` and `weights`, as by
    the functions of these names; None without an optimizer."""

    name: str
    attributes: tuple[str, ...]
    errors: dict[str, Any]
    weights: dict[str, Any] | None

    def table(self) -> pd.DataFrame:
        """A row an attribute, the easiest first: the probing error with its interval, how many images it is of, how
        many chose the probe's penalty and whether that is at the end of what was tried, and the error of the net's own
        answer; with weights, the share of them that the quarter of the images with the least contribution holds."""
        rows = pd.DataFrame.from_dict(self.errors["probing_error"], orient="index")
        rows.insert(0, "label", rows.index == self.attributes[0])
        rows["own answer"] = [self.errors["classifier_error"][name]["error"] for name in rows.index]
        found = self.weights["contributions"]["label"]["attributes"] if self.weights else {}
        for point in ("real", "phantom") if found else ():
            rows[f"worst quarter, {point}"] = [found[name]["worst_share"][point] for name in rows.index]
        return rows.sort_values("error", kind="stable")

    def figure(self) -> Figure:
        """Lorenz curves of the real and the phantom weights (Figure 3), and the median weights along the contribution
        of each attribute (Figure 5). Raises ValueError without weights."""
        import matplotlib.pyplot as plt  # here: trials need none

        if self.weights is None:
            raise ValueError("weights must be measured, with an optimizer, to be drawn")
        fig, (left, *others) = plt.subplots(1, 1 + len(self.attributes), layout="constrained", figsize=(7.4, 2.8))
        left.plot((0, 1), (0, 1), color="0.6", lw=0.8)
        for point, line in (("real", "--"), ("phantom", "-")):
            found = self.weights[point]
            left.plot(FRACTIONS, found["lorenz"], line, label=f"{point}: Gini {found['gini']:.2f}")
            for name, ax in zip(self.attributes, others):
                medians = self.weights["contributions"]["label"]["attributes"][name]["bins"][point]
                ax.plot(np.linspace(0, 1, len(medians)), medians, line)
                ax.set(yscale="log", title=name, xlabel="worst to best fitted", ylabel="median weight")
        left.set(xlabel="share of the images, heaviest first", ylabel="share of the importance")
        left.legend()
        return fig


def feature_quality(
    model: nn.Module,
    dataset: Dataset,
    optimizer: SAM | None = None,
    *,
    head: str | None = None,
    batch_size: int = 100,
    batches: int | None = None,
    strengths: Strengths = None,
) -> FeatureQuality:
    """How well a net has learned each attribute of a data set, equation (1), and, with a SAM `optimizer` of its
    parameters, its importance weights, real and at the phantom (Figures 3 and 5).

    The model gives a logit for each class of the label, (n, classes), or one for two classes, and takes what
    `Images.batch` makes of a split: for photographs ImageNet's normalisation; else, images from 0 to 1 less the set's
    `mean_pixel`. (With ``replace(dataset, mean_pixel=torch.zeros(3))`` and ``nn.Sequential(transform, net)`` a net
    trained elsewhere sees what it is used to.) Its features are what its last layer is given: `head` names that layer,
    see `lib.models.Opened`. Weights are those of `batches` random batches (None: all) of `batch_size` training images.
    All is measured in evaluation mode, on the model's device; afterwards the model is as it was. Raises ValueError
    where the model does not fit the data set, or the optimizer the model.
    """
    check.whole("batch_size", batch_size, 1)
    parameters, classes = list(model.parameters()), dataset.classes
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.no_grad():
            example = _images(model, dataset, dataset.train.take(np.arange(2))).batch(slice(0, 2))[0]
            net = model if isinstance(model, FeatureNet) and head is None else Opened(model, example, head)
            if (shape := tuple(net(example).shape)) != (len(example), classes):
                of_label = f"a logit for each of the {classes} classes of {dataset.attributes[0]}, (n, {classes})"
                raise ValueError(f"model must give {of_label}, not {shape}")
        found, weighed = errors(net, dataset, strengths), None
        if optimizer is not None:
            own = isinstance(optimizer, SAM) and {id(p) for one in optimizer.param_groups for p in one["params"]}
            if not own or own.isdisjoint(map(id, parameters)):
                raise ValueError(f"optimizer must be a SAM of the model's parameters, not {type(optimizer).__name__}")
            order = training.batch_order(0, 0, len(dataset.train), batch_size)[:batches]
            weighed = weights(net, dataset, optimizer, order, strengths=strengths)
        return FeatureQuality(dataset.name, dataset.attributes, found, weighed)
    finally:
        for module, mode in modes.items():
            module.training = mode


def _images(model: nn.Module, data: Dataset, split: Split) -> Images:
    """The images of a split of `data`, on the model's device."""
    return Images.of(split, data.mean_pixel, next((p.device for p in model.parameters()), torch.device("cpu")))


def errors(model: FeatureNet, data: Dataset, strengths: Strengths = None) -> dict[str, Any]:
    """Every error, the rates with Wilson's intervals of 95 %.

    `probing_error` of each attribute is that of equation (1), of a single one that of equation (44); `classifier_error`
    that of the net's own answer against each attribute on the same images. By `validation_loss` and `validation_error`
    settings are chosen; `test_error` is there for two attributes or more. Where the data have `group_weights` these are
    the means if the groups had those shares (Appendix B), and the worst group's error is with them.
    """

    def output(split: Split) -> Tensor:
        return training.logits(model, _images(model, data, split)).cpu()

    answers = output(data.probe_test).argmax(1)
    of_validation, truth = output(data.validation), data.validation.labels
    wrong = of_validation.argmax(1) != truth
    found: dict[str, Any] = {
        "probing_error": {
            name: {field: value for field, value in vars(probe).items() if not isinstance(value, np.ndarray)}
            for name, probe in fit_probes(model, data, strengths).items()
        },
        "classifier_error": {name: rate(answers != truth) for name, truth in data.probe_test.attributes.items()},
    }
    shares = data.group_weights
    if shares is None:
        loss = float(F.cross_entropy(of_validation, truth))
        found = {"validation_loss": loss, "validation_error": rate(wrong)["error"], **found}
        if len(data.attributes) > 1:
            found["test_error"] = rate(output(data.test).argmax(1) != data.test.labels)
        return found
    loss_of_each = F.cross_entropy(of_validation, truth, reduction="none")
    test_wrong = output(data.test).argmax(1) != data.test.labels
    group, test_group = data.groups(data.validation), data.groups(data.test)
    losses, of_groups = (group_means(values, group, len(shares)) for values in (loss_of_each, wrong))
    tested = group_means(test_wrong, test_group, len(shares))
    return {
        "validation_loss": float(losses @ shares),
        "validation_error": float(of_groups @ shares),
        "validation_worst_group_error": float(of_groups.max()),
        "test_error": {
            "error": float(tested @ shares),
            "worst_group_error": float(tested.max()),
            "groups": {name: rate(test_wrong[test_group == number]) for number, name in enumerate(data.group_names)},
        },
        **found,
    }


def fit_probes(model: FeatureNet, data: Dataset, strengths: Strengths = None) -> dict[str, Probe]:
    """A linear probe on the net's features for each attribute, trained and measured on the splits for probes."""
    splits = data.probe_train, data.probe_test
    train, test = (training.features(model, _images(model, data, split)) for split in splits)
    given = train, splits[0].attributes, test, splits[1].attributes
    # A single attribute has no other that could be confounded with it: its values keep their own shares.
    alone = len(data.attributes) == 1
    options: dict[str, Any] = {"allow_unbalanced": alone, "weighted": not alone, "strengths": strengths}
    return {name: probes.linear_probe(*given, name, **options) for name in data.attributes}


def group_means(values: Tensor, group: Tensor, count: int) -> Tensor:
    """The mean of `values` (n,) in each of `count` groups, float64; ValueError where a group has no image."""
    images = torch.bincount(group, minlength=count)
    if not images.all():
        raise ValueError(f"groups must each have an image, and lack: {(images == 0).nonzero().flatten().tolist()}")
    return torch.bincount(group, weights=values.double(), minlength=count) / images


def weights(
    model: FeatureNet,
    data: Dataset,
    optimizer: SAM,
    batches: Sequence[Tensor],
    contributions: bool = True,
    strengths: Strengths = None,
) -> dict[str, Any]:
    """Importance weights of the training images in `batches` (indices): a `summary` of the ``real`` ones and of those
    at the ``phantom`` and, with `contributions`, `by_contribution`.

    Every batch has its own perturbation; batch norm is in evaluation mode throughout.
    """
    model.eval()
    images = _images(model, data, data.train)
    with training.deterministic():
        batched = (images.batch(which.to(images.labels.device)) for which in batches)
        pair = real_and_phantom_weights(model, optimizer, batched, F.cross_entropy)
    real, phantom = (of_point.cpu().numpy() for of_point in pair)
    if contributions:
        real, phantom = (np.maximum(column.astype(np.float64), SMALLEST) for column in (real, phantom))
    found = {"real": summary(real), "phantom": summary(phantom)}
    if contributions:
        rows = np.concatenate([batch.numpy() for batch in batches])
        phi = training.features(model, _images(model, data, data.train.take(rows)))
        found |= by_contribution(phi, fit_probes(model, data, strengths), data, rows, real, phantom)
    return found


def summary(weights: np.ndarray) -> dict[str, Any]:
    """Mean, Gini coefficient and Lorenz curve (at FRACTIONS) of importance weights (n,), as plain values (Figure 3)."""
    fractions, shares = lorenz_curve(weights)
    return {
        "mean": float(weights.mean()),
        "gini": float(gini(weights)),
        "points": len(weights),
        "lorenz": [round(float(share), 5) for share in np.interp(FRACTIONS, fractions, shares)],
    }


def by_contribution(
    phi: np.ndarray, fitted: dict[str, Probe], data: Dataset, rows: np.ndarray, real: np.ndarray, phantom: np.ndarray
) -> dict[str, Any]:
    """Which of the training images `rows` (n,), of features `phi` (n, d), get the weights `real` and `phantom` (n,), by
    the contributions of the attributes to their `fitted` probes (Figure 5).

    In ``contributions`` are two readings of y = 1 or -1 in the contribution y (v . phi + b): by ``label``, the value of
    the attribute that goes with the image's label, so that the attribute speaks for the label where it is positive, as
    in the toy; and by ``attribute``, its own value, so that the probe is right. They differ for the attribute that is
    not the label, in the groups against the correlation. The *ratio* of a phantom to a real weight is divided by its
    median over all images, which is ``median_ratio``.

    In each reading ``attributes``, for each: ``bins``, see `binned`; `worst_share`; ``slope``, see `slopes`, of the log
    ratio; its ``probing_error``. And, of two attributes, ``map``, see `mapped`.
    """
    ratio = phantom / real
    values = {"real": real, "phantom": phantom, "ratio": ratio / np.median(ratio)}
    readings = {}
    for reading, truth in (("label", going_with_label(data.train)), ("attribute", data.train.attributes)):
        contributions = {name: probe.contributions(phi, truth[name][rows].numpy()) for name, probe in fitted.items()}
        attributes = {
            name: {
                "probing_error": fitted[name].error,
                "slope": slope,
                "worst_share": {point: float(worst_share(column, values[point])) for point in ("real", "phantom")},
                "bins": binned(column, values),
            }
            for (name, column), slope in zip(contributions.items(), slopes(contributions, np.log(ratio)))
        }
        readings[reading] = {"attributes": attributes}
        if len(contributions) == 2:
            readings[reading]["map"] = mapped(contributions, values)
    return {"median_ratio": float(np.median(ratio)), "contributions": readings}


def going_with_label(train: Split) -> dict[str, Tensor]:
    """For every attribute the value (n,) that goes with each image's label in training: the one whose share among the
    images of that label exceeds its share among all by the largest factor (of two values, the label's own, or the other
    where the two attributes are correlated negatively); of a tie the label's own number."""
    found = {}
    for name, column in train.attributes.items():
        counts = pd.crosstab(train.labels.numpy(), column.numpy())
        factor = counts.div(counts.sum(axis=1), axis=0) / counts.sum(axis=0)
        best = factor.ge(factor.max(axis=1) * (1 - 1e-9), axis=0)
        going = {label: label if row.get(label, False) else row.idxmax() for label, row in best.iterrows()}
        found[name] = torch.tensor([going[int(label)] for label in train.labels])
    return found


def slopes(contributions: Columns, log_ratio: np.ndarray) -> list[float]:
    """Least squares of the log ratio (n,) on all contributions, each in units of its deviation: a slope for each."""
    columns = [(column - column.mean()) / (column.std() or 1) for column in contributions.values()]
    return np.linalg.lstsq(np.stack(columns, axis=1), log_ratio - log_ratio.mean(), rcond=None)[0].tolist()


def binned(contribution: np.ndarray, values: Columns, bins: int = BINS) -> dict[str, Any]:
    """Medians of contribution (n,) and `values` in `bins` bins of equally many images, in the order of the
    contribution, and the numbers of images; fewer bins where there are fewer images."""
    parts = np.array_split(np.argsort(contribution, kind="stable"), min(bins, len(contribution)))
    columns = {"contribution": contribution, **values}
    medians = {name: _short([np.median(column[part]) for part in parts]) for name, column in columns.items()}
    return {**medians, "images": [len(part) for part in parts]}


def mapped(contributions: Columns, values: Columns, bins: int = MAP_BINS) -> dict[str, Any]:
    """Medians of `values` in a grid over two contributions, [first's bin][second's], None in an empty bin."""
    first, second = contributions.values()
    ends = [np.quantile(column, [0.005, 0.995]) for column in (first, second)]
    edges = [np.linspace(low, high, bins + 1) for low, high in ends]
    maps = {name: weight_map(first, second, column, *edges) for name, column in values.items()}
    return {
        "attributes": list(contributions),
        "edges": _short(edges),
        "images": next(iter(maps.values())).count.tolist(),
        **{name: _short(found.median) for name, found in maps.items()},
    }


def _short(values: Any) -> Any:
    """Values of any nesting in DIGITS digits, None for NaN."""
    if np.ndim(values):
        return [_short(one) for one in values]
    return None if np.isnan(values) else float(f"{values:.{DIGITS}g}")
