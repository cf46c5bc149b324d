"""The page in a real browser, opened from the disk."""

import base64
import os
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
from tree import Tree

from gessl.layout import report_dir
from gessl.report import style
from gessl.report.step import report

BROWSER, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
AXE = Path(__file__).resolve().parents[2] / ".peers/axe_core_python/axe.min.js"
pytestmark = pytest.mark.skipif(not (BROWSER.is_file() and DRIVER.is_file()), reason="needs chromium and chromedriver")


@pytest.fixture(scope="module")
def browser():
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, demo):
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.set_window_size(1280, 900)
    browser.get((demo / "sigma-report.html").resolve().as_uri())
    return browser


def boxes(page, selector):
    script = "return [...document.querySelectorAll(arguments[0])].map(e => e.getBoundingClientRect().toJSON())"
    return page.execute_script(script, selector)


def set_width(page, width):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def screenshot(page, width):
    """PNG of the whole page; set GESSL_SCREENSHOTS to a folder to keep it."""
    set_width(page, width)
    area = page.execute_script("const r = document.documentElement; return [r.scrollWidth, r.scrollHeight]")
    clip = {"x": 0, "y": 0, "width": area[0], "height": area[1], "scale": 1}
    shot = page.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    image = base64.b64decode(shot["data"])
    if folder := os.environ.get("GESSL_SCREENSHOTS"):
        (Path(folder) / f"sigma-report-{width}.png").write_bytes(image)
    return image


def test_no_message_in_the_console(page):
    assert [entry for entry in page.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


@pytest.mark.parametrize("selector", ["table.results", "table.matrix", "figure svg", ".views img", "a.number"])
def test_tables_and_figures_are_visible(page, selector):
    found = boxes(page, selector)
    assert found and all(box["width"] > 0 and box["height"] > 0 for box in found)


def test_images_are_decoded_and_figures_have_themed_colours(page):
    script = "return [...document.images].every(i => i.complete && i.naturalWidth > 0)"
    assert page.execute_script(script)
    colour = "return getComputedStyle(document.querySelector('figure svg text')).fill"
    light = page.execute_script(colour)
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    assert page.execute_script(colour) != light
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def drawn(page):
    """Kinds of the boxes of the open picture, None where there is none."""
    script = """return document.getElementById("origin").open &&
                       [...document.querySelectorAll("dialog .picture a")].map(a => a.getAttribute("class"))"""
    return page.execute_script(script) or None


def press(page, element, key):
    page.execute_script("arguments[0].focus()", element)
    page.switch_to.active_element.send_keys(key)


MEAN_OF_THREE = Counter(
    {"number": 1, "score": 3, "evaluate": 3, "pretrain": 3, "tasks": 3, "prepare": 1, "fetch": 1, "raw-data": 1}
)


def test_a_number_opens_its_lineage_by_click_and_by_key(page):
    from selenium.webdriver.common.keys import Keys

    table = page.find_elements("css selector", "table.results")[1]  # of a protocol with tasks
    number = table.find_element("css selector", "a.number")
    page.execute_script("arguments[0].click()", number)
    assert Counter(drawn(page)) == MEAN_OF_THREE
    assert number.get_attribute("href").split("#c-")[1] in page.find_element("css selector", "dialog .command").text
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert drawn(page) is None
    press(page, number, Keys.ENTER)
    assert Counter(drawn(page)) == MEAN_OF_THREE
    press(page, page.find_element("css selector", "dialog a.pretrain"), Keys.ENTER)
    assert page.find_element("css selector", "dialog .chosen").text.startswith("pretrain digits-")
    assert "uncommitted changes" in page.find_element("css selector", "dialog .chosen").text


@pytest.mark.parametrize(
    ("mark", "first", "boxes"), [("#c-", "number", 16), ("#s-", "score", 7), ("#r-", "pretrain", 4)]
)
def test_a_point_of_a_figure_opens_its_lineage(page, mark, first, boxes):
    links = page.find_elements("css selector", f'figure svg a[href^="{mark}"]')
    if mark == "#r-":
        links = [links[-1]]  # a learning curve
    event = "arguments[0].dispatchEvent(new MouseEvent('click', {bubbles: true, cancelable: true}))"
    page.execute_script(event, links[0])
    assert drawn(page)[0] == first and len(drawn(page)) == boxes


def test_boxes_do_not_overlap_and_an_address_opens_the_picture(page):
    from selenium.webdriver.support.ui import WebDriverWait

    anchor = page.find_element("css selector", "td.delta a.number").get_attribute("href")
    page.get("about:blank")
    page.get(anchor)
    shown = boxes(page, "dialog .picture rect")
    assert len(shown) > 20 and drawn(page)[0] == "number"
    for one, other in combinations(shown, 2):
        apart = one["right"] <= other["left"] or other["right"] <= one["left"]
        assert apart or one["bottom"] <= other["top"] or other["bottom"] <= one["top"]
    page.execute_script("document.querySelector('dialog button').click()")
    WebDriverWait(page, 5).until(lambda page: "#" not in page.current_url)
    page.get(anchor)  # in the page that is open already
    assert drawn(page)[0] == "number"


def test_without_scripts_a_number_leads_to_its_entry(page):
    from selenium.webdriver.common.keys import Keys

    page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        page.get(page.current_url.split("#")[0])
        number = page.find_element("css selector", "table.results a.number")
        anchor = number.get_attribute("href")
        number.send_keys(Keys.ENTER)
        assert page.current_url == anchor
        entry = page.find_element("id", anchor.split("#")[1])
        assert entry.is_displayed() and entry.find_elements("css selector", 'a[href^="#s-"]')
    finally:
        page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_packed_records_are_there_when_they_are_asked_for(browser, project, monkeypatch):
    from selenium.webdriver.support.ui import WebDriverWait

    monkeypatch.setattr(style, "FEW", 5)
    report(Tree(seeds=(0, 1, 2), methods=("simclr",), failed=None, missing=None).write())
    address = (report_dir("demo") / "sigma-report.html").resolve().as_uri()
    browser.get(address)
    assert not browser.find_elements("css selector", "article[id^='r-']")
    number = browser.find_elements("css selector", "table.results")[1].find_element("css selector", "a.number")
    browser.execute_script("arguments[0].click()", number)
    WebDriverWait(browser, 10).until(drawn)
    assert Counter(drawn(browser)) == MEAN_OF_THREE
    score = browser.execute_script("return document.querySelector('dialog .picture a.score').getAttribute('href')")
    browser.get("about:blank")
    browser.get(address + score)
    WebDriverWait(browser, 10).until(drawn)
    assert drawn(browser)[0] == "score"
    browser.get("about:blank")
    browser.get(address)
    browser.execute_script("document.getElementById('records').open = true")
    WebDriverWait(browser, 10).until(lambda page: page.find_elements("css selector", "article[id^='r-']"))
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


def test_all_ids_can_be_shown(page):
    page.find_element("id", "show-ids").click()
    assert all(box["height"] > 0 for box in boxes(page, "td .id"))


@pytest.mark.parametrize("width", [1280, 420])
def test_the_page_fits_the_window(page, width):
    assert len(screenshot(page, width)) > 50_000
    assert page.execute_script("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_axe_finds_nothing_serious(page, width, scheme):
    """Contrast, names, roles, order: what people who see, hear or type otherwise need."""
    set_width(page, width)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    try:
        page.execute_script(AXE.read_text(encoding="utf-8"))
        found = page.execute_async_script("axe.run().then(arguments[0])")
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert found["passes"], "it looked at something"
    serious = [each for each in found["violations"] if each["impact"] in ("serious", "critical")]
    assert not serious, [(each["id"], [node["html"][:200] for node in each["nodes"][:3]]) for each in serious]
