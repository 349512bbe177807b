"""The nets of the book, all of one convention: ``forward(x) = head(features(x))``.

`features(x)` is the paper's phi (all but the last layer) and `head` its last layer. LSAM perturbs `head`;
probes read `features`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.modules.module import register_module_forward_hook

from lib import check


class FeatureNet(nn.Module):
    """A net split into `features` (phi) and `head`; a subclass sets `head` and defines `features`."""

    head: nn.Module

    def features(self, x: Tensor) -> Tensor:
        """phi(x), shape (n, d)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class SingleLogit(nn.Linear):
    """A linear layer with one output and no bias: (n, d) to logits of shape (n,)."""

    def __init__(self, inputs: int) -> None:
        super().__init__(inputs, 1, bias=False)

    def forward(self, phi: Tensor) -> Tensor:
        return super().forward(phi).squeeze(-1)


class ToyNet(FeatureNet):
    """Equation (4): the logit F(x) = w_e f_e(x_e) + w_h f_h(x_h) of x = (x_e, x_h) in R^4.

    `features` is (f_e, f_h), of shape (n, 2), two three-layer ReLU nets R^2 -> R; `head` holds (w_e, w_h), both 1 at
    the start (chosen here: the text does not say); the forward pass gives logits of shape (n,), whose sign is the
    label. Raises ValueError where `width` is not a positive integer.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        check.whole("width", width, 1)
        self.easy, self.hard = (_relu_net(width) for _ in range(2))
        self.head: SingleLogit = SingleLogit(2)
        nn.init.ones_(self.head.weight)

    def features(self, x: Tensor) -> Tensor:
        """(f_e(x_e), f_h(x_h)), shape (n, 2), of `x`, shape (n, 4)."""
        _check_shape(x, (4,))
        return torch.cat([self.easy(x[:, :2]), self.hard(x[:, 2:])], dim=1)


def _relu_net(width: int) -> nn.Sequential:
    inner = nn.Linear(width, width)
    return nn.Sequential(nn.Linear(2, width), nn.ReLU(), inner, nn.ReLU(), nn.Linear(width, 1))


class ConvNet(FeatureNet):
    """The conv net of CIFAR-MNIST and FMNIST-MNIST (Section 4): three convolutions of stride 2 and a linear layer.

    Takes images (n, in_channels, height, width), floats less the mean pixel; `features` is the flattened last feature
    map, (n, 128 * ceil(height/8) * ceil(width/8)); logits are (n, classes). Raises ValueError where a size is not a
    positive integer.
    """

    def __init__(self, classes: int = 2, in_channels: int = 3, height: int = 64, width: int = 32) -> None:
        super().__init__()
        sizes = {"classes": classes, "in_channels": in_channels, "height": height, "width": width}
        for name, size in sizes.items():
            check.whole(name, size, 1)
        self.image_shape = (in_channels, height, width)
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, 32, kernel_size=5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(32, 64, kernel_size=3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 128, kernel_size=3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.head = nn.Linear(128 * -(-height // 8) * -(-width // 8), classes)

    def features(self, x: Tensor) -> Tensor:
        """The flattened last feature map of images `x`."""
        _check_shape(x, self.image_shape)
        return self.body(x)


class Opened(FeatureNet):
    """Any net as a `FeatureNet`: `features` is what goes into its last layer, caught as that is called.

    head: the layer's name in ``net.named_modules()``, such as "fc" or "head.fc"; None: the layer that is called last,
    found on `example`, a batch of inputs. A single logit, (n,) or (n, 1), becomes those of two classes, 0 and it.
    Raises ValueError where there is no such layer, or the one called last does not give the net's output.
    """

    def __init__(self, net: nn.Module, example: Tensor | None = None, head: str | None = None) -> None:
        super().__init__()
        self.net = net
        layers = {name: layer for name, layer in net.named_modules() if name}
        layer = _last_called(net, example) if head is None else layers.get(head)
        if layer is None:
            raise ValueError(f"head must be a layer of the net, such as {', '.join(list(layers)[-3:])}, not {head!r}")
        object.__setattr__(self, "head", layer)  # it is a part of `net` already

    def features(self, x: Tensor) -> Tensor:
        """What the last layer is given, (n, d)."""
        caught: list[Tensor] = []
        with self.head.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0])):
            self.net(x)
        return caught[-1].flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        output = self.net(x)
        return pad(output.reshape(-1, 1), (1, 0)) if output.shape[1:] in ((), (1,)) else output


def _last_called(net: nn.Module, example: Tensor | None) -> nn.Module:
    """The layer with weights that is called last and gives the net's output."""
    called: list[tuple[nn.Module, Tensor]] = []
    hook = register_module_forward_hook(lambda layer, _, output: called.append((layer, output)))
    with hook, torch.no_grad():
        result = net(example)
    layers = [one for one in called if list(one[0].parameters()) and not list(one[0].children())]
    if not layers or not torch.equal(layers[-1][1].flatten(), result.flatten()):
        raise ValueError("head must name the layer whose input are the features and whose output is the net's")
    return layers[-1][0]


def _check_shape(x: Tensor, expected: tuple[int, ...]) -> None:
    """Raise ValueError where `x` is not of shape (n, *expected)."""
    if x.shape[1:] != expected or x.dim() != 1 + len(expected):
        raise ValueError(f"x must have shape (n, {', '.join(map(str, expected))}), not {tuple(x.shape)}")
