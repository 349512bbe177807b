"""Two explicit re-weightings of the training points, for the toy: Just Train Twice and GroupDRO."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from lib.data.toy import ToySample

BINS = 4  # of a latent's size |z|; with the label, eight groups
GROUPS = ("easy", "hard", "conflict")


def upsampled(mistakes: Sequence[np.ndarray], upweight: Sequence[int], seeds: Sequence[int], length: int) -> np.ndarray:
    """Second stage of Just Train Twice (Liu et al. 2021, Algorithm 1): points in order of use, (m, length).

    mistakes: which of its training points (n,) each first model gets wrong, the error sets. The second training set
    holds each of these upweight[i] times and every other point once; it is gone through in a fresh order again and
    again until `length` points are drawn, as many as training takes without it.
    """
    rows = []
    for wrong, times, seed in zip(mistakes, upweight, seeds):
        points = np.repeat(np.arange(len(wrong)), np.where(wrong, times, 1))
        draws = np.random.default_rng([seed, 0x277])
        rows.append(np.concatenate([draws.permutation(points) for _ in range(-(-length // len(points)))])[:length])
    return np.stack(rows)


def balanced(groups: Sequence[np.ndarray], seeds: Sequence[int], length: int) -> np.ndarray:
    """Points in order of use for GroupDRO (Sagawa et al. 2020, Algorithm 1), (m, length): for each draw a group, all
    that have points being as likely, and then one of its points.

    groups: of the training points (n,), for each net.
    """
    rows = []
    for of_points, seed in zip(groups, seeds):
        draws = np.random.default_rng([seed, 0xD20])
        members, sizes = np.argsort(of_points, kind="stable"), np.unique(of_points, return_counts=True)[1]
        drawn = draws.integers(len(sizes), size=length)
        within = (draws.random(length) * sizes[drawn]).astype(np.int64)
        rows.append(members[(np.cumsum(sizes) - sizes)[drawn] + within])
    return np.stack(rows)


def group(points: ToySample, by: str) -> np.ndarray:
    """The group of each point, from 0: its label, and by "easy" or "hard" the quarter that this latent's size |z| falls
    in, or by "conflict" whether the easy latent contradicts the label, as only noise makes it do.
    """
    if by == "conflict":
        part, parts = points.y * points.z[:, 0] < 0, 2
    else:
        size = np.abs(points.z[:, GROUPS.index(by)])
        part, parts = np.searchsorted(np.quantile(size, np.arange(1, BINS) / BINS), size), BINS
    return part + parts * (points.y > 0)


class GroupDRO:
    """GroupDRO (Sagawa et al. 2020, Algorithm 1) on a stack of nets, as its code takes it on batches:

        q_g <- q_g exp(eta_q l_g), then made to sum to 1;   descent on sum_g q_g l_g

    with l_g the mean loss of the batch's points of group g, 0 where it has none. The batches are `balanced`: with
    points drawn alike a small group would be in few of them. step_size: each net's eta_q.
    """

    def __init__(self, training: Sequence[ToySample], by: str, step_size: Sequence[float]) -> None:
        self.groups = torch.from_numpy(np.stack([group(points, by) for points in training]))  # (m, n)
        self.count = 4 if by == "conflict" else 2 * BINS
        self.log_q = torch.zeros(len(training), self.count, dtype=torch.float64)
        self.step_size = torch.tensor(step_size, dtype=torch.float64)[:, None]

    def weights(self, losses: Tensor, chosen: Tensor) -> Tensor:
        """Weights (m, b) of the points `chosen` (m, b), q moved by their losses first.

        The mean of weights times losses is sum_g q_g l_g.
        """
        member = one_hot(self.groups.gather(1, chosen), self.count).double()  # (m, b, g)
        count = member.sum(dim=1).clamp(min=1)
        mean = torch.einsum("mb,mbg->mg", losses.double(), member) / count
        self.log_q = torch.log_softmax(self.log_q + self.step_size * mean, dim=1)
        return losses.shape[1] * torch.einsum("mg,mbg->mb", self.log_q.exp() / count, member).float()
