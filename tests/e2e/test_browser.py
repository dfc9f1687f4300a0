"""The dashboard in a real browser, on this folder's results, built or published: `make e2e`.

Screenshots go to `data/run/screenshots`, or where CAMDRIFT_SCREENSHOTS names another folder.
"""

import contextlib
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from conftest import ROOT

api = pytest.importorskip("playwright.sync_api")

PICTURES = Path(os.environ.get("CAMDRIFT_SCREENSHOTS", ROOT / "data" / "run" / "screenshots"))
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
PAGES = {
    "answer": "The answer so far", "overview": "Layer drift", "claims": "Claims",
    "layers": "Layers", "image": "Image", "compare": "Compare",
    "detectors": "Detectors", "signatures": "Signatures", "models": "Models",
    "revisions": "Experiments and revisions", "provenance": "Provenance",
}  # fmt: skip
STUDY = {"detectors": "detectors", "signatures": "inspecting", "models": "generalising"}
# Probes of Streamlit's own at a deep link, and fonts of icons that no machine need reach.
HARMLESS = re.compile(r"_stcore|fonts\.gstatic\.com|favicon")
WIDE = {"width": 1440, "height": 1000}
BUILT = (ROOT / "data" / "studies" / "layers" / "fgsm" / "cam" / "values.npy").exists()

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium: e2e was not run")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A dashboard on the repository's own results."""
    with served(ROOT) as url:
        yield url


@pytest.fixture(scope="module")
def built(tiny) -> Iterator[str]:
    """A dashboard on the tiny study, with all that its stages wrote."""
    with served(tiny.folder) as url:
        yield url


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "streamlit", "run", "dashboard/app.py", "--server.headless=true",
        f"--server.port={port}", "--server.fileWatcherType=none",
    ]  # fmt: skip
    # Not a pipe: one that is closed before the server's parting words keeps it from ending.
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    try:
        for _ in range(240):
            assert server.poll() is None, "the dashboard ended before it listened"
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://localhost:{port}/_stcore/health", timeout=1)
                break
            time.sleep(0.25)
        else:
            pytest.fail("the dashboard did not listen within a minute")
        yield f"http://localhost:{port}"
    finally:
        server.terminate()
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            server.kill()


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=BROWSER,
            args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
        )
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(chromium, url: str, **how) -> Iterator:
    """A page that has finished its first run, which must say nothing on the console."""
    faults: list[str] = []
    context = chromium.new_context(**{"viewport": {"width": 1280, "height": 1000}} | how)
    page = context.new_page()
    page.on("pageerror", lambda fault: faults.append(str(fault)))
    page.on("console", lambda message: message.type == "error"
            and not HARMLESS.search(f"{message.text} {message.location.get('url', '')}")
            and faults.append(message.text))  # fmt: skip
    page.goto(url)
    page.get_by_role("heading").first.wait_for(timeout=30_000)
    settled(page)
    yield page
    assert not faults
    assert page.get_by_test_id("stException").count() == 0
    context.close()


def settled(page) -> None:
    """Waits until a run of the script has ended."""
    page.wait_for_function(
        "document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning'",
        timeout=30_000,
    )


def picture(page, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.wait_for_function("!document.querySelector('[data-testid=stSkeleton]')")
    page.wait_for_timeout(800)  # charts draw after their run has ended
    content = io.BytesIO(page.screenshot())
    # 256 colours, a third of the bytes: some of these are in the README.
    Image.open(content).convert("RGB").quantize(256).save(PICTURES / f"{name}.png", optimize=True)


@pytest.mark.parametrize("name", PAGES)
def test_every_page_in_light_dark_and_on_a_phone(address, chromium, name):
    url = f"{address}/{'' if name == 'answer' else name}"
    url += f"?study={STUDY[name]}" if name in STUDY else ""
    for kind, how in {
        "light": {},
        "dark": {"color_scheme": "dark"},
        "phone": {"viewport": {"width": 390, "height": 844}},
        "wide": {"viewport": {"width": 2560, "height": 1440}},
    }.items():
        with opened(chromium, url, **how) as page:
            picture(page, f"{name}_{kind}")
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= page.viewport_size["width"], f"{name} is wider than a {kind} screen"
            unnamed = page.locator("img:not([alt]), img[alt='']").count()
            assert not unnamed, f"{unnamed} images of {name} have no alt text"


def test_the_first_page_is_soon_there(address, chromium):
    """Wanted are 3 s on a quiet machine; twice that is allowed to one that is busy."""
    with opened(chromium, address) as page:
        page.reload()
        start = time.perf_counter()
        page.goto(address)
        page.get_by_text("Every claim on all evidence").first.wait_for()
        settled(page)
        took = time.perf_counter() - start
    print(f"first page: {took:.1f} s")
    assert took < 6


def test_a_choice_is_in_the_address_and_an_address_is_a_choice(address, chromium):
    with opened(chromium, f"{address}/layers") as page:
        page.get_by_role("combobox", name=re.compile("Shows")).click()
        page.get_by_role("option", name=re.compile("^similarity under attack")).click()
        settled(page)
        assert "measure=similarity" in page.url
        again = page.url
    with opened(chromium, again) as page:
        box = page.get_by_role("combobox", name=re.compile("Shows"))
        assert "similarity under attack" in (box.get_attribute("aria-label") + box.input_value())


def choices(page) -> dict[str, str]:
    """What the page's boxes of choices show, by their labels."""
    boxes = page.get_by_test_id("stSelectbox")
    boxes.nth(1).wait_for()  # the first is the sidebar's, which every page begins with
    settled(page)
    return {
        boxes.nth(i).locator("label").inner_text(): boxes.nth(i).locator("input").input_value()
        or boxes.nth(i).inner_text()
        for i in range(boxes.count())
    }


def choose(page, label: str, option: str) -> None:
    page.get_by_role("combobox", name=re.compile(label)).click()
    page.get_by_role("option", name=option, exact=True).click()
    page.wait_for_timeout(500)  # until the run has begun
    settled(page)


@pytest.mark.parametrize(
    ("where", "other"),
    [
        ("layers?study=layers&cell=fgsm&rows=methods", "nips17_squeezenet1_1"),
        ("layers?study=nips17_squeezenet1_1&cell=squeezenet1_1_pgd&layer=0", "layers"),
        ("detectors?study=detectors&cell=pgd&prevalence=40", "nips17_resnet18_detectors"),
        ("claims?study=layers&claim=A9&verdicts=holds", "generalising"),
    ],
)
def test_after_a_change_of_study_the_address_is_what_the_screen_shows(
    address, chromium, where, other
):
    with opened(chromium, f"{address}/{where}") as page:
        choose(page, "Study", other)
        shown, url = choices(page), page.url
        assert shown["Study"] == other
    with opened(chromium, url) as page:
        assert choices(page) == shown


def test_look_at_this_image_from_choices_that_are_not_the_default(built, chromium):
    """Another study's cell, strength, policy and score: the page of images opens with them."""
    where = "layers?study=tiny&cell=tiny_dlfuzz&target=the+clean+image%27s+class&strength=200+%25"
    with opened(chromium, f"{built}/{where}&score=ssim&layer=1-1", viewport=WIDE) as page:
        rows = page.get_by_test_id("stDataFrame").first
        rows.scroll_into_view_if_needed()
        box = rows.bounding_box()
        link = page.get_by_role("link", name=re.compile("Look at this image"))
        for last in (False, False, True):
            page.mouse.click(box["x"] + 15, box["y"] + 52)  # the first row's mark
            try:
                link.wait_for(timeout=10_000)
                break
            except api.TimeoutError:
                if last:
                    raise
        link.click()
        page.wait_for_url(re.compile("/image"))
        page.get_by_role("heading", name="Image", exact=True).wait_for()
        settled(page)
        picture(page, "image_from_layers")
        shown = choices(page)
        assert shown["Cell"] == "tiny_dlfuzz"
        assert shown["Changed maps explain"] == "the clean image's class"
        assert page.get_by_text("200 %").count()
        image = shown["Image"]
        assert page.get_by_text(f"{image}: labelled").count() == 1
        url = page.url
    with opened(chromium, url, viewport=WIDE) as page:
        assert choices(page) == shown


def click(page, place: str, happened) -> None:
    """Clicks a place of the first chart, found by a script; a chart that still draws hears none."""
    plot = page.get_by_test_id("stPlotlyChart").first.locator(".js-plotly-plot")
    for last in (False, False, True):
        page.wait_for_timeout(1500)
        page.mouse.click(*plot.evaluate(place))
        try:
            happened()
            break
        except api.TimeoutError:
            if last:
                raise


def test_a_click_on_the_matrix_opens_the_claim_on_that_study(address, chromium):
    with opened(chromium, address, viewport=WIDE) as page:
        assert page.title() == "The answer - camdrift"
        frame = page.get_by_test_id("stDataFrame").first
        frame.scroll_into_view_if_needed()
        dialog = page.get_by_role("dialog")
        for last in (False, False, True):
            box = frame.bounding_box()
            page.mouse.click(box["x"] + 700, box["y"] + 60)  # the first claim, the first study
            try:
                dialog.wait_for(timeout=10_000)
                break
            except api.TimeoutError:
                if last:
                    raise
        dialog.get_by_text("A1: An attack moves the maps").wait_for()
        settled(page)
        picture(page, "answer_field")
        link = dialog.get_by_role("link")
        study = link.inner_text().split("'")[1]
        link.click()
        page.wait_for_url(re.compile("/claims"))
        page.get_by_role("heading", name=re.compile("^A1: ")).wait_for()
        settled(page)
        assert choices(page)["Study"] == study
        assert choices(page)["Claim"] == "A1"
        assert page.title() == f"Claims: {study} - camdrift"
        shown, url = choices(page), page.url
    with opened(chromium, url, viewport=WIDE) as page:
        assert choices(page) == shown


def test_a_click_on_the_strip_opens_the_field(address, chromium):
    field = """plot => {
        const box = plot.getBoundingClientRect(), layout = plot._fullLayout;
        return [box.x + layout.xaxis._offset + layout.xaxis.c2p(2),
                box.y + layout.yaxis._offset + layout.yaxis.c2p(0)];
    }"""
    with opened(chromium, f"{address}/layers?cell=fgsm") as page:
        heading = page.get_by_role("heading", name=re.compile("^Layer 2-1, strength 25 %"))
        click(page, field, lambda: heading.wait_for(timeout=10_000))
        settled(page)
        url = page.url
        assert "layer=2-1" in url and "strength=" in url
    # The field is of the first strength, and the widget's default is another.
    with opened(chromium, url) as page:
        page.get_by_role("heading", name=re.compile("^Layer 2-1, strength 25 %")).wait_for()


def test_a_click_on_a_signature_chooses_its_image(address, chromium):
    point = """plot => {
        const box = plot.getBoundingClientRect(), layout = plot._fullLayout;
        const trace = plot._fullData.find(t => t.x.length > 1), k = trace.x.length - 1;
        return [box.x + layout.xaxis._offset + layout.xaxis.c2p(trace.x[k]),
                box.y + layout.yaxis._offset + layout.yaxis.c2p(trace.y[k])];
    }"""
    with opened(chromium, f"{address}/signatures?study=inspecting") as page:
        condition = "location.href.includes('point=')"
        click(page, point, lambda: page.wait_for_function(condition, timeout=10_000))


def test_the_keyboard_reaches_the_choices(address, chromium):
    with opened(chromium, f"{address}/claims") as page:
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.getAttribute('role')") == "combobox":
                break
        assert page.evaluate("document.activeElement.getAttribute('role')") == "combobox"


@pytest.mark.skipif(not BUILT, reason="the study's artefacts are not built here: make repro")
def test_an_image_is_stepped_through(address, chromium):
    with opened(chromium, f"{address}/image?in_cell=fgsm&order=most+drifted") as page:
        picture(page, "image_built")
        page.get_by_role("button", name="Next").click()
        page.wait_for_function("location.search.includes('image=')", timeout=10_000)
        settled(page)
        assert page.get_by_test_id("stImage").count() > 20
