"""Pages in a browser, on a desk and on a phone: nothing is cut off, unnamed, faint, or fetched."""

import os
import shutil
from collections import Counter
from importlib.util import find_spec

import numpy as np
import pytest
from answered import CONTRACT, SPECS, X, answered

from explainer_runtime import render
from explainer_runtime.cli import answers
from explainer_runtime.demo import questions, story
from explainer_runtime.demo.report import Network, Outcome
from explainer_runtime.demo.roads import Road

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("no Chromium here: pages are not looked at in a browser", allow_module_level=True)

from axe_playwright_python.sync_playwright import Axe  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402

SIZES = {"desk": (1280, 900), "phone": (390, 844)}
PAPER = (718, 1000)
"""A sheet of A4 between its margins."""
ONE_LINE = ".over, figcaption, .legend span"
"""What stands beside a picture, and has to be read at a glance."""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Files of pages: of every method, of answers that were not found, and the demo's."""
    folder = tmp_path_factory.mktemp("pages")
    roads = []
    for question, name in zip(questions.QUESTIONS, ("counterfactual", *SPECS), strict=True):
        # Nothing was found: a card is a picture and a sentence, or an anchor's best candidate.
        for found in (True, False) if name in ("region", "anchor") else (True,):
            fitted, answer = answered(name, found)
            path = folder / f"{name}-{'found' if found else 'missed'}.html"
            path.write_bytes(answers.encoder(path)(answer, X, fitted, (), {"model": "a" * 80}))
            if found:
                roads.append(Road(question, answer, 1.0, 2.0, (), answer["found"], **others(answer.kind)))
    network = Network(0.85, 1000, 6000, "ab" * 32)
    labels, digests = ["T-shirt/top", "Pullover"], dict.fromkeys(questions.SPECS, "cd" * 32)
    outcome = Outcome(roads, X, [17, 23], labels, CONTRACT, network, network, 1, digests, 12.3, ("the roof",))
    (folder / "demo.html").write_text(story.html(outcome, folder), encoding="utf-8")
    if find_spec("pyarrow"):
        (folder / "batch.html").write_text(batch(), encoding="utf-8")
    return sorted(folder.iterdir())


def batch():
    """The page of a batch with several pictures."""
    from explainer_runtime.batch import report

    fitted, answer = answered("counterfactual", True)
    picture = render.png(answer, X, fitted.inputs)
    told = report.Outcome(Counter(ok=4), pictures=[(f"row-{row}", picture) for row in range(4)])
    source = {"kind": "npz", "records": 4, "files": 1, "sha256": "ab" * 32}
    asked = {
        "kind": answer.kind,
        "release": "1",
        "artifact": "cd" * 32,
        "model": {},
        "options": {},
        "source": source,
    }
    return report.html(told, {"asked": asked}, fitted.inputs)


def others(kind):
    """What others say of an answer of a method, in the demo."""
    if kind == "anchor_image":
        return {"precision": np.ones(2), "elsewhere": {"black": np.zeros(2)}}
    return {} if kind in ("attribution", "neighbours") else {"second": np.array([0, 1])}


@pytest.fixture(scope="module")
def browser():
    arguments = ["--no-sandbox"] if os.getuid() == 0 else []
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield running
        running.close()


def sized(browser, size):
    return browser.new_page(viewport=dict(zip(("width", "height"), size, strict=True)))


@pytest.fixture(params=SIZES)
def show(request, browser):
    """Opens a page in a window of some size, and sees to it that nothing beside it is fetched."""
    window, fetched = sized(browser, SIZES[request.param]), []
    window.on("request", lambda asked: fetched.append(asked.url))

    def show(path):
        fetched.clear()
        window.goto(path.as_uri())
        assert [url for url in fetched if not url.startswith("data:")] == [path.as_uri()]
        return window

    yield show
    window.close()


FITS = "document.documentElement.scrollWidth <= innerWidth"


def test_nothing_is_wider_than_the_window(show, pages):
    for path in pages:
        window = show(path)
        assert window.evaluate(FITS), path.name
        assert len(window.screenshot(full_page=True)) > 10_000


def test_captions_take_one_line(show, pages):
    lines = """names => [...document.querySelectorAll(names)].filter(one => {
        const range = document.createRange();
        range.selectNodeContents(one);
        return new Set([...range.getClientRects()].map(box => Math.round(box.top))).size > 1;
    }).map(one => one.textContent)"""
    for path in pages:
        assert show(path).evaluate(lines, ONE_LINE) == [], path.name


def test_every_picture_is_seen_and_described(show, pages):
    blind = "[...document.images].filter(one => !one.naturalWidth || one.alt.length < 6).map(one => one.alt)"
    for path in pages:
        window = show(path)
        assert window.evaluate(blind) == [], path.name
        assert window.evaluate("document.images.length"), path.name


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_keeps_the_rules_of_accessibility(show, pages, scheme):
    for path in pages:
        window = show(path)
        window.emulate_media(color_scheme=scheme)
        found = Axe().run(window).response["violations"]
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == [], path.name


def test_on_paper_nothing_is_folded_away_or_cut_off(browser, pages):
    window = sized(browser, PAPER)
    window.emulate_media(media="print", color_scheme="dark")
    for path in pages:
        window.goto(path.as_uri())
        assert window.evaluate(FITS), path.name
        assert window.evaluate("[...document.querySelectorAll('details dl')].every(one => one.offsetHeight)")
        assert window.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    window.close()
