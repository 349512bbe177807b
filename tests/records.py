"""Records of made-up trials, whole as the store takes them, around the few values that a test is about."""

from __future__ import annotations

RATE = {"error": 0.25, "low": 0.0, "high": 1.0, "examples": 100}
HARDWARE = {"device": "cpu", "model": "a processor", "threads": 1}


def whole(record: dict) -> dict:
    """`record`, a configuration with any other keys, with all that it lacks to be one."""
    configuration = {"experiment": "chain", "protocol": 1} | record["configuration"]
    kind, metrics = configuration["experiment"], record.get("metrics", {})
    if metrics is not None and kind in ("images", "groups", "domains"):
        metrics = {"validation_loss": 0.5, "validation_error": 0.25, "validation_worst_group_error": 0.5} | metrics
        rates = metrics.get("probing_error", {"a": {}})
        metrics["probing_error"] = {name: RATE | rate for name, rate in rates.items()}
        metrics["classifier_error"] = {name: RATE | rate for name, rate in rates.items()}
        test = RATE if kind == "images" else {"error": 0.25, "worst_group_error": 0.5, "groups": {"a": RATE}}
        metrics["test_error"] = test | {k: v for k, v in metrics.get("test_error", {}).items() if v != {}}
    of_data = {} if kind in ("chain", "toy", "toy_variants") else {"data": {"a set": "1 images 0"}}
    weights = {"weights": {"name": "weights.pt", "sha256": None} | record["weights"]} if "weights" in record else {}
    rest = {"status": "finished", "seconds": {"total": 1.0}, "versions": {}, "hardware": HARDWARE}
    return rest | of_data | record | weights | {"configuration": configuration, "metrics": metrics}
