"""The toy net as a torch module with the initial weights of the book's own engines."""

from __future__ import annotations

import torch
from torch import nn

from lib.models import ToyNet
from lib.toy.nets import initial_nets, unpack


def toy_net(seed: int, width: int) -> ToyNet:
    """The torch module with the initial weights of `seed`."""
    net = ToyNet(width)
    with torch.no_grad():
        for body, flat in zip(toy_bodies(net), initial_nets(seed, width), strict=True):
            part = {name: torch.from_numpy(value.copy()) for name, value in unpack(flat).items()}
            for index, layer in zip("123", (body[0], body[2], body[4]), strict=True):
                weight = part["w3"][:, None] if index == "3" else part[f"W{index}"]
                layer.weight.copy_(weight.T)
                layer.bias.copy_(part[f"b{index}"])
    return net


def toy_bodies(net: ToyNet) -> list[nn.Sequential]:
    """The nets of the easy and of the hard feature."""
    return [module for module in net.modules() if isinstance(module, nn.Sequential) and len(module) == 5]
