"""Ten questions of a reader, each by its shortest way.

The docstrings say how many clicks that is; a choice in a box, or a number that is typed, is one.
"""

import re
import time

import pandas as pd
import pytest
from browser import BROWSER, WIDE, address, built, choices, choose, chromium, opened, settled

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium: e2e was not run")


def goes_to(page, title: str, heading: str) -> None:
    page.get_by_test_id("stSidebarNav").get_by_role("link", name=title, exact=True).click()
    page.get_by_role("heading", name=heading).first.wait_for(timeout=30_000)
    settled(page)


@pytest.fixture
def page(address, chromium):
    """The first page, on this folder's results."""
    with opened(chromium, address, viewport=WIDE) as page:
        yield page


@pytest.fixture
def page_of_images(built, chromium):
    """The first page, on a study with artefacts."""
    with opened(chromium, f"{built}/?study=tiny", viewport=WIDE) as page:
        yield page


def test_the_answer_and_every_claim_on_all_evidence(page):
    """Two questions; no click."""
    page.get_by_text("An attack that flips the class moves the maps").wait_for()
    page.get_by_role("heading", name="Every claim on all evidence").wait_for()
    page.get_by_test_id("stDataFrame").nth(4).wait_for()  # one for each paper


def test_claims_that_fail_on_photographs_and_why(page):
    """One click: their letter is in the matrix, and a click on the field says why."""
    matrix = page.get_by_test_id("stDataFrame").first
    matrix.scroll_into_view_if_needed()
    dialog = page.get_by_role("dialog")
    for _ in range(3):  # a grid that still draws hears no click
        box = matrix.bounding_box()
        page.mouse.click(box["x"] + 700, box["y"] + 60 + 35 * 7)  # A4, which does not hold there
        page.wait_for_timeout(3000)
        if dialog.count():
            break
    dialog.get_by_text("does not hold").first.wait_for(timeout=10_000)
    dialog.get_by_text("A4: Deeper layers deviate more").wait_for()
    dialog.get_by_text(re.compile("Study 'nips17_")).wait_for()


def test_the_image_most_drifted_at_a_layer_and_its_maps(page_of_images):
    """Three clicks; the cell is that of DLFuzz already."""
    page = page_of_images
    goes_to(page, "Image", "Image")
    choose(page, "^(Selected.*)?Images", "most drifted")
    choose(page, "Most drifted at layer", "4-1")
    page.get_by_role("heading", name="Maps of all layers").wait_for()
    assert page.get_by_text(re.compile("^1 of")).count()
    assert page.get_by_test_id("stImage").count() > 20


def test_whether_it_is_the_flip_of_the_class(page):
    """One click."""
    goes_to(page, "Study", "Drift of class-activation maps by layer")
    for title in ("own class", "clean class"):
        page.get_by_text(f"Excess, flipped, {title}", exact=True).wait_for()
    page.get_by_text("Excess, not flipped", exact=True).wait_for()


def test_two_methods_side_by_side(page_of_images):
    """One click."""
    page = page_of_images
    goes_to(page, "Compare", "Compare")
    shown = choices(page)
    assert shown["Cell, left"] == shown["Cell, right"]
    assert shown["Method, left"] != shown["Method, right"]


def test_the_threshold_of_a_rate_and_its_price(address, chromium):
    """Two clicks, from the first page of a study of detectors."""
    with opened(chromium, f"{address}/?study=detectors", viewport=WIDE) as page:
        goes_to(page, "Detectors", "Detectors")
        box = page.get_by_role("spinbutton", name="True positive rate to reach, %")
        box.fill("80")
        box.press("Enter")
        page.wait_for_timeout(500)
        settled(page)
        rates = page.get_by_test_id("stMetricValue").all_inner_texts()
        assert float(rates[0].rstrip("%")) >= 80
        page.get_by_text("False positive rate", exact=True).wait_for()
        text = page.get_by_test_id("stMain").inner_text()
        assert re.search(r"\d+% to \d+%, \d+ images", text)


def test_two_revisions(page):
    """Three clicks; 5 s are wanted, and printed."""
    goes_to(page, "Experiments and revisions", "Experiments and revisions")
    page.get_by_role("combobox", name=re.compile("Before")).click()
    option = page.get_by_role("option").nth(2)
    name = option.inner_text()
    start = time.perf_counter()
    option.click()
    page.wait_for_function("location.search.includes('before=')", timeout=30_000)
    settled(page)
    print(f"two revisions: {time.perf_counter() - start:.1f} s")
    assert choices(page)["Before"] == name
    for title in ("Changed settings", "Changed verdicts", "Changed metrics"):
        page.get_by_text(title, exact=True).wait_for()


def test_the_machine_and_the_time_behind_the_screen(page):
    """One click."""
    goes_to(page, "Provenance", "Provenance")
    text = page.get_by_test_id("stMain").inner_text()
    assert re.search(r"\d+ cores, \d+ GB", text)
    assert re.search(r"Last stage ended|The date of the run was not recorded", text)
    assert "minutes in all" in text


def test_the_table_behind_a_figure(address, chromium):
    """One click."""
    with opened(chromium, f"{address}/overview?study=layers", viewport=WIDE) as page:
        with page.expect_download() as download:
            page.get_by_role("button", name="CSV").first.click()
        table = pd.read_csv(download.value.path())
        assert {"series", "x", "y"} <= set(table.columns)
