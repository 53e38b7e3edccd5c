"""A headless Chromium for tests of pages: what it was asked to load and what it complained of is kept."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

OPTIONS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
]


@contextmanager
def headless(profile: Path) -> Iterator[Any]:
    """A browser with a profile of its own; without Chromium the test is skipped."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip(
            "no chromium and chromedriver on the PATH: the page is not opened (apt-get install chromium-driver)"
        )
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for each in (*OPTIONS, f"--user-data-dir={profile}"):
        options.add_argument(each)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield browser
    finally:
        browser.quit()


def complaints(browser: Any) -> list[str]:
    """What stands in the console since it was last asked."""
    return [entry["message"] for entry in browser.get_log("browser")]


def requested(browser: Any) -> list[str]:
    """Every URL that was asked for since it was last asked, but what is in the page itself."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [each["params"]["request"]["url"] for each in events if each["method"] == "Network.requestWillBeSent"]
    return [url for url in urls if not url.startswith("data:")]


def width(browser: Any, pixels: int, scheme: str = "light") -> None:
    metrics = {"width": pixels, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
