"""The dashboard in a real browser, on this folder's results, built or published: `make e2e`.

Screenshots go to `data/run/screenshots`, or where CAMDRIFT_SCREENSHOTS names another folder.
"""

import re
import time
from urllib.parse import parse_qs, urlsplit

import pytest
from browser import (
    BROWSER,
    WIDE,
    address,
    api,
    built,
    choices,
    choose,
    chromium,
    click,
    opened,
    picture,
    settled,
)

from conftest import ROOT

axe = pytest.importorskip("axe_playwright_python.sync_playwright")
PAGES = {
    "answer": "The answer so far", "overview": "Layer drift", "claims": "Claims",
    "layers": "Layers", "image": "Image", "compare": "Compare",
    "detectors": "Detectors", "signatures": "Signatures", "models": "Models",
    "revisions": "Experiments and revisions", "provenance": "Provenance",
}  # fmt: skip
STUDY = {"detectors": "detectors", "signatures": "inspecting", "models": "generalising"}
BUILT = (ROOT / "data" / "studies" / "layers" / "fgsm" / "cam" / "values.npy").exists()

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium: e2e was not run")


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
            if kind in ("light", "dark"):
                barriers = axe.Axe().run(page)
                assert not barriers.violations_count, barriers.generate_report()


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


def test_the_first_page_is_light(chromium, address):
    """At most 6 MB, with all that Streamlit loads into a browser that was never here."""
    context = chromium.new_context()
    page, sizes = context.new_page(), []
    network = context.new_cdp_session(page)
    network.send("Network.enable")
    network.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    network.on("Network.webSocketFrameReceived",
               lambda event: sizes.append(len(event["response"]["payloadData"])))  # fmt: skip
    page.goto(address)
    page.get_by_text("Every claim on all evidence").first.wait_for()
    settled(page)
    context.close()
    print(f"first load: {sum(sizes) / 1e6:.1f} MB")
    assert 1e5 < sum(sizes) < 6e6


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


def test_a_tap_on_the_strip_opens_its_own_field(address, chromium):
    """Plotly alone opens the field of the tap before: a finger does not move to where it taps."""
    field = """(plot, [layer, row]) => {
        const box = plot.getBoundingClientRect(), layout = plot._fullLayout;
        return [box.x + layout.xaxis._offset + layout.xaxis.c2p(layer),
                box.y + layout.yaxis._offset + layout.yaxis.c2p(row)];
    }"""
    tablet = {"has_touch": True, "is_mobile": True, "viewport": {"width": 820, "height": 1100}}
    with opened(chromium, f"{address}/layers?cell=fgsm", **tablet) as page:
        plot = page.get_by_test_id("stPlotlyChart").first.locator(".js-plotly-plot")
        page.wait_for_timeout(2000)
        labels = plot.evaluate("plot => plot._fullData[0].x")
        for layer, row, strength in ((2, 0, "25 %"), (5, 1, "50 %"), (1, 2, "100 %")):
            page.touchscreen.tap(*plot.evaluate(field, [layer, row]))
            text = f"Layer {labels[layer]}, strength {strength}"
            page.get_by_role("heading", name=text, exact=True).wait_for(timeout=10_000)
            settled(page)
            page.wait_for_timeout(1000)


def test_a_click_on_a_bar_shows_the_images_of_its_scores(built, chromium):
    bar = """plot => {
        const box = plot.getBoundingClientRect(), layout = plot._fullLayout;
        const trace = plot._fullData[0], high = Math.max(...trace.y);
        const x = trace.x[trace.y.indexOf(high)];
        return [box.x + layout.xaxis._offset + layout.xaxis.d2p(x),
                box.y + layout.yaxis._offset + layout.yaxis.c2p(high / 2)];
    }"""
    where = f"{built}/detectors?study=tiny_detectors&cell=tiny_dlfuzz"
    with opened(chromium, where, viewport={"width": 1440, "height": 1800}) as page:
        before = choices(page)["Scores (number of images)"]
        click(page, bar, lambda: page.wait_for_function("location.search.includes('bin_')",
                                                        timeout=10_000))  # fmt: skip
        settled(page)
        shown = choices(page)["Scores (number of images)"]
        assert shown != before
        images = int(shown.rpartition("(")[2].rstrip(")"))
        assert page.get_by_test_id("stImage").count() == min(images, 24)


def test_a_page_is_kept_as_one_file(built, chromium, tmp_path):
    with opened(chromium, f"{built}/image?study=tiny&in_cell=tiny_fgsm") as page:
        page.wait_for_load_state("networkidle")  # pictures of a run before are no longer served
        page.get_by_role("button", name="Next").click()
        page.wait_for_function("location.search.includes('image=')", timeout=10_000)
        settled(page)
        page.wait_for_load_state("networkidle")
        shown, url = page.get_by_test_id("stImage").count(), page.url
        with page.expect_download() as download:
            page.get_by_role("button", name="This page as HTML").click()
        download.value.save_as(tmp_path / "kept.html")
    with opened(chromium, (tmp_path / "kept.html").as_uri(), settle=False) as page:
        assert page.title() == "Image: tiny"
        text = page.locator("body").inner_text()
        address = re.search(r"Address: (\S+)", text)[1]
        assert parse_qs(urlsplit(address).query) == parse_qs(urlsplit(url).query)
        assert address.startswith(url.partition("?")[0])
        assert page.locator("img").count() == shown + 1  # and the chart
        assert all(page.locator("img").evaluate_all("all => all.map(i => i.naturalWidth > 0)"))
        picture(page, "kept_as_html")


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
