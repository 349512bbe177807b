"""What stored results are called: words for people, made from the configuration alone; nothing reads them."""

import re
from collections.abc import Sequence
from dataclasses import asdict

# Told by the folder, or the same in nearly all trials of one.
UNTOLD = {"experiment", "protocol", "dataset", "benchmark", "images", "size", "weights", "train_limit", "momentum"}
UNTOLD |= {"batch_size", "batches"}
HEADS = {
    ("real", "real"): "sgd",
    ("phantom", "phantom"): "lsam",
    ("fixed", "real"): "fixed importance",
    ("real", "fixed"): "fixed rate",
    ("fixed", "fixed"): "fixed both",
}
UNTOLD_OF_TOY = {"method", "importance", "effective", "data", "head"}
USUAL_OF_VARIANTS = {"weight_decay": 0.0, "upweight": 1, "identification": 0, "step_size": 0.0, "groups": "easy"}


def experiment_folder(configuration: dict) -> str:
    """The folder of a trial that no named experiment has: its data set, or its kind."""
    of = configuration.get("of", configuration)
    return _slug(of.get("dataset") or of.get("benchmark") or configuration.get("experiment", "trials"))


def label(configuration: dict) -> str:
    """What a trial is, for its file's name: its method, and what it differs in from other trials."""
    if "of" in configuration:  # importance weights of a net
        epoch = configuration.get("epoch")
        return f"weights-of-{label(configuration['of'])}" + ("" if epoch is None else f"-after-epoch-{epoch}")
    if "settings" in configuration:
        return _slug(_words([_of_toy(configuration["shared"] | own) for own in configuration["settings"]]))
    return _slug(_words([{name: value for name, value in configuration.items() if name not in UNTOLD}]))


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower())[:150].strip("-.") or "trial"  # short for any file system


def _of_toy(values: dict) -> dict:
    """A setting of the toy: its method, and what is not usual."""
    from lib.data.toy import ToyConstants  # here: a store of other trials needs nothing of the toy
    from lib.toy.setting import ToySetting

    values = values | values.get("data", {})
    method = values.get("method") or HEADS.get((values["importance"], values["effective"]), "mixed heads")
    usual = asdict(ToySetting()) | asdict(ToyConstants()) | USUAL_OF_VARIANTS
    told = {name: value for name, value in values.items() if name not in UNTOLD_OF_TOY and value != usual.get(name)}
    return {"method": "sgd" if method == "lsam" and not values["rho"] else method} | told


def _words(settings: Sequence[dict]) -> str:
    """The method, what the settings share, then from where to where each other value goes."""
    found: dict[str, dict] = {}
    for name, value in (item for setting in settings for item in setting.items()):
        if value or name in ("seed", "epochs"):
            found.setdefault(name, {})[tuple(value) if isinstance(value, list) else value] = None
    order = sorted(found, key=lambda name: (name != "method", len(found[name]) > 1))
    return " ".join(_value(name, list(found[name])) for name in order)


def _value(name: str, values: list) -> str:
    if all(isinstance(value, (int, float)) for value in values):
        return f"{name} " + " to ".join(f"{value:g}" for value in dict.fromkeys([min(values), max(values)]))
    texts = (" ".join(map(str, value)) if isinstance(value, tuple) else str(value) for value in values)
    words = " ".join(texts) if len(values) < 3 else f"{len(values)} {name}s"
    return words if name == "method" or len(values) > 2 else f"{name} {words}"
