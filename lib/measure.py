"""What is measured on a trained net: errors of linear probes and of its own answers on a data set, and importance
weights at its parameters and at the phantom, over all images and by what the feature of an attribute contributes.

Everything takes a net with `features` and `head`, and gives plain values, as a record has them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lib import probes, training
from lib.data import groups
from lib.data.dataset import Dataset, Split
from lib.importance import gini, lorenz_curve, probe_contributions, real_and_phantom_weights, weight_map, worst_share
from lib.models import FeatureNet
from lib.optim import SAM
from lib.probes import Probe
from lib.training import Images

FRACTIONS = np.linspace(0, 1, 101)  # of the images, at which Lorenz curves are stored
BINS = 20  # of equally many images, along the contribution of one attribute
MAP_BINS = 14  # of equal width, along either contribution, over all but 0.5 % of the images at each end
SMALLEST = float(np.finfo(np.float32).tiny)  # a weight below it would have no logarithm
DIGITS = 5  # of a stored median
Columns = dict[str, np.ndarray]  # (n,) each, by name


def errors(model: FeatureNet, data: Dataset, device: torch.device) -> dict[str, Any]:
    """Every error, the rates with Wilson's intervals of 95 %.

    `probing_error` of each attribute is that of equation (1), of a single one that of equation (44);
    `classifier_error` is the error of the net's own answer against each attribute on the same images. The rest is
    `validation_loss` and `validation_error`, by which settings are chosen, and where there are two attributes or more
    `test_error`. Where the data have `group_weights` these are the means if the groups had those shares (Appendix B),
    and the worst group's error is with them.
    """
    probed = data.probe_test
    answers = _output(model, data, probed, device).argmax(1)
    fitted = fit_probes(model, data, device)
    found: dict[str, Any] = {
        "probing_error": {name: probing_rate(probe, len(probed)) for name, probe in fitted.items()},
        "classifier_error": {name: rate(answers != truth) for name, truth in probed.attributes.items()},
    }
    if data.group_weights is not None:
        return _errors_by_group(model, data, data.group_weights, device) | found
    loss, error = training.evaluate(model, Images.of(data.validation, data.mean_pixel, device))
    found = {"validation_loss": loss, "validation_error": error, **found}
    if len(data.attributes) > 1:
        found["test_error"] = rate(_output(model, data, data.test, device).argmax(1) != data.test.labels)
    return found


def _errors_by_group(model: FeatureNet, data: Dataset, shares: Tensor, device: torch.device) -> dict[str, Any]:
    """The part of `errors` that groups with other shares (groups,) in training change."""
    splits = data.validation, data.test
    outputs = [_output(model, data, split, device) for split in splits]
    loss = F.cross_entropy(outputs[0], data.validation.labels, reduction="none")
    wrong, test_wrong = (output.argmax(1) != split.labels for output, split in zip(outputs, splits))
    group, test_group = map(data.groups, splits)
    named = {name: rate(test_wrong[test_group == number]) for number, name in enumerate(data.group_names)}
    return {
        "validation_loss": weighted_mean(loss, group, shares),
        "validation_error": groups.weighted_error(wrong, group, shares),
        "validation_worst_group_error": groups.worst_group_error(wrong, group, len(shares)),
        "test_error": {
            "error": groups.weighted_error(test_wrong, test_group, shares),
            "worst_group_error": groups.worst_group_error(test_wrong, test_group, len(shares)),
            "groups": named,
        },
    }


def _output(model: FeatureNet, data: Dataset, split: Split, device: torch.device) -> Tensor:
    """The logits (n, classes) of a split, on the CPU."""
    return training.logits(model, Images.of(split, data.mean_pixel, device)).cpu()


def fit_probes(model: FeatureNet, data: Dataset, device: torch.device) -> dict[str, Probe]:
    """A linear probe on the net's features for each attribute, trained and measured on the splits for probes."""
    splits = data.probe_train, data.probe_test
    train, test = (training.features(model, Images.of(split, data.mean_pixel, device)) for split in splits)
    truth, test_truth = (split.attributes for split in splits)
    # A single attribute has no other that could be confounded with it: its values keep their own shares.
    alone = len(data.attributes) == 1
    return {
        name: probes.linear_probe(train, truth, test, test_truth, name, allow_unbalanced=alone)
        for name in data.attributes
    }


def rate(wrong: Tensor) -> dict[str, Any]:
    """The share of wrong answers (n,) with its 95 % Wilson interval."""
    mistakes, examples = int(wrong.sum()), len(wrong)
    low, high = probes.wilson_interval(mistakes, examples)
    return {"error": mistakes / examples, "low": low, "high": high, "examples": examples}


def probing_rate(probe: Probe, examples: int) -> dict[str, Any]:
    """A probe's error on `examples` test images with its interval, as plain values."""
    interval = {"error": probe.error, "low": probe.low, "high": probe.high}
    return {**interval, "examples": examples, "regularisation": probe.regularisation}


def weighted_mean(values: Tensor, group: Tensor, shares: Tensor) -> float:
    """The mean of `values` (n,) if the groups (n,) had the `shares` (groups,), each group with images."""
    sums = torch.bincount(group, weights=values.double(), minlength=len(shares))
    return float(sums / torch.bincount(group, minlength=len(shares)) @ shares)


def importance(
    model: FeatureNet, optimizer: SAM, images: Images, batches: Sequence[Tensor]
) -> tuple[np.ndarray, np.ndarray]:
    """Importance weights, real and phantom, float32 (n,) each, of the images in `batches` (indices), in that order.

    Every batch has its own perturbation; batch norm is in evaluation mode throughout.
    """
    model.eval()
    found = []
    with training.deterministic():
        for which in batches:
            inputs, labels = images.batch(which.to(images.labels.device))
            pair = real_and_phantom_weights(model, optimizer, inputs, labels, F.cross_entropy, len(labels))
            found.append(torch.stack(pair).cpu())
    real, phantom = torch.cat(found, dim=1).numpy()
    return real, phantom


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
    model: FeatureNet, data: Dataset, rows: np.ndarray, real: np.ndarray, phantom: np.ndarray, device: torch.device
) -> dict[str, Any]:
    """Which of the training images `rows` (n,) get the weights `real` and `phantom` (n,), by the contributions of both
    attributes (Figure 5).

    The signed contribution of an attribute is y (v . phi + b), with v and b its linear probe. In ``contributions`` are
    two readings of y = 1 or -1: by ``label``, the value of the attribute that goes with the image's label, so that the
    attribute speaks for the label where it is positive, as in the toy; and by ``attribute``, its own value, so that
    the probe is right. They differ for the attribute that is not the label, in the groups against the correlation. The
    *ratio* of a phantom to a real weight is divided by its median over all images, which is ``median_ratio``.

    In each reading ``attributes``, for each: ``bins``, the medians of contribution, real and phantom weight and ratio
    in BINS bins of equally many images; ``worst_share``, what part of all importance the quarter of the images with
    the smallest contribution holds; ``slope``, of the least squares of the log ratio on both contributions, a standard
    deviation of the contribution being the unit; its ``probing_error``. And ``map``: the same medians by both
    contributions, [first attribute's bin][second's], None in an empty bin.
    """
    phi = training.features(model, Images.of(data.train.take(rows), data.mean_pixel, device))
    fitted = fit_probes(model, data, device)
    ratio = phantom / real
    values = {"real": real, "phantom": phantom, "ratio": ratio / np.median(ratio)}
    readings = {}
    for reading, truth in (("label", going_with_label(data.train)), ("attribute", data.train.attributes)):
        contributions = {
            name: probe_contributions(phi, truth[name][rows].numpy(), probe) for name, probe in fitted.items()
        }
        attributes = {
            name: {
                "probing_error": fitted[name].error,
                "slope": slope,
                "worst_share": {point: float(worst_share(column, values[point])) for point in ("real", "phantom")},
                "bins": binned(column, values),
            }
            for (name, column), slope in zip(contributions.items(), slopes(contributions, np.log(ratio)))
        }
        readings[reading] = {"attributes": attributes, "map": mapped(contributions, values)}
    return {"median_ratio": float(np.median(ratio)), "contributions": readings}


def going_with_label(train: Split) -> dict[str, Tensor]:
    """For every attribute the value (n,) that goes with each image's label in training: the label's own, or the other
    where the two attributes are correlated negatively."""
    together = torch.corrcoef(torch.stack([train.labels, *train.attributes.values()]).double())[0, 1:]
    return {
        name: train.labels if correlation >= 0 else 1 - train.labels
        for name, correlation in zip(train.attributes, together)
    }


def slopes(contributions: Columns, log_ratio: np.ndarray) -> list[float]:
    """Least squares of the log ratio (n,) on standardised contributions: a slope for each."""
    columns = [(column - column.mean()) / (column.std() or 1) for column in contributions.values()]
    return np.linalg.lstsq(np.stack(columns, axis=1), log_ratio - log_ratio.mean(), rcond=None)[0].tolist()


def binned(contribution: np.ndarray, values: Columns, bins: int = BINS) -> dict[str, Any]:
    """Medians of contribution (n,) and `values` in `bins` bins of equally many images, in the order of the
    contribution, and the numbers of images; fewer bins where there are fewer images."""
    parts = np.array_split(np.argsort(contribution, kind="stable"), min(bins, len(contribution)))
    columns = {"contribution": contribution, **values}
    medians = {name: [_short(np.median(column[part])) for part in parts] for name, column in columns.items()}
    return {**medians, "images": [len(part) for part in parts]}


def mapped(contributions: Columns, values: Columns, bins: int = MAP_BINS) -> dict[str, Any]:
    """Medians of `values` in a grid over both contributions, as plain values: see `by_contribution`."""
    first, second = contributions.values()
    ends = [np.quantile(column, [0.005, 0.995]) for column in (first, second)]
    edges = [np.linspace(low, high, bins + 1) for low, high in ends]
    maps = {name: weight_map(first, second, column, *edges) for name, column in values.items()}
    return {
        "attributes": list(contributions),
        "edges": [[_short(edge) for edge in axis] for axis in edges],
        "images": next(iter(maps.values())).count.tolist(),
        **{name: [[_short(median) for median in row] for row in found.median] for name, found in maps.items()},
    }


def _short(value: float) -> float | None:
    """A value in DIGITS digits, None for NaN."""
    return None if np.isnan(value) else float(f"{value:.{DIGITS}g}")
