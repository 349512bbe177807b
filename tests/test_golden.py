"""Verdicts computed again from stored results, and those in the notebooks, are the ones of the golden file."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from book import batch_size, domainbed, interventions, mechanism, noise, protocols, real_data, rebalancing, theory, toy
from book.claims import JUDGEMENT, Judgement, judge
from lib.trials.store import ROOT, Store

FOLDER = Path(__file__).parent / "golden"
GOLDEN = json.loads((FOLDER / "judgements.json").read_text())


def assert_same(judgement: dict, golden: dict) -> None:
    """Both as of `Judgement.as_json`, but for the seconds: the same checks, effects equal to 1e-9."""
    assert judgement["claim"] == golden["claim"]
    for check, known in zip(judgement["checks"], golden["checks"], strict=True):
        for name in ("what", "holds", "main", "reduced"):
            assert check.get(name, False) == known[name], (name, check, known)
        effects = (check["effect"] or {}), (known["effect"] or {})
        assert effects[0].keys() == effects[1].keys(), (check, known)
        for name, value in effects[1].items():
            ours, value = (math.nan if one is None else one for one in (effects[0][name], value))
            assert ours == pytest.approx(value, rel=1e-9, abs=1e-9, nan_ok=True), (name, check, known)


def natural() -> list[Judgement]:
    """C7, C3 and C4 on the paired and the natural sets."""
    results = {
        name: protocols.stored(protocol, Store()) for name, protocol in (protocols.PAIRED | protocols.REDUCED).items()
    }
    images = [results[name] for name in protocols.REDUCED]
    c3 = [real_data.checks_c3(one.title, real_data.gini(one), bool(one.lacking)) for one in images]
    c4 = [real_data.checks_c4(one.title, real_data.changes(one), bool(one.lacking)) for one in images]
    return [judge("C7", real_data.checks_c7(results)), judge("C3", sum(c3, [])), judge("C4", sum(c4, []))]


def domains() -> list[Judgement]:
    """C8 on the reduced runs."""
    results = domainbed.stored(domainbed.sweeps(**domainbed.REDUCED), Store(), domainbed.REDUCED_SEEDS)
    assert all(result.lacking for result in results.values())
    return [judge("C8", domainbed.checks({key: domainbed.gain(one) for key, one in results.items()}, reduced=True))]


def arrays(chapter: str) -> dict:
    """What the rules of a toy chapter took in its run with default parameters."""
    values = json.loads((FOLDER / f"{chapter}.json").read_text())
    return {name: np.array(value) if isinstance(value, list) else value for name, value in values.items()}


def rebalanced() -> list[Judgement]:
    """C2 and C5."""
    given = arrays("04_rebalancing")
    c5 = rebalancing.checks_c5(given["rho"], given.pop("easy"), given.pop("hard"))
    return [judge("C2", rebalancing.checks_c2(**given)), judge("C5", c5)]


def heard() -> list[Judgement]:
    """C3, C4 and C9 on the toy."""
    given = arrays("05_mechanism")
    epochs, found = given.pop("epochs"), mechanism.Effects(**given)
    c9 = mechanism.checks_c9(found, epochs)
    return [judge("C3", mechanism.checks_c3(found)), judge("C4", mechanism.checks_c4(found)), judge("C9", c9)]


def intervened() -> list[Judgement]:
    """C6."""
    ratios, curves, lsam_ratio, lsam = arrays("06_interventions").values()
    curves, places = {effect: np.array(curve) for effect, curve in curves.items()}, lsam_ratio.mean(axis=1)
    gain = interventions.gains(ratios, curves, lsam[0], places[0])
    return [judge("C6", interventions.checks(gain, interventions.apart(ratios, curves["both"], places[1:], lsam[1:])))]


def toy_errors(plan: list, reading: Callable[..., Any], *where: Any) -> list[Any]:
    """Hard probing errors of a plan's stored records, on test and on validation data."""
    records = [Store().read(trial.configuration) for trial in plan]
    return [reading(records, *where, "hard", split) for split in ("test", "validation")]


def noisy() -> list[Judgement]:
    """C10."""
    hard, validation = toy_errors(noise.plan(), noise.by_condition, noise.RADII, noise.LEVELS)
    return [judge("C10", noise.checks(noise.compared(hard, validation, noise.RADII, 1.4)))]


def batches() -> list[Judgement]:
    """C11."""
    found = {
        f"{amount:,} {budget}": toy_errors(batch_size.plan(budget), batch_size.by_size, batch_size.RADII)
        for budget, amount in batch_size.BUDGETS.items()
    }
    hard, validation = ({budget: errors[i] for budget, errors in found.items()} for i in range(2))
    return [judge("C11", batch_size.checks(batch_size.SIZES, batch_size.RADII, 1.4, hard, validation))]


COMPUTED: dict[str, Callable[[], list[Judgement]]] = {
    "03_toy": lambda: [judge("C1", toy.checks(**arrays("03_toy")))],
    "04_rebalancing": rebalanced,
    "05_mechanism": heard,
    "06_interventions": intervened,
    "07_real_data": natural,
    "08_domainbed": domains,
    "11_theory": lambda: [judge("C12", theory.checks(**arrays("11_theory")))],
    "09_noise": noisy,
    "10_batch_size": batches,
}


@pytest.mark.parametrize("chapter", COMPUTED)
def test_judgements_computed_from_stored_results_are_the_golden_ones(chapter):
    for judgement, golden in zip(COMPUTED[chapter](), GOLDEN[chapter], strict=True):
        assert_same(judgement.as_json(), golden)


@pytest.mark.parametrize("chapter", GOLDEN)
def test_judgements_in_the_notebooks_are_the_golden_ones(chapter):
    cells = json.loads((ROOT / "notebooks" / f"{chapter}.ipynb").read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    found = [output["metadata"][JUDGEMENT] for output in outputs if JUDGEMENT in output.get("metadata", {})]
    for judgement, golden in zip(found, GOLDEN[chapter], strict=True):
        assert_same(judgement, golden)
