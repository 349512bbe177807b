"""The laboratory in a real browser, opened from a file: the same experiment as lib/toy, and a page that one can use
with a keyboard, without seeing the pictures, and from a link.

Needs an installed Chromium; skipped, with the reason, otherwise.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from book.make import pdf
from book.mechanism import decompose
from lib.data.toy import ToyConstants, sample
from lib.importance import gini, lorenz_curve
from lib.toy.ensemble import ToySetting, batch_order, features, initial_nets, intervention, lsam, sgd, train, unpack
from lib.toy.variants import VariantSetting

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from browsing import PHONE, Visit  # noqa: E402

if pdf.installed() is None:
    pytest.skip("no Chromium on this machine (apt install chromium)", allow_module_level=True)

LABORATORY = Path(__file__).resolve().parents[1] / "book" / "laboratory"
SCRIPTS = re.findall(r'src="(.*?)"', LABORATORY.with_suffix(".md").read_text(encoding="utf-8"))
ASK = """questions => new Promise((resolve, reject) => {
    const text = new Blob([`(${toyEngine})(self)`]), worker = new Worker(URL.createObjectURL(text)), answers = [];
    const plain = (name, value) => {
        if (name === "surfaces") return null;  // large, and looked at by nobody
        return ArrayBuffer.isView(value) ? [...value] : value;
    };
    worker.onmessage = ({ data }) => {
        if (answers.push(data) < questions.length) return;
        worker.terminate();
        resolve(JSON.parse(JSON.stringify(answers, plain)));
    };
    worker.onerror = ({ message }) => reject(message);
    for (const question of questions) worker.postMessage(question);
})"""
DEFAULTS = {
    **{"method": "sgd", "rho": 1.4, "ratio": 1, "from": 0, "to": 200, "complexity": 360, "rate": 0.05, "batch": 5},
    **{"noise": "gaussian", "level": 0, "width": 64, "epochs": 5, "seed": 1},
}


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    """A bare page with the laboratory on it, as a file."""
    scripts = "".join(f'<script defer src="{LABORATORY.as_uri()}/{name}"></script>' for name in SCRIPTS)
    style = f'<link rel="stylesheet" href="{LABORATORY.as_uri()}/style.css">'
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>laboratory</title>{style}'
    page = tmp_path_factory.mktemp("laboratory") / "page.html"
    body = f'<body><main id="laboratory"></main>{scripts}</body>'
    page.write_text(f'<!doctype html><html lang="en"><head>{head}</head>{body}</html>')
    return page.as_uri()


class Laboratory(Visit):
    """The page with the settings of a link."""

    def __init__(self, browser, address: str, link: str = "", **options):
        super().__init__(browser, address + link, **options)
        self.until("Ready")

    @property
    def state(self) -> str:
        """The state in words."""
        return self.page.get_by_role("status").inner_text()

    def until(self, word: str) -> str:
        """The state in words, once it begins with `word`."""
        self.page.get_by_role("status").filter(has_text=re.compile(f"^{word}")).wait_for(timeout=60_000)
        return self.state

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def finish(self) -> str:
        """Train to the end, as fast as it goes."""
        self.page.get_by_label("Speed").select_option("at once")
        self.press("Start")
        return self.until("Done")

    def numbers(self) -> list[list[str]]:
        """The rows of the table of numbers."""
        return self.page.locator("table:visible tbody tr").evaluate_all(
            "rows => rows.map(row => [...row.cells].map(cell => cell.innerText))"
        )


@pytest.fixture(scope="module")
def engine(browser, address) -> Iterator[Callable[..., list]]:
    """Asks a new engine questions, one after another; its answers."""
    with Laboratory(browser, address) as visit:
        yield lambda *questions: visit.page.evaluate(ASK, list(questions))


def settings(**changed) -> dict:
    return DEFAULTS | changed


def exported(seed: int, epochs: int, data: ToyConstants = ToyConstants(), width: int = 64) -> dict:
    """Data, nets and order of the batches as the engines of lib/toy have them."""
    points = {name: sample(data, seed, split) for name, split in (("training", "train"), ("test", "test"))}
    given = {name: {"x": one.x.ravel().tolist(), "y": one.y.tolist()} for name, one in points.items()}
    order = batch_order(seed, data.training_points, epochs).ravel().tolist()
    return given | {"nets": initial_nets(seed, width).tolist(), "order": order}


PARTS = {  # methods, and what of LSAM they keep in lib/toy
    "importance": {"effective": "real"},
    "rates": {"importance": "real"},
    "easy": {"displaced": "easy"},
    "hard": {"displaced": "hard"},
}
EFFECTS = {"importance": "importance", "rates": "learning_rate", "both": "both"}
CONSTANT = {"importance": "real", "effective": "constant", "rates": (0.3, 1.0)}
TRAININGS = {  # settings here, and those of lib/toy
    "SGD": ({}, sgd(epochs=5)),
    "LSAM": ({"method": "lsam"}, lsam(1.4, epochs=5)),
    **{part: ({"method": f"lsam-{part}"}, lsam(1.4, epochs=5, **kept)) for part, kept in PARTS.items()},
    **{
        f"fixed ratio, {name}": ({"method": f"ratio-{name}", "ratio": 2}, intervention(effect, 2.0, epochs=5))
        for name, effect in EFFECTS.items()
    },
    "easy rate": ({"method": "easy-rate", "ratio": 0.3}, ToySetting(**CONSTANT, epochs=5)),
    "SAM": ({"method": "sam", "rho": 0.4}, VariantSetting("sam", 0.4, epochs=5)),
    "a smaller last batch": ({"method": "lsam", "batch": 7}, lsam(1.4, epochs=5, batch_size=7)),
    "another width": ({"method": "lsam", "width": 13}, lsam(1.4, epochs=5, width=13)),
    "in two epochs": ({"method": "lsam", "from": 1, "to": 3}, lsam(1.4, epochs=5, ascent=(1, 3))),
}


@pytest.mark.parametrize("name", TRAININGS)
def test_steps_are_those_of_the_compiled_engine(engine, name):
    changed, setting = TRAININGS[name]
    seeds = range(3)
    expected = train([setting], seeds, trace_every=1)
    for seed in seeds:
        given = exported(seed, 5, width=setting.width)
        [found] = engine({"ask": "train", "settings": settings(**changed), "given": given})
        assert found["step"] == setting.steps
        np.testing.assert_allclose(found["head"], expected.heads[0, seed, -1], atol=2e-5)
        errors = [expected.error(feature)[0, seed, -1] for feature in ("easy", "hard", "model")]
        wrong = np.rint([2000 * error for error in errors] + [300 * expected.error("model", "train")[0, seed, -1]])
        found_wrong = [2000 * found[feature] for feature in ("easy", "hard", "model")] + [300 * found["training"]]
        assert wrong.tolist() == np.rint(found_wrong).tolist()
        mean = expected.traces[0][seed].astype(float).mean(axis=0)
        np.testing.assert_allclose(found["meanReal"], mean[1] / mean[0], rtol=1e-5)
        if setting.rho and "from" not in changed:  # the others are only measured at a radius
            np.testing.assert_allclose(found["meanPhantom"], mean[3] / mean[2], rtol=1e-4)
            last = expected.traces[0][seed][-setting.steps // 5 :].astype(float).mean(axis=0)
            np.testing.assert_allclose(found["phantom"], last[3] / last[2], rtol=1e-4)


def test_weights_and_contributions_are_those_of_the_decomposition(engine, browser, address):
    rho, seed = 1.4, 2
    result = train([lsam(rho, epochs=5)], [seed], keep_nets=True)
    expected = decompose(result, 0, 0, rho)
    begin = {"ask": "start", "settings": [settings(method="lsam", rho=rho)], "given": [exported(seed, 5)]}
    _, [found] = engine(begin, {"ask": "advance", "steps": 300, "picture": True})
    picture = {name: np.array(found["picture"][name]) for name in ("margins", "real", "phantom")}
    np.testing.assert_allclose(picture["margins"], np.concatenate([expected.easy[0], expected.hard[0]]), atol=1e-4)
    np.testing.assert_allclose(picture["real"], expected.real[0], rtol=1e-3)
    np.testing.assert_allclose(picture["phantom"], expected.phantom[0], rtol=1e-3)
    with Laboratory(browser, address) as visit:
        drawn = "weights => [toyDrawing.gini(weights), toyDrawing.lorenz(weights)]"
        coefficient, shares = visit.page.evaluate(drawn, picture["phantom"].tolist())
    assert coefficient == pytest.approx(gini(picture["phantom"]))
    np.testing.assert_allclose(shares, lorenz_curve(picture["phantom"])[1], atol=1e-9)


def test_mean_errors_of_own_random_numbers_agree_in_distribution(engine):
    epochs, seeds = 60, range(20)
    expected = train([sgd(epochs=epochs), lsam(1.4, epochs=epochs)], seeds).error("hard")[..., -1]
    trainings = [settings(method=method, epochs=epochs, seed=seed) for method in ("sgd", "lsam") for seed in seeds]
    answers = engine(*({"ask": "train", "settings": one} for one in trainings))
    found = np.array([one["hard"] for one in answers]).reshape(expected.shape)
    for mine, theirs in zip(found, expected):
        low, high = stats.ttest_ind(mine, theirs, equal_var=False).confidence_interval(0.95)
        assert low < 0 < high
        assert high - low < 0.2  # else it would say little
    assert (found[0] - found[1]).mean() > 0.2


def points(engine, **changed) -> tuple[np.ndarray, np.ndarray]:
    """The training points (n, 2, 2) and labels that the engine draws."""
    [[found]] = engine({"ask": "start", "settings": [settings(**changed)]})
    return np.array(found["picture"]["x"]).reshape(-1, 2, 2), np.array(found["picture"]["y"])


NOISES = {"gaussian": "gaussian_noise", "label": "label_noise", "dropout": "dropout", "uniform": "uniform_noise"}


def test_points_are_distributed_as_in_the_library(engine):
    for noise, level in [("gaussian", 0), *((noise, 0.3) for noise in NOISES)]:
        found, signs = points(engine, noise=noise, level=level, complexity=270)
        constants = ToyConstants(complexity=270, training_points=6000, **{NOISES[noise]: level})
        given = sample(constants, 0)
        np.testing.assert_array_equal(signs, np.where(np.arange(300) % 2, -1, 1))
        turned = [x * y[:, None, None] for x, y in ((found, signs), (given.x.reshape(-1, 2, 2), given.y))]
        for place in np.ndindex(2, 2):
            ours, theirs = (x[:, *place] for x in turned)
            assert stats.ks_2samp(ours, theirs).pvalue > 0.001, (noise, place)
        sizes = np.linalg.norm(found, axis=-1)
        assert abs(np.corrcoef(sizes.T)[0, 1]) < 0.15 or noise == "dropout"


@pytest.mark.parametrize("noise", NOISES)
def test_probing_errors_are_measured_on_clean_points(engine, noise):
    nets = np.zeros((2, 8 * 13 + 1))
    for part in map(unpack, nets):  # f(x) is the first coordinate
        part["W1"][0, :2], part["W2"][[0, 1], [0, 1]], part["w3"][:2] = (1, -1), 1, (1, -1)
    one = settings(noise=noise, level=1, complexity=15, width=8)
    [[found]] = engine({"ask": "start", "settings": [one], "given": [{"nets": nets.tolist()}]})
    assert found["easy"] == 0
    assert (found["hard"] > 0) == (noise == "uniform")  # as in the library, it belongs to the spiral
    assert found["training"] > 0


def test_nets_start_as_in_the_library(engine):
    seeds, width, place = range(200), 64, np.zeros((1, 2), np.float32)
    one = {"x": [0] * 4, "y": [1]}
    given = [{"training": one, "test": one, "order": [0]} for _ in seeds]
    [runs] = engine({"ask": "start", "settings": [settings(width=width, seed=k) for k in seeds], "given": given})
    expected = features(np.concatenate([initial_nets(seed, width) for seed in seeds]), place).ravel()
    found = np.concatenate([run["picture"]["margins"] for run in runs])
    assert stats.ks_2samp(found, expected).pvalue > 0.01
    assert found.std() == pytest.approx(expected.std(), rel=0.12)


def test_a_margin_of_zero_is_an_error(engine):
    given = {"nets": np.zeros((2, 8 * 13 + 1)).tolist()}
    [[found]] = engine({"ask": "start", "settings": [settings(width=8)], "given": [given]})
    assert [found[name] for name in ("easy", "hard", "model", "training")] == [1, 1, 1, 1]


def test_seeds_and_order_of_batches(engine):
    first, again, other = (points(engine, seed=seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any(axis=(1, 2)).all()
    whole_epochs = [settings(epochs=1, batch=batch) for batch in (5, 300)]
    heads = engine(*({"ask": "train", "settings": one} for one in whole_epochs))
    assert heads[0]["steps"] == 60 and heads[1]["steps"] == 1
    # In a whole epoch every point is used once: a batch of all is the same whatever the order.
    given = {"order": list(range(300))}
    [ordered] = engine({"ask": "train", "settings": settings(epochs=1, batch=300), "given": given})
    np.testing.assert_allclose(heads[1]["head"], ordered["head"], rtol=1e-12)
    [ordered] = engine({"ask": "train", "settings": settings(epochs=1), "given": given})
    assert heads[0]["head"] != ordered["head"]


def test_laboratory_weighs_little():
    assert sum(path.stat().st_size for path in LABORATORY.iterdir()) <= 60_000


def test_training_by_keyboard_and_in_words(browser, address):
    with Laboratory(browser, address, "#epochs=5&b.method=lsam-easy") as visit:
        page, press = visit.page, visit.page.keyboard.press
        choices = page.get_by_label("method").first.locator("option").evaluate_all("all => all.map(one => one.value)")
        assert set(choices) == {changed.get("method", "sgd") for changed, _ in TRAININGS.values()}
        page.get_by_role("button", name="One step", exact=True).focus()
        press("Enter")
        assert "Step 1 of 300, epoch 0. SGD: hard probing error " in visit.until("Step 1 ")
        press("Tab")
        press("Space")
        assert "Step 61 of 300, epoch 1. SGD: " in visit.until("Step 61 ")
        page.get_by_role("button", name="Start", exact=True).focus()
        press("Enter")
        words = r"Step 300 of 300, epoch 5\. SGD: .*\. LSAM, only w_e displaced, ρ = 1\.4: hard probing error (0\.\d+)"
        error = re.search(words, visit.until("Done"))
        assert error and visit.numbers()[0][2] == error[1]
        drawing = page.get_by_role("img", name=re.compile("^LSAM, only w_e displaced, ρ = 1.4: hard feature, error"))
        assert error[1] in drawing.get_attribute("aria-label")
        assert all(page.locator("canvas").evaluate_all("all => all.map(one => one.getAttribute('aria-label'))"))
        radius = page.get_by_label("radius ρ").first
        radius.focus()
        press("ArrowRight")
        assert "Step 0 of 300" in visit.until("Ready")
        assert radius.get_attribute("aria-valuetext") == "1.5" and "a.rho=1.5" in page.url


def test_pausing_and_beginning_again_change_no_number(browser, address):
    with Laboratory(browser, address, "#epochs=5&seed=4") as visit:
        before = visit.numbers()
        visit.press("Start")
        visit.press("Pause")
        assert "Step 300" not in visit.until("Paused")
        visit.finish()
        after = visit.numbers()
        visit.press("Reset")
        visit.until("Ready")
        assert visit.numbers() == before != after and len(after) == 8
        visit.finish()
        assert visit.numbers() == after


CHOSEN = {
    **{"preset": "early-late", "complexity": "270", "rate": "0.1", "batch": "20", "width": "32", "epochs": "10"},
    **{"noise": "label", "level": "0.05", "seed": "99999", "a.method": "ratio-both", "a.ratio": "4", "a.from": "2"},
    **{"a.to": "5", "b.method": "sam", "b.rho": "0.5", "b.to": "10"},
}


def test_link_restores_the_settings(browser, address):
    with Laboratory(browser, address, "#" + urlencode(CHOSEN)) as visit:
        assert visit.page.get_by_role("alert").inner_text() == ""
        assert "Step 0 of 150" in visit.state
        assert "fixed ratio, both, c = 4, from epoch 2 to epoch 5: " in visit.state
        assert "full SAM, ρ = 0.5, from epoch 1 to the end: " in visit.state
        for label in ("to epoch 5", "to the end"):
            assert visit.page.get_by_label(label, exact=True).count() == 1
        written = visit.page.get_by_role("link", name="Link to these settings").get_attribute("href")
        assert dict(parse_qsl(written[1:])) == CHOSEN
        visit.finish()
        before = visit.numbers()
        visit.page.reload()
        visit.until("Ready")
        visit.finish()
        assert visit.numbers() == before


REFUSED = ["rho=1", "a.rho=1.45", "a.rho=", "seed=-1", "seed=1e5", "seed=1.5", "a.method=adam", "a.method=toString"]
REFUSED += ["seed=100000", "preset=figure-9", "epochs=7", "colour=red"]


def test_what_a_link_may_not_say_is_told_and_left_out(browser, address):
    with Laboratory(browser, address) as visit:
        for word in REFUSED:
            visit.page.goto(f"{address}#{word}&complexity=180")
            visit.page.reload()
            visit.until("Ready")
            alert = visit.page.get_by_role("alert").inner_text()
            assert word in alert and "complexity" not in alert
            written = visit.page.get_by_role("link", name="Link to these settings").get_attribute("href")
            assert written == "#preset=figure-1&complexity=180"


@pytest.mark.parametrize("preset", ["figure-1", "figure-3", "figure-5", "effects", "early-late", "parts", "easy-rate"])
def test_preset_trains_two_nets(browser, address, preset):
    with Laboratory(browser, address, "#epochs=20&seed=3") as visit:
        visit.page.get_by_label("Show").select_option(preset)
        visit.page.wait_for_url(re.compile(f"preset={preset}&epochs=20&seed=3"))
        visit.until("Ready")
        assert "Step 1200 of 1200" in visit.finish()
        _, first, second = zip(*visit.numbers())
        assert np.isfinite(np.array([first, second], dtype=float)).all()
        assert first != second


@pytest.mark.parametrize("preset, count, seeds", [("figure-2", 18, 1), ("figure-6", 24, 2)])
def test_sweep_trains_what_it_draws(browser, address, engine, preset, count, seeds):
    with Laboratory(browser, address, f"#preset={preset}&epochs=5&seeds={seeds}&seed=9") as visit:
        assert f"{count * seeds} of {count * seeds} trainings" in visit.finish()
        visit.page.get_by_text("The numbers").click()
        rows = {row[0]: row[1:] for row in visit.numbers()}
    assert len(rows) == count
    name, changed = "LSAM, ρ = 1.2", {}
    if preset == "figure-2":
        name, changed = f"{name}, κ = 270°", {"complexity": 270}
    one = settings(method="lsam", rho=1.2, **changed)
    found = engine(*({"ask": "train", "settings": one | {"seed": 9 + k}} for k in range(seeds)))
    means = [np.mean([each[measure] for each in found]) for measure in ("hard", "meanPhantom", "meanReal")]
    assert rows[name][3] == str(seeds)
    np.testing.assert_allclose(np.array(rows[name][:3], dtype=float), means, atol=5.1e-4)


def test_diverged_net_is_told(browser, address):
    link = "#epochs=5&rate=0.2&batch=1&level=1&a.method=ratio-both&a.ratio=8&b.method=sgd"
    with Laboratory(browser, address, link) as visit:
        assert re.search("fixed ratio, both, c = 8: diverged. SGD: hard probing error 0", visit.finish())
        assert visit.numbers()[0] == ["hard probing error", "–", visit.numbers()[0][2]]


@pytest.mark.parametrize("link", ["", "#preset=figure-2", "#preset=figure-6"])
def test_fits_a_phone(browser, address, link):
    with Laboratory(browser, address, link, viewport=PHONE) as visit:
        assert visit.is_narrow
        sizes = "all => all.filter(one => one.innerText).map(one => parseFloat(getComputedStyle(one).fontSize))"
        texts = visit.page.locator("#laboratory :is(p, small, label, figcaption, td, button)")
        assert min(texts.evaluate_all(sizes)) >= 11


def test_drawings_follow_the_dark(browser, address):
    with Laboratory(browser, address) as visit:
        brightness = {}
        for theme in ("light", "dark"):
            visit.page.evaluate("theme => (document.documentElement.dataset.theme = theme)", theme)
            visit.page.evaluate("new Promise(requestAnimationFrame)")
            pictures = visit.page.locator("canvas:visible").all()
            brightness[theme] = [np.asarray(Image.open(io.BytesIO(one.screenshot()))).mean() for one in pictures]
        assert len(brightness["light"]) == 9
        assert all(dark < light for dark, light in zip(brightness["dark"][:4], brightness["light"][:4]))


def test_unwelcome_motion_is_left_out(browser, address):
    draws = """() => {
        const { contour } = toyDrawing;
        window.draws = 0;
        toyDrawing.contour = (...given) => (window.draws++, contour(...given));
    }"""
    counts = {}
    for motion in ("reduce", "no-preference"):
        with Laboratory(browser, address, "#epochs=10", reduced_motion=motion) as visit:
            visit.page.evaluate(draws)
            visit.press("Start")
            visit.until("Done")
            counts[motion] = visit.page.evaluate("window.draws")
    assert counts["reduce"] == 4  # two nets, two features, once
    assert counts["no-preference"] > 40
