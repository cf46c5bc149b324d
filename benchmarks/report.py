"""A report of many runs: how long it takes to make, how large its page is, and how long a browser takes to open it.

The runs are made up: 10 methods x 3 variants x 67 seeds, each scored by five protocols on two data sets, which gives 14
tables. Opening is timed in headless Chromium, from the disk, until the page has loaded and again until it has painted.

    python -m benchmarks.report [--seeds 67] [--keep FOLDER]
"""

import argparse
import contextlib
import os
import resource
import tempfile
import time
from pathlib import Path

from gessl.layout import report_dir
from gessl.report.step import report
from gessl.report.style import PAGE
from tests.report.tree import Tree

BROWSER, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
METHODS = ("simclr", "byol", "barlow_twins", "vicreg", "simsiam", "swav", "dino", "moco_v2", "nnclr", "w_mse")
PAINTED = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now())))"


def opened(page: Path) -> tuple[float, float]:
    """Milliseconds until the page has loaded, and until it has painted."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    try:
        driver.set_window_size(1280, 900)
        driver.get(page.resolve().as_uri())
        loaded = driver.execute_script("return performance.getEntriesByType('navigation')[0].loadEventEnd")
        return float(loaded), float(driver.execute_async_script(PAINTED))
    finally:
        driver.quit()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=67)
    options.add_argument("--keep", type=Path, help="an empty folder for the results and the page")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(chosen.keep or folder):
        tree = Tree(methods=METHODS, seeds=tuple(range(chosen.seeds)), elsewhere=("glyphs",))
        plan, began = tree.write(), time.perf_counter()
        report(plan)
        made, page = time.perf_counter() - began, report_dir(plan.grid) / PAGE
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        tables = len(list((page.parent / "tables").glob("*.csv")))
        print(f"{os.cpu_count()} cores; {len(plan.runs)} runs, {tables} tables")
        print(f"made in {made:.1f} s with {memory:.0f} MB; the page has {page.stat().st_size / 1e6:.1f} MB")
        if BROWSER.is_file() and DRIVER.is_file():
            loaded, painted = opened(page)
            print(f"Chromium: loaded after {loaded / 1000:.2f} s, painted after {painted / 1000:.2f} s")


if __name__ == "__main__":
    main()
