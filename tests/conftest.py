"""Fixtures of several files: commands, steps of one's own, and a real browser if there is one."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from convnext_steps import cli

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Browser:
    """Chromium, and what it asked the network for or complained of."""

    def __init__(self, driver, folder: Path) -> None:
        self.driver = driver
        self.folder = folder

    def open(self, address: str, width: int = 1400, height: int = 1000) -> None:
        self.size(width, height)
        self.driver.get(address)

    def size(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def run(self, script: str, *arguments):
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str):
        """The first element that a CSS selector finds."""
        return self.driver.find_element("css selector", selector)

    def press(self, *keys: str, shift: bool = False) -> None:
        """Press keys, by selenium's names for them, where the focus is."""
        from selenium.webdriver.common.keys import Keys

        for key in keys:
            held = Keys.SHIFT if shift else ""
            self.driver.switch_to.active_element.send_keys(held + getattr(Keys, key))

    def screenshot(self, name: str) -> None:
        self.driver.save_screenshot(str(self.folder / f"{name}.png"))

    def assert_quiet(self, *allowed: str, console: bool = True) -> None:
        """No request but to files and the allowed addresses, no complaint on the console."""
        log = self.driver.get_log("browser")
        told = [entry["message"] for entry in log if entry["level"] in ("WARNING", "SEVERE")]
        assert not (console and told), told
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                url = message["params"]["request"]["url"]
                assert url.startswith(("file:", "data:", "blob:", "about:", *allowed)), url


@pytest.fixture
def told(capsys):
    """Call a command that is to end with this code, and get what it printed: `out` and `err`."""

    def call(*words: object, code: int = 0):
        ended = cli.main([str(word) for word in words])
        printed = capsys.readouterr()
        assert ended == code, printed.err
        return printed

    return call


@pytest.fixture
def own_steps(monkeypatch) -> None:
    """Nothing added in a test is left for the next."""
    monkeypatch.setattr("convnext_steps.models.roadmap.OWN_STEPS", {})


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    programs = [shutil.which("chromium") or shutil.which("google-chrome")]
    programs.append(shutil.which("chromedriver"))
    if None in programs:
        pytest.skip("Chromium and chromedriver are not installed (Debian: chromium-driver)")
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = programs[0]
    profile = tmp_path_factory.mktemp("chromium")
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(programs[1]))
    driver.get("about:blank")
    driver.get_log("performance")  # of the tab that it begins with
    yield Browser(driver, tmp_path_factory.mktemp("screenshots"))
    driver.quit()
