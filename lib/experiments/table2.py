"""Table 2 (DomainBed): the paper's numbers, ours beside them, and claim C8's checks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from lib.claims import Check
from lib.data.domains import BENCHMARKS
from lib.experiments.domain import ATTRIBUTE, DomainTrial
from lib.stats import Estimate, paired_difference

TITLES = {"office_home": "OfficeHome", "pacs": "PACS", "vlcs": "VLCS"}
# Accuracy of a linear probe on the target domain, after SGD and after SAM (Table 2 of the paper).
PUBLISHED: dict[str, dict[str, tuple[float, float]]] = {
    "office_home": {"A": (0.687, 0.709), "C": (0.716, 0.745), "P": (0.853, 0.858), "R": (0.777, 0.784)},
    "pacs": {"A": (0.910, 0.914), "C": (0.897, 0.921), "P": (0.955, 0.964), "S": (0.893, 0.908)},
    "vlcs": {"C": (0.993, 0.996), "L": (0.736, 0.748), "S": (0.748, 0.776), "V": (0.812, 0.830)},
}
Errors = Mapping[str, np.ndarray]  # of a target domain, by method: (seed,), paired; empty where not run


def targets() -> list[tuple[str, str]]:
    """The twelve (benchmark, target domain), in the table's order."""
    return [(benchmark, target) for benchmark, rows in PUBLISHED.items() for target in rows]


def name(benchmark: str, target: str) -> str:
    """A target domain as a row is called."""
    return f"{TITLES[benchmark]}, {BENCHMARKS[benchmark].domains[target].replace('_', ' ')}"


def trials(benchmark: str, seeds: int, *, lr: float, rho: float, **settings) -> list[DomainTrial]:
    """SGD and SAM at one setting on every target of `benchmark` ("all": of all three), paired by seed."""
    return [DomainTrial(one, target, method=method, lr=lr, rho=rho if method == "sam" else 0.0, seed=seed,
                        **settings)
            for one, target in targets() if benchmark in (one, "all")
            for seed in range(seeds) for method in ("sgd", "sam")]


def found(records: Iterable[dict]) -> dict[tuple[str, str], Errors]:
    """Probing errors of the target domains at the seeds at which both methods finished; a target needs two
    of them. The records hold one setting of either method."""
    by_target = defaultdict(lambda: {"sgd": {}, "sam": {}})  # target -> method -> seed -> error
    for record in records:
        if record["status"] == "finished":
            trial = record["configuration"]
            error = record["metrics"]["probing_error"][ATTRIBUTE]["error"]
            by_target[trial["benchmark"], trial["target"]][trial["method"]][trial["seed"]] = error
    out = {}
    for key, of_method in by_target.items():
        both = sorted(of_method["sgd"].keys() & of_method["sam"].keys())
        if len(both) > 1:
            out[key] = {method: np.array([errors[seed] for seed in both])
                        for method, errors in of_method.items()}
    return out


def gain(errors: Errors) -> Estimate | None:
    """SGD's error less SAM's, paired by seed; None where it was not run."""
    return paired_difference(errors["sgd"], errors["sam"]) if errors else None


def rows(found: Mapping[tuple[str, str], Errors]) -> dict[str, dict[str, str]]:
    """The table in per cent of accuracy: the paper's SGD and SAM, ours as mean ± standard deviation over
    seeds, and both gains, ours with its 95 % interval."""
    out = {}
    for benchmark, target in targets():
        sgd, sam = PUBLISHED[benchmark][target]
        errors = found.get((benchmark, target), {})
        own = {"SGD": "not run here", "SAM": "not run here", "gain": ""}
        if effect := gain(errors):
            own = {method.upper(): f"{100 * (1 - errors[method].mean()):.1f} ± {spread(errors[method]):.1f}"
                   for method in ("sgd", "sam")}
            own["gain"] = f"{100 * effect.mean:.1f} [{100 * effect.low:.1f}, {100 * effect.high:.1f}]"
        out[name(benchmark, target)] = {
            "paper: SGD": f"{100 * sgd:.1f}", "SAM": f"{100 * sam:.1f}", "gain": f"{100 * (sam - sgd):.1f}",
            **{f"here: {key}": value for key, value in own.items()}}
    return out


def spread(errors: np.ndarray) -> float:
    """Standard deviation over seeds, in percentage points."""
    return 100 * float(np.std(errors, ddof=1)) if len(errors) > 1 else float("nan")


def checks(found: Mapping[tuple[str, str], Errors]) -> list[Check]:
    """Claim C8's twelve parts: on each target domain the probing error of SGD less SAM's is above 0 for the
    whole interval; None, not run, where there are no trials."""
    out = []
    for benchmark, target in targets():
        effect = gain(found.get((benchmark, target), {}))
        what = f"{name(benchmark, target)}: probing error of SGD less SAM's above 0"
        out.append(Check(what, None if effect is None else effect.low > 0, effect))
    return out


def note(records: list[dict]) -> str:
    """How the runs behind our numbers are reduced, in a sentence."""
    if not records:
        return "Not run here."
    trials = [record["configuration"] for record in records]
    words = []
    for name, unit in (("epochs", "epochs"), ("size", "pixels")):
        values = sorted({trial[name] for trial in trials})
        words.append(f"{' and '.join(map(str, values))} {unit}")
    return (f"Ours are reduced: {', '.join(words)}, one setting for both methods, not chosen on validation "
            "data.")
