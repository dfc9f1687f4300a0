"""A browser for the tests of this folder: the dashboard that it opens, and what it does there."""

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
# Probes of Streamlit's own at a deep link, and fonts of icons that no machine need reach.
HARMLESS = re.compile(r"_stcore|fonts\.gstatic\.com|favicon")
WIDE = {"width": 1440, "height": 1000}


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
def opened(chromium, url: str, *, settle: bool = True, **how) -> Iterator:
    """A page that has finished its first run, which must say nothing on the console.

    Without `settle` it is a page of another kind, which has no runs.
    """
    faults: list[str] = []
    context = chromium.new_context(**{"viewport": {"width": 1280, "height": 1000}} | how)
    page = context.new_page()
    page.on("pageerror", lambda fault: faults.append(str(fault)))
    page.on("console", lambda message: message.type == "error"
            and not HARMLESS.search(f"{message.text} {message.location.get('url', '')}")
            and faults.append(message.text))  # fmt: skip
    page.goto(url)
    page.get_by_role("heading").first.wait_for(timeout=30_000)
    if settle:
        settled(page)
    yield page
    assert not faults, faults
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


def choices(page) -> dict[str, str]:
    """The choices that the boxes of a page show, by their labels."""
    boxes = page.get_by_test_id("stSelectbox")
    boxes.nth(1).wait_for()  # the first is the sidebar's, which every page begins with
    before = None
    while True:  # a run may add boxes, or take some away, while they are read
        settled(page)
        shown = boxes.evaluate_all(
            "boxes => boxes.map(box => [box.querySelector('label')?.innerText ?? '',"
            " box.querySelector('input')?.value || box.innerText])"
        )
        if shown == before:
            return dict(shown)
        before = shown
        page.wait_for_timeout(200)


def choose(page, label: str, option: str) -> None:
    page.get_by_role("combobox", name=re.compile(label)).click()
    page.get_by_role("option", name=option, exact=True).click()
    page.wait_for_timeout(500)  # until the run has begun
    settled(page)


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
