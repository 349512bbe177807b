"""What stored results are called: words for people, made from the configuration alone; nothing reads them."""

import re

# What is told, in this order, with the values that go without saying.
NAMES = "method target attributes lr rho noisy dropout label_noise gaussian_noise uniform_noise ascent".split()
TOLD: dict[str, tuple] = dict.fromkeys(NAMES, (0, None))
TOLD |= {"noisy": ("both",), "ratio": (1,), "complexity": (360,), "width": (64,), "gain": (1,), "bias": (1,)}
TOLD |= {"learning_rate": (0.05,), "epochs": (20, 200), "batch_size": (5, 96, 100, 128), "upweight": (1,), "seed": ()}
HEADS = {
    ("real", "real"): "sgd",
    ("phantom", "phantom"): "lsam",
    ("fixed", "real"): "fixed importance",
    ("real", "fixed"): "fixed rate",
    ("fixed", "fixed"): "fixed both",
}


def experiment_folder(configuration: dict) -> str:
    """The folder of a trial that no named experiment has: its data set, or its kind."""
    of = configuration.get("of", configuration)
    return _slug(of.get("dataset") or of.get("benchmark") or configuration.get("experiment", "trials"))


def label(configuration: dict) -> str:
    """What a trial is, for its file's name: its method, and what it may differ in from others of its folder."""
    if "of" in configuration:  # importance weights of a net
        epoch = configuration.get("epoch")
        return f"weights-of-{label(configuration['of'])}" + ("" if epoch is None else f"-after-epoch-{epoch}")
    settings = [configuration.get("shared", {}) | own for own in configuration.get("settings", [configuration])]
    for setting in settings:
        if "importance" in setting:
            setting["method"] = HEADS.get((setting["importance"], setting["effective"]), "mixed heads")
    found = {name: [setting[name] for setting in settings if name in setting] for name in TOLD}
    told = {name: values for name, values in found.items() if any(value not in TOLD[name] for value in values)}
    return _slug(" ".join(_words(name, values) for name, values in told.items()))


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower())[:150].strip("-.") or "trial"  # short for any file system


def _words(name: str, values: list) -> str:
    texts = list(dict.fromkeys(f"{value:g}" if isinstance(value, float) else str(value) for value in values))
    if len(texts) > 2:
        numbers = all(isinstance(value, (int, float)) for value in values)
        return f"{name} {min(values):g} to {max(values):g}" if numbers else f"{len(texts)} {name}s"
    return " ".join(texts if name == "method" else [name, *texts])
