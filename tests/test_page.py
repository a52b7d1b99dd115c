"""The served page in a browser: a picture in, explanations out, and nothing is fetched from elsewhere."""

import contextlib
import io
import json
import os
import re
import shutil
import sys
import threading

import httpx
import numpy as np
import pytest
from answered import CONTRACT, MODEL, SPECS, TRAIN
from oip_servers import Model, Output, RestServer
from PIL import Image
from servers import free_ports, running, start

from explainer_runtime import artifact, pictures
from explainer_runtime.explainers import fit
from explainer_runtime.hosts.page import Shown

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("no Chromium here: the served page is not looked at in a browser", allow_module_level=True)

from axe_playwright_python.sync_playwright import Axe  # noqa: E402
from playwright.sync_api import expect, sync_playwright  # noqa: E402

MINUTE = 60_000
expect.set_options(timeout=MINUTE)
SIZES = {"desk": (1280, 900), "phone": (390, 844)}
NAMES = ("<b>Ankle</b> boot", "T-shirt/top", "Pullover")
FILE = "<img src=x onerror=alert(1)>.png"
WATCH = """addEventListener("securitypolicyviolation", event =>
    console.error(`refused by the policy: ${event.violatedDirective} ${event.blockedURI}`))"""
TOKENS = "the-first", "the-second"


class Held:
    """The model: answers at once, or while it is held, after a few answers, not before it is let go."""

    def __init__(self):
        self.free, self.left = threading.Event(), 0
        self.free.set()

    def __call__(self, x):
        self.left -= 1
        if self.left < 0:
            self.free.wait()
        scores = MODEL(x)
        return [Output("scores", "FP32", scores.shape, scores)]

    @contextlib.contextmanager
    def holding(self):
        self.left = 5  # some may be spent on looking whether it is the same model
        self.free.clear()
        try:
            yield
        finally:
            self.free.set()


@pytest.fixture(scope="module")
def held():
    return Held()


@pytest.fixture(scope="module")
def place(tmp_path_factory, held):
    """A folder with an explainer of each method, the model's address and some pictures."""
    folder = tmp_path_factory.mktemp("page")
    inputs = CONTRACT.model_copy(update={"class_names": NAMES})
    for name, spec in SPECS.items():
        fitted = fit(spec, TRAIN, inputs=inputs, predictor=MODEL, surrogate=False)
        artifact.save(fitted, folder / name)
    rows = fit(SPECS["neighbours"], TRAIN.reshape(60, 36), inputs=_flat(inputs), predictor=MODEL)
    artifact.save(rows, folder / "rows")
    with RestServer(Model(respond=held)) as server:
        yield folder, f"{server.url}/m"


def _flat(inputs):
    return inputs.model_copy(update={"shape": (36,), "layout": None})


def served(place, names, log, *more):
    folder, url = place
    ports = free_ports()
    where = [f"--{name.replace('_', '-')}-port={port}" for name, port in ports._asdict().items()]
    command = [
        sys.executable,
        "-m",
        "explainer_runtime.cli",
        "serve",
        *(str(folder / name) for name in names),
    ]
    log = folder / log
    return running(start([*command, "--predictor", url, "--page", *where, *more], log), ports, log)


@pytest.fixture(scope="module")
def server(place):
    with served(place, [*SPECS, "rows"], "all.log", "--page-samples") as one:
        yield one


@pytest.fixture(scope="module")
def chromium():
    arguments = ["--no-sandbox"] if os.getuid() == 0 else []
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield running
        running.close()


@pytest.fixture
def window(chromium):
    """Opens the page of a server; at the end nothing has gone wrong in it unseen."""
    said, asked, opened = [], [], []

    def window(address, size="desk", expected=(), **more):
        wide, tall = SIZES[size]
        context = chromium.new_context(viewport={"width": wide, "height": tall}, **more)
        page = context.new_page()
        opened.append(context)
        page.set_default_timeout(MINUTE)
        page.add_init_script(WATCH)
        page.on("console", lambda one: one.type == "error" and said.append(one.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.expected = [*expected]
        page.goto(address)
        return page

    yield window
    wrong = [
        text for text in said if not any(word in text for page in pages(opened) for word in page.expected)
    ]
    for context in opened:
        context.close()
    assert wrong == []
    assert [
        url for url in asked if not url.startswith(("http://127.0.0.1:", "data:", "blob:", "file:"))
    ] == []


def pages(contexts):
    return [page for context in contexts for page in context.pages]


def png(seed=2, shape=(6, 6)):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8)).save(buffer, "PNG")
    return {"name": FILE, "mimeType": "image/png", "buffer": buffer.getvalue()}


def choose(page, **picture):
    """Choose a picture, and wait until the model has said what it is."""
    explain(page, "neighbours").wait_for()
    page.set_input_files("#file", png(**picture))
    page.locator("#model").wait_for()


def explain(page, name):
    return page.get_by_role("button", name=f"Explain with {name}", exact=True)


def answer(page, name):
    return page.locator(".answer").filter(has=page.get_by_role("heading", name=f"{name}, of ", exact=False))


def asked(page, name, **fields):
    """The answer of one explainer."""
    form = page.get_by_role("form", name=f"Options of {name}", exact=True)
    for field, value in fields.items():
        form.locator(f"[name={field}]").first.select_option(label=value)
    explain(page, name).click()
    one = answer(page, name).first
    one.wait_for()
    return one


def test_a_picture_is_explained_and_what_it_is_called_stays_text(window, server):
    page = window(server.rest("/"))
    choose(page)
    assert page.locator("#picture-name").inner_text() == FILE
    assert page.locator("#model dt").first.inner_text() in NAMES
    one = asked(page, "counterfactual")
    assert " → " in one.locator(".card h3").inner_text()
    expect(page.get_by_role("status")).to_contain_text("counterfactual has answered:")
    assert one.locator("img[src=x], b").count() == 0
    assert "The model was asked" in one.inner_text()


@pytest.mark.parametrize("name", SPECS)
def test_each_method_answers_with_its_card(window, server, name):
    page = window(server.rest("/page/"))
    choose(page)
    one = asked(page, name)
    assert one.locator(".card").count() >= 1
    assert one.locator("figure img").count() >= 2
    blind = "all => all.filter(one => !one.naturalWidth || one.alt.length < 6).map(one => one.alt)"
    assert one.locator("img").evaluate_all(blind) == []


def test_a_class_is_sought_by_its_name(window, server):
    page = window(server.rest("/"))
    choose(page)
    own = page.locator("#model dt").first.inner_text()
    sought = next(name for name in NAMES if name != own)
    one = asked(page, "counterfactual", target_class=sought)
    assert one.locator(".card h3").inner_text() == f"{own} → {sought}"


def test_what_is_left_alone_is_not_sent(window, server):
    page, sent = window(server.rest("/")), []
    page.on("request", lambda request: request.method == "POST" and sent.append(request.post_data_json))
    choose(page)
    sent.clear()
    asked(page, "counterfactual")
    assert sent[0]["parameters"] == {"explain_parameters": {}}
    form = page.get_by_role("form", name="Options of counterfactual")
    form.get_by_text("More options").click()
    form.get_by_label("tol", exact=True).fill("0.5")
    form.get_by_label("seed").fill("7")
    explain(page, "counterfactual").click()
    page.locator(".answer").nth(1).wait_for()
    assert sent[1]["parameters"] == {"explain_parameters": {"tol": 0.5, "seed": 7}}
    assert "seed: 7" in page.locator(".answer").first.inner_text()


def test_an_option_that_is_refused_is_said_by_its_name(window, server):
    page = window(server.rest("/"), expected=["422"])
    choose(page)
    form = page.get_by_role("form", name="Options of counterfactual")
    form.get_by_text("More options").click()
    form.get_by_label("tol, as a number").fill("7")
    explain(page, "counterfactual").click()
    expect(page.get_by_role("status")).to_contain_text("tol: ")
    assert page.locator(".answer").count() == 0


def test_a_picture_of_another_size_is_refused_when_it_is_chosen(window, server):
    page = window(server.rest("/"), expected=["422"])
    explain(page, "neighbours").wait_for()
    page.set_input_files("#file", png(shape=(5, 9)))
    expect(page.get_by_role("status")).to_contain_text(
        "image: expected an image 6 pixels wide and 6 high", timeout=MINUTE
    )


def test_what_the_model_says_of_one_picture_never_stands_below_another(window, server):
    page, late = window(server.rest("/")), []
    choose(page)
    model = page.locator("#model dl")
    first = model.inner_text()
    page.route("**/v2/models/counterfactual/explain", lambda route: late.append(route))
    with page.expect_request("**/v2/models/counterfactual/explain"):
        explain(page, "counterfactual").click()
    page.set_input_files("#file", {**png(seed=6), "name": "another.png"})
    expect(page.locator("#picture-name")).to_have_text("another.png")
    page.locator("#model").wait_for()
    second = model.inner_text()
    assert second != first
    late[0].continue_()
    answer(page, "counterfactual").wait_for()
    assert model.inner_text() == second


def test_what_takes_no_pictures_says_so(window, server):
    page = window(server.rest("/"))
    explain(page, "neighbours").wait_for()
    panel = page.locator(".explainer").filter(has=page.get_by_role("heading", name="rows", exact=True))
    assert "takes no pictures" in panel.inner_text()
    assert panel.get_by_role("button").count() == 0
    expect(page.locator("#jobs")).to_contain_text("keeps no jobs")


def test_progress_is_told_and_cancelling_stops_the_explanation(window, server, held):
    page = window(server.rest("/"))
    choose(page)
    asked(page, "counterfactual")
    with held.holding():
        explain(page, "counterfactual").click()
        panel = page.locator(".explainer").filter(has=explain(page, "counterfactual"))
        expect(panel.get_by_role("progressbar")).to_have_attribute("value", re.compile("."))
        expect(panel).to_contain_text("the model was asked about")
        panel.get_by_role("button", name="Cancel").click()
        expect(panel).to_contain_text("Cancelled")
    assert page.locator(".answer").count() == 1
    explain(page, "counterfactual").click()
    page.locator(".answer").nth(1).wait_for()


def test_the_slider_uncovers_one_picture_over_the_other(window, server):
    page = window(server.rest("/"))
    choose(page)
    one = asked(page, "counterfactual")
    slider, shown = one.get_by_role("slider"), "one => getComputedStyle(one).getPropertyValue('--shown')"
    slider.focus()
    # The handle parts the picture: what was sent is on its left, as the words above say.
    page.keyboard.press("End")
    assert one.locator(".stage").evaluate(shown) == "0"
    assert one.locator(".halves span").all_inner_texts() == ["input", "counterfactual"]
    page.keyboard.press("Home")
    assert one.locator(".stage").evaluate(shown) == "1"
    one.get_by_label("mix the two").check()
    assert (one.locator(".stage").evaluate(shown), slider.input_value()) == ("1", "100")
    before = one.locator(".stage .after").get_attribute("src")
    one.get_by_label("difference").check()
    assert one.locator(".stage .after").get_attribute("src") != before
    assert "difference" in slider.get_attribute("aria-label")


def test_only_what_was_painted_is_changed(window, server):
    page = window(server.rest("/"))
    choose(page)
    form = page.get_by_role("form", name="Options of counterfactual")
    form.get_by_label("Change only what I paint").check()
    explain(page, "counterfactual").click()
    expect(page.get_by_role("status")).to_contain_text("Paint on the picture first")
    box = page.locator("#frame canvas").bounding_box()
    page.locator("#brush-size").fill("1")
    page.mouse.move(box["x"] + 1, box["y"] + 1)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 2, box["y"] + 1)  # at once: what lies between counts
    page.mouse.up()
    expect(page.locator("#brush")).to_contain_text("6 of 36 pixels may change")
    with page.expect_download() as file:
        one = asked(page, "counterfactual")
        one.get_by_role("button", name="as JSON").click()
    said = json.loads(file.value.path().read_text(encoding="utf-8"))
    changed = np.array(said["data"]["counterfactual"][0])[..., 0] - pixels() / 255
    assert np.abs(changed[1:]).max() < 1e-6
    assert said["meta"]["spec"]["region"] == [[[row == 0]] * 6 for row in range(6)]


def pixels(seed=2):
    return np.asarray(Image.open(io.BytesIO(png(seed)["buffer"]))).astype(float)


def test_answers_are_taken_home_as_picture_and_page(window, server, tmp_path):
    page = window(server.rest("/"))
    choose(page)
    one = asked(page, "region")
    with page.expect_download() as file:
        one.get_by_role("button", name="as a picture").click()
    assert file.value.path().read_bytes().startswith(b"\x89PNG")
    with page.expect_download() as file:
        one.get_by_role("button", name="as a page").click()
    file.value.save_as(tmp_path / "taken.html")
    own = window((tmp_path / "taken.html").as_uri())
    assert own.locator(".card h3").inner_text() == one.locator(".card h3").inner_text()
    own.get_by_role("button", name="Compare with a slider").click()
    assert own.get_by_role("slider").is_visible()


def test_a_known_picture_can_be_tried(window, server):
    page = window(server.rest("/"))
    page.get_by_role("button", name="Known picture 1").click()
    page.locator("#model").wait_for()
    asked(page, "neighbours")


def test_known_pictures_are_the_rows_that_explainers_keep(place):
    files = Shown(samples=[place[0] / "neighbours"]).files()
    samples = [file for path, file in files.items() if path.startswith("/page/samples/")]
    assert len(samples) == 8
    for file, row in zip(samples, TRAIN, strict=False):
        sent = pictures.read(io.BytesIO(file.content), CONTRACT, "it")
        assert np.abs(sent.row - row).max() <= 0.5 / 255 + 1e-6  # a picture has 256 levels
        assert not file.open


def test_everything_can_be_done_with_keys(window, server):
    page = window(server.rest("/"))
    choose(page)
    form = page.get_by_role("form", name="Options of counterfactual")
    form.get_by_label("Change only what I paint").focus()
    page.keyboard.press("Space")
    page.locator("#frame canvas").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    expect(page.locator("#brush")).to_contain_text("pixels may change. At row 4, column 5.")
    page.get_by_role("button", name="All of it").press("Enter")
    explain(page, "counterfactual").press("Enter")
    answer(page, "counterfactual").wait_for()
    assert page.evaluate("document.activeElement.textContent").startswith("counterfactual, of ")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "PNG"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_keeps_the_rules_of_accessibility(window, server, size, scheme):
    page = window(server.rest("/"), size, color_scheme=scheme, reduced_motion="reduce")
    choose(page)
    page.get_by_role("form", name="Options of counterfactual").get_by_label("Change only").check()
    asked(page, "neighbours")
    asked(page, "attribution")
    for folded in page.get_by_text("More options").all():
        folded.click()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    found = Axe().run(page).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []


def test_below_a_path_of_a_proxy_it_is_the_same(window, server):
    page = window("about:blank")

    def stripped(route):
        address = route.request.url.replace("/team/explainers/", "/", 1)
        route.fulfill(response=route.fetch(url=address, max_redirects=0, timeout=MINUTE))

    page.route("**/team/explainers/**", stripped)
    asked_for = []
    page.on("request", lambda request: asked_for.append(request.url))
    page.goto(server.rest("/team/explainers/page/"))
    choose(page)
    asked(page, "neighbours")
    own = ("blob:", "data:", server.rest("/team/explainers/"))
    assert [url for url in asked_for if not url.startswith(own)] == []


def test_a_token_is_asked_for_and_another_one_as_well(window, place):
    file = place[0] / "tokens"
    file.write_text("\n".join(TOKENS))
    file.chmod(0o600)
    guard = json.dumps({"token_file": str(file)})
    more = ("--page-samples", "--guard", guard, "--jobs", str(place[0] / "jobs"))
    with served(place, ["neighbours"], "token.log", *more) as server:
        page = window(server.rest("/"), expected=["401"])
        page.get_by_label("Token", exact=True).fill("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_contain_text("does not know that token")
        page.get_by_label("Token", exact=True).fill("“the-first”")  # no header can carry it
        page.keyboard.press("Enter")
        expect(page.get_by_label("Token", exact=True)).to_have_value("")
        expect(page.get_by_role("dialog")).to_be_visible()
        page.get_by_label("Token", exact=True).fill(TOKENS[0])
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Known picture 1").wait_for()
        choose(page)
        asked(page, "neighbours")
        page.get_by_role("button", name="Explain with neighbours as a job").click()
        page.get_by_role("button", name="Open: neighbours").click()
        page.locator(".answer").nth(1).wait_for()
        first, second = page.locator(".card h3").all_inner_texts()
        assert first == second
        headers = {"authorization": f"Bearer {TOKENS[0]}", "prefer": "respond-async", "accept": "image/png"}
        files = {"image": ("x", png()["buffer"])}
        url = server.rest("/v2/models/neighbours/explain")
        assert httpx.post(url, files=files, headers=headers, timeout=60).status_code == 202
        page.get_by_role("button", name="Explain with neighbours as a job").click()
        opens = page.get_by_role("button", name="Open: neighbours")
        expect(opens).to_have_count(3)
        with page.expect_download() as kept:
            opens.nth(1).click()
        assert kept.value.suggested_filename.endswith(".png")
        assert kept.value.path().read_bytes().startswith(b"\x89PNG")
        page.get_by_role("button", name="Use another token").click()
        page.get_by_label("Token", exact=True).fill(TOKENS[1])
        page.keyboard.press("Enter")
        expect(page.locator("#jobs")).to_contain_text("There are none yet")
        assert page.locator(".answer").count() == 0
        choose(page)
        asked(page, "neighbours")
        assert (
            page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
            == '[{},{},""]'
        )


def test_a_server_that_is_gone_for_a_while_loses_nothing(window, place):
    with served(place, ["neighbours"], "first.log") as first:
        page = window(first.rest("/"), expected=["net::ERR_"])
        choose(page)
    explain(page, "neighbours").click()
    expect(page.get_by_role("status")).to_contain_text("cannot be reached now")
    with served(place, ["neighbours"], "second.log") as second:
        # Another port, as if it had the first one's: that may be somebody else's by now.
        page.route(
            "**/v2/**",
            lambda route: route.fulfill(
                response=route.fetch(
                    url=route.request.url.replace(first.rest("/"), second.rest("/")), timeout=MINUTE
                )
            ),
        )
        asked(page, "neighbours")
