"""The page on SAM in one's own training: every piece of its code runs and trains."""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from optimizers import Net, one_process
from torch import nn

PAGE = Path(__file__).resolve().parents[1] / "book" / "own_training.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)


def surroundings() -> dict:
    torch.manual_seed(0)
    inputs = torch.randn(256, 6)
    labels = inputs[:, :3].argmax(1)
    return {
        "torch": torch,
        "model": Net(),
        "device": "cpu",
        "loss_function": nn.functional.cross_entropy,
        "loader": list(zip(inputs.split(16), labels.split(16))) * 3,
    }


@pytest.mark.parametrize("block", [block for block in BLOCKS if "lightning" not in block])
def test_code_on_the_page_trains(block: str) -> None:
    names = surroundings()
    inputs, labels = (torch.cat(part) for part in zip(*names["loader"]))

    def loss() -> float:
        with torch.no_grad():
            return names["loss_function"](names["model"].eval()(inputs), labels).item()

    before = loss()
    names["model"].train()
    with one_process() if "DistributedDataParallel" in block else nullcontext():
        exec("from lib.optim import SAM\n" + block, names)
    evaluations = 4 if "chunk(4)" in block else 1
    assert loss() < 0.8 * before
    assert int(names["model"].body[1].num_batches_tracked) == evaluations * len(names["loader"])
