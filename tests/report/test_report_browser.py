"""The page in a real browser, opened from the disk."""

import base64
import os
from pathlib import Path

import pytest

BROWSER, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
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


@pytest.mark.parametrize("selector", ["table.results", "table.matrix", "figure svg", ".views img", "button.number"])
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


def test_a_click_shows_and_selects_the_id(page):
    assert all(box["height"] == 0 for box in boxes(page, "td .id"))
    number = page.find_element("css selector", "button.number")
    page.execute_script(
        "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'}); arguments[0].click()", number
    )
    shown = [box for box in boxes(page, "td .id") if box["height"] > 0 and box["width"] > 0]
    assert len(shown) == 1
    assert page.execute_script("return getSelection().toString()").strip() == number.get_attribute("data-id")


def test_all_ids_can_be_shown(page):
    page.find_element("id", "show-ids").click()
    assert all(box["height"] > 0 for box in boxes(page, "td .id"))


@pytest.mark.parametrize("width", [1280, 420])
def test_the_page_fits_the_window(page, width):
    assert len(screenshot(page, width)) > 50_000
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
