"""Table 2 (DomainBed): the paper's numbers, ours beside them, and claim C8's checks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from book import natural_plans
from book.claims import Check
from book.real_data_report import mean_and_spread
from lib.data.domains import ATTRIBUTE, BENCHMARKS
from lib.stats import Estimate, estimate, paired_difference
from lib.trials.images import ImageTrial, domain
from lib.trials.store import Store

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


def trials(benchmark: str, seeds: int, *, lr: float, rho: float, **settings) -> list[ImageTrial]:
    """SGD and SAM at one setting on every target of `benchmark` ("all": of all three), paired by seed, and
    the net as it begins."""
    found = []
    for one, target in targets():
        if benchmark in (one, "all"):
            base = domain(one, target, "sgd", **settings)
            found += [
                trial
                for seed in range(seeds)
                for trial in (
                    replace(base, epochs=0, seed=seed),
                    replace(base, lr=lr, seed=seed),
                    replace(base, lr=lr, seed=seed, method="sam", rho=rho),
                )
            ]
    return found


def protocol_trials(benchmark: str, store: Store, seeds: int) -> list[ImageTrial]:
    """The paper's protocol on `benchmark` ("all": on all three): SGD and SAM on every target at the settings
    that its stored sweep selected; none on a target whose sweep is not complete."""
    return [
        trial
        for one in PUBLISHED
        if benchmark in (one, "all")
        for protocol in natural_plans.domains_full(one)
        if (settings := natural_plans.selected(protocol, store)) is not None
        for trial in natural_plans.comparison(protocol, settings, seeds)
    ]


def found(records: Iterable[dict]) -> dict[tuple[str, str], Errors]:
    """Probing errors of the target domains at the seeds at which both methods finished; a target needs two
    of them. The records hold one setting of either method; ``untrained`` is the net as it begins, at the same
    seeds as far as it is there."""
    by_target = defaultdict(lambda: {"sgd": {}, "sam": {}, "untrained": {}})  # method -> seed -> error
    for record in records:
        if record["status"] == "finished":
            trial = record["configuration"]
            error = record["metrics"]["probing_error"][ATTRIBUTE]["error"]
            method = trial["method"] if trial["epochs"] else "untrained"
            by_target[trial["benchmark"], trial["target"]][method][trial["seed"]] = error
    out = {}
    for key, of_method in by_target.items():
        both = sorted(of_method["sgd"].keys() & of_method["sam"].keys())
        if len(both) > 1:
            out[key] = {
                method: np.array([errors[seed] for seed in both if seed in errors])
                for method, errors in of_method.items()
            }
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
        own = {"before training": "", "SGD": "not run here", "SAM": "not run here", "gain": ""}
        if effect := gain(errors):
            own = {
                label: mean_and_spread(100 * (1 - errors[method]), 1)
                for label, method in zip(own, ("untrained", "sgd", "sam"))
                if len(errors[method])
            }
            own["gain"] = f"{100 * effect.mean:.1f} [{100 * effect.low:.1f}, {100 * effect.high:.1f}]"
        out[name(benchmark, target)] = {
            "paper: SGD": f"{100 * sgd:.1f}",
            "SAM": f"{100 * sam:.1f}",
            "gain": f"{100 * (sam - sgd):.1f}",
            **{f"here: {key}": value for key, value in own.items()},
        }
    return out


def checks(found: Mapping[tuple[str, str], Errors], reduced: bool) -> list[Check]:
    """Claim C8's twelve parts: on each target domain the probing error of SGD less SAM's is above 0 for the
    whole interval; None, not run, where there are no trials. `reduced` says that the trials are."""
    out = []
    for benchmark, target in targets():
        effect = gain(found.get((benchmark, target), {}))
        what = f"{name(benchmark, target)}: probing error of SGD less SAM's above 0"
        out.append(
            Check(what, None if effect is None else effect.low > 0, effect, reduced=reduced and effect is not None)
        )
    return out


def note(records: list[dict], reduced: bool) -> str:
    """How far the runs behind our numbers are those of the protocol, in a sentence."""
    if not records:
        return "Not run here."
    if not reduced:
        return "Ours follow the whole protocol."
    trials = [record["configuration"] for record in records if record["configuration"]["epochs"]]
    words = []
    for name, unit in (("epochs", "epochs"), ("size", "pixels")):
        values = sorted({trial[name] for trial in trials})
        words.append(f"{' and '.join(map(str, values))} {unit}")
    fresh = sorted({layer for record in records for layer in record["weights"]["fresh"]} - {"fc"})
    if fresh:
        words.append(f"{' and '.join(fresh)} not from ImageNet but fresh")
    return f"Ours are reduced: {', '.join(words)}, one setting for both methods, not chosen on validation data."


def effects_in_words(found: Mapping[tuple[str, str], Errors]) -> str:
    """How many of our differences are above and below 0 beyond their intervals, and their mean over the
    targets with its interval over seeds, as Markdown."""
    effects = [gain(errors) for errors in found.values()]
    if not effects:
        return "No target was run here."
    above, below = sum(effect.low > 0 for effect in effects), sum(effect.high < 0 for effect in effects)
    seeds = min(effect.n for effect in effects)
    each = np.array([(errors["sgd"] - errors["sam"])[:seeds] for errors in found.values()])
    mean = estimate(each.mean(axis=0))
    worse, better = min(effect.mean for effect in effects), max(effect.mean for effect in effects)
    return (
        f"Of the {len(effects)} targets that were run here, {above} {'has' if above == 1 else 'have'} an "
        f"interval above zero and {below} one below; the gains run from {100 * worse:.1f} to "
        f"{100 * better:.1f} points. Their mean over the targets is {100 * mean.mean:.2f} points "
        f"[{100 * mean.low:.2f}, {100 * mean.high:.2f}] over {seeds} seeds."
    )


def start_in_words(found: Mapping[tuple[str, str], Errors]) -> str:
    """On how many targets the probe does worse after training than before it, as Markdown."""
    known = [errors for errors in found.values() if len(errors["untrained"])]
    if not known:
        return ""
    worse = {
        method: sum(errors[method].mean() > errors["untrained"].mean() for errors in known) for method in ("sgd", "sam")
    }
    return (
        f"Before training, with ImageNet's weights as far as they go, the probe's mean error is lower "
        f"than after SGD on {worse['sgd']} of {len(known)} targets, and lower than after SAM on "
        f"{worse['sam']}."
    )
