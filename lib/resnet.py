"""ResNet-18 for natural images, and the pretrained weights that go into it."""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torchvision.models import ResNet18_Weights, resnet18

from lib import check
from lib.data.root import DataError, MissingData, data_root
from lib.files import note_read
from lib.models import Opened

IMAGENET, NONE = "imagenet", "none"  # weights that are no file
FOLDER = "weights"  # of the data root, where files of weights are looked for by their name


class FreshLayersWarning(UserWarning):
    """A file of weights leaves some layers as they were initialised; the message names them."""


class ResNet18(Opened):
    """torchvision's ResNet-18 (He et al., 2016): the net of the natural images (Section 4.1).

    Takes normalised images (n, 3, height, width); `features` is the last feature map in the mean over its places,
    (n, 512); logits are (n, classes). Raises ValueError where `classes` is not a positive integer.
    """

    def __init__(self, classes: int) -> None:
        super().__init__(resnet18(num_classes=check.whole("classes", classes, 1)), head="fc")


@dataclass(frozen=True)
class Loaded:
    """Which weights a net began with, without a path."""

    name: str  # "imagenet", "none", or the file's name
    sha256: str | None  # of the file
    fresh: tuple[str, ...]  # layers that stayed as they were initialised, by torchvision's names


def load_weights(model: ResNet18, weights: str | Path, root: Path | str | None = None) -> Loaded:
    """Put weights in torchvision's names into `model`; layers that they lack stay as they are, and a
    FreshLayersWarning names them.

    `weights`: "imagenet" (torchvision's IMAGENET1K_V1, downloaded once), "none", or a file that holds a state
    dict: a path, or a bare name, which is looked for in the folder ``weights`` of the data root. A last layer
    (``fc``) of another number of classes is left out.

    Raises, before anything is changed, MissingData or DataError, in one line, where the file is not there or
    cannot be read, and ValueError, in one line, where it has an entry that the net lacks or of another shape.
    """
    if str(weights) == NONE:
        return Loaded(NONE, None, ())
    name, sha256, state = _downloaded() if str(weights) == IMAGENET else _read(weights, root)
    own = model.net.state_dict()
    if "fc.weight" in state and len(state["fc.weight"]) != len(own["fc.weight"]):
        state = {key: value for key, value in state.items() if not key.startswith("fc.")}
    if unfit := [key for key in state if key not in own or state[key].shape != own[key].shape]:
        first = f"{unfit[0]} {tuple(state[unfit[0]].shape)}"
        others = f" and {len(unfit) - 1} more that have not" if len(unfit) > 1 else ""
        raise ValueError(f"weights must have the names and shapes of torchvision's, but {name} has {first}{others}")
    model.net.load_state_dict(state, strict=False)
    # A part that is lacking as a whole is told by its name, else its entries are. Counters of batches, which old files
    # lack, play no part where batch norm has a momentum.
    absent = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    parts = {key.partition(".")[0] for key in state}
    fresh = tuple(dict.fromkeys(key if (part := key.partition(".")[0]) in parts else part for key in absent))
    if fresh:
        said = f"{name} leaves these layers freshly initialised: {', '.join(fresh)}"
        warnings.warn(said, FreshLayersWarning, stacklevel=2)
    return Loaded(name, sha256, fresh)


def find_weights(weights: str | Path, root: Path | str | None = None) -> Path:
    """Where the file `weights` is looked for: a bare name in the folder ``weights`` of the data root."""
    path = Path(weights).expanduser()
    note_read(f"data:{FOLDER}")
    return data_root(root) / FOLDER / path if path.name == str(weights) else path


def lacking(weights: str | Path, root: Path | str | None = None) -> str | None:
    """In one line where the file of `weights` was looked for and is not; None where nothing is missing."""
    if str(weights) in (IMAGENET, NONE) or (path := find_weights(weights, root)).is_file():
        return None
    advice = f"copy the file there, give another path, or take {IMAGENET!r} or {NONE!r}"
    return f"the weights {path.name} are not there: {path} was looked for; {advice}"


def _read(weights: str | Path, root: Path | str | None) -> tuple[str, str, dict[str, Tensor]]:
    """Name, SHA-256 and entries of a file."""
    if problem := lacking(weights, root):
        raise MissingData(problem)
    path = find_weights(weights, root)
    try:
        content = path.read_bytes()
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything from EOFError to UnpicklingError on a damaged file
        reason = (str(error).splitlines() or [""])[0]
        raise DataError(f"weights: {path} cannot be read ({type(error).__name__}: {reason})") from error
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"weights must be a state dict, names with tensors, and {path.name} is none")
    return path.name, hashlib.sha256(content).hexdigest(), state


def _downloaded() -> tuple[str, None, dict[str, Tensor]]:
    """The same of torchvision's weights."""
    try:
        return IMAGENET, None, ResNet18_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:  # URLError is an OSError
        url, place = ResNet18_Weights.IMAGENET1K_V1.url, Path(torch.hub.get_dir()) / "checkpoints"
        reason = " ".join(str(error).split())
        raise DataError(f"weights: {url} could not be downloaded ({reason}); copy it to {place} by hand") from error
