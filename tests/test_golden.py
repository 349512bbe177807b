"""Verdicts computed again from stored results, and those in the notebooks, are the ones of the golden files.

Where a rule was changed on purpose, `.venv/bin/python tests/test_golden.py` writes these files anew, once the notebooks
hold their new outputs (`make notebooks`): what the rules of the toy chapters take, by running those chapters, then all
judgements and chapter 13's shares. `git diff tests/golden` then shows what changed.
"""

import contextlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest

from book import (
    batch_size,
    domainbed,
    interventions,
    mechanism,
    natural_images,
    noise,
    open_choices,
    protocols,
    real_data,
    rebalancing,
    theory,
    toy,
)
from book.claims import JUDGEMENT, Check, judge
from lib.trials.store import ROOT, Store

FOLDER = Path(__file__).parent / "golden"
GOLDEN = json.loads((FOLDER / "judgements.json").read_text())


def same(golden: dict) -> dict:
    """What a judgement, as of `Judgement.as_json`, is equal to: the same checks, effects to 1e-9, whatever seconds."""
    checks = []
    for one in golden["checks"]:
        effect = {
            name: x if x is None else pytest.approx(x, rel=1e-9, abs=1e-9) for name, x in (one["effect"] or {}).items()
        }
        checks.append(one | {"effect": effect or None, "needs": ANY})
    return golden | {"checks": checks, "stored_seconds": ANY}


def stored(chosen: dict[str, protocols.Protocol], seeds: int) -> dict[str, protocols.Result]:
    """The stored results of these sets."""
    return {name: protocols.result(one, Store(), seeds) for name, one in chosen.items()}


def arrays(chapter: str) -> dict:
    """What the rules of a toy chapter took in its run with default parameters."""
    values = json.loads((FOLDER / f"{chapter}.json").read_text())
    return {name: np.array(value) if isinstance(value, list) else value for name, value in values.items()}


def of_natural() -> dict[str, list[Check]]:
    found = stored(protocols.REDUCED, protocols.NATURAL_SEEDS)
    of_weights = {"C3": natural_images.checks_c3(found.values()), "C4": natural_images.checks_c4(found.values())}
    return {"C7": natural_images.checks_c7(found)} | of_weights


def of_rebalancing() -> dict[str, list[Check]]:
    given = arrays("04_rebalancing")
    rates = given.pop("easy"), given.pop("hard")
    c5 = rebalancing.checks_c5(given["rhos"], given["chosen"], *rates)
    return {"C2": rebalancing.checks_c2(**given), "C5": c5}


def of_mechanism() -> dict[str, list[Check]]:
    given = arrays("05_mechanism")
    epochs, found = given.pop("epochs"), mechanism.Effects(**given)
    last, c9 = found.since(-1), mechanism.checks_c9(found, epochs)
    return {"C3": mechanism.checks_c3(last.even), "C4": mechanism.checks_c4(last.changes), "C9": c9}


def of_interventions() -> dict[str, list[Check]]:
    given = arrays("06_interventions")
    given["curves"] = {effect: np.array(curve) for effect, curve in given["curves"].items()}
    return {"C6": interventions.checks(interventions.Compared(**given))}


def toy_errors(plan: list, reading: Callable[..., Any], *where: Any) -> list[Any]:
    """Probing errors of a plan's stored records: hard on test and on validation data, easy on test data."""
    records = [Store().read(trial.configuration) for trial in plan]
    return [reading(records, *where, *of) for of in (("hard", "test"), ("hard", "validation"), ("easy", "test"))]


def of_noise() -> dict[str, list[Check]]:
    hard, validation, easy = toy_errors(noise.plan(), noise.by_panel, noise.RADII, noise.LEVELS)
    return {"C10": noise.checks(noise.lines(hard, validation, noise.RADII, 1.4), noise.judged(hard, easy))}


def of_batches() -> dict[str, list[Check]]:
    found = {
        f"{amount:,} {budget}": toy_errors(batch_size.plan(budget), toy.by_radius, batch_size.RADII)
        for budget, amount in batch_size.BUDGETS.items()
    }
    hard, validation = ({budget: errors[i] for budget, errors in found.items()} for i in range(2))
    return {"C11": batch_size.checks(batch_size.SIZES, batch_size.RADII, 1.4, hard, validation)}


COMPUTED: dict[str, Callable[[], dict[str, list[Check]]]] = {
    "03_toy": lambda: {"C1": toy.checks(**arrays("03_toy"))},
    "04_rebalancing": of_rebalancing,
    "05_mechanism": of_mechanism,
    "06_interventions": of_interventions,
    "07_real_data": lambda: {"C7": real_data.checks_c7(stored(protocols.PAIRED, protocols.PAIRED_SEEDS))},
    "16_natural_images": of_natural,
    "08_domainbed": lambda: {
        "C8": domainbed.checks(domainbed.results(domainbed.sweeps(), Store(), protocols.NATURAL_SEEDS))
    },
    "11_theory": lambda: {"C12": theory.checks(**arrays("11_theory"))},
    "09_noise": of_noise,
    "10_batch_size": of_batches,
}


def computed(chapter: str) -> list[dict]:
    """The judgements of a chapter from its stored results, as plain values."""
    return [judge(claim, checks).as_json() for claim, checks in COMPUTED[chapter]().items()]


@pytest.mark.parametrize("chapter", COMPUTED)
def test_judgements_computed_from_stored_results_are_the_golden_ones(chapter):
    assert computed(chapter) == list(map(same, GOLDEN[chapter]))


def recorded(chapter: str) -> list[dict]:
    """The judgements in a notebook's outputs, without the checks at the simple setting, which decide nothing."""
    cells = json.loads((ROOT / "notebooks" / f"{chapter}.ipynb").read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    found = [output["metadata"][JUDGEMENT] for output in outputs if JUDGEMENT in output.get("metadata", {})]
    return [
        one | {"checks": [check for check in one["checks"] if not check["what"].startswith("simple setting: ")]}
        for one in found
    ]


@pytest.mark.parametrize("chapter", GOLDEN)
def test_judgements_in_the_notebooks_are_the_golden_ones(chapter):
    assert recorded(chapter) == list(map(same, GOLDEN[chapter]))


def shares() -> dict[str, dict[str, str]]:
    """Those of chapter 13's table of key numbers, from the stored results."""
    values = open_choices.sample(open_choices.POINTS)
    points = open_choices.read(values, [Store().read(open_choices.trial(one).configuration) for one in values])
    strata = open_choices.strata(points)
    at_rho = open_choices.claims(points, open_choices.RADII.index(1.4))
    found = {
        part if part == claim else f"{claim} {part}": one
        for claim, parts in open_choices.shares(at_rho, strata).items()
        for part, one in parts.items()
    }
    words = {row: {name: open_choices.percent(one) for name, one in of_row.items()} for row, of_row in found.items()}
    return {"settings": {name: str(among.sum()) for name, among in strata.items()}} | words


def test_shares_of_settings_from_the_stored_results_are_the_golden_ones():
    assert shares() == json.loads((FOLDER / "13_open_choices.json").read_text())


# What the rules of a toy chapter take, by the names that its cells give them.
INPUTS = {
    "03_toy": "dict(rhos=rhos, chosen=compared, hard=hard, easy=easy, training=training)",
    "04_rebalancing": """dict(rhos=rhos, chosen=compared, phantom=phantom_ratio[judged], real=real_ratio[judged],
        easy=rates[0, judged], hard=rates[1, judged])""",
    "05_mechanism": "dict(epochs=epochs, **effects._asdict())",
    "06_interventions": "main._asdict()",
    "11_theory": "dict(difference=max(differences.values()), inexact=inexact, errors=sizes, tolerance=tolerance)",
}


def taken(chapter: str) -> dict:
    """What the rules take in a run of the chapter with its default parameters: its cells up to the first verdict."""
    from IPython.core.interactiveshell import InteractiveShell

    cells = json.loads((ROOT / "notebooks" / f"{chapter}.ipynb").read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    first = next(i for i, source in enumerate(sources) if "judge(" in source)
    shell = InteractiveShell()
    with contextlib.redirect_stdout(io.StringIO()):
        for source in sources[:first]:
            shell.run_cell(source, store_history=True).raise_error()
    return eval(INPUTS[chapter], shell.user_ns)


def plain(value: Any) -> Any:
    """The value with arrays as lists."""
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return np.asarray(value).tolist()


def write() -> None:
    """All golden files of this module anew."""
    os.chdir(ROOT)
    for chapter in INPUTS:
        (FOLDER / f"{chapter}.json").write_text(json.dumps(plain(taken(chapter))) + "\n")
    judgements = {chapter: (computed if chapter in COMPUTED else recorded)(chapter) for chapter in GOLDEN}
    (FOLDER / "judgements.json").write_text(json.dumps(judgements, indent=1, sort_keys=True) + "\n")
    (FOLDER / "13_open_choices.json").write_text(json.dumps(shares(), indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    write()
