"""JupyterLab as a user has it: a notebook opened, run, and looked at."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import nbformat
import pytest
from studies import wait_for

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
QUIET = [  # nothing asked of a network
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.news_url=None",
    "--LabApp.extension_manager=readonly",
]
ALL_CELLS = "return [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')]"
PROMPTS = f"{ALL_CELLS}.map(prompt => prompt.innerText.trim())"
SETTINGS = {  # every cell is in the page, also those below the window
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


@dataclass(frozen=True)
class Lab:
    """A running server: its address without a path, its token, its notebooks."""

    address: str
    token: str
    notebooks: Path


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[Lab]:
    home = tmp_path_factory.mktemp("lab")
    notebooks = home / "project" / "notebooks"
    shutil.copytree(ROOT / "notebooks", notebooks)
    shutil.copytree(ROOT / "results", home / "project" / "results")
    for plugin, settings in SETTINGS.items():
        path = home / "settings" / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(settings))
    folders = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    environment = os.environ | {name: str(home / folder) for name, folder in folders.items()}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0"]
    command += [f"--notebook-dir={notebooks}", "--IdentityProvider.token=reader", *QUIET]
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        described = partial(home.glob, "runtime/jpserver-*.json")
        wait_for(lambda: any(path.stat().st_size for path in described()) or server.poll())
        (description,) = described()
        port = json.loads(description.read_text())["port"]
        yield Lab(f"http://127.0.0.1:{port}", "reader", notebooks)
    finally:
        server.terminate()
        server.wait()


def idle(lab: Lab, name: str) -> bool:
    """Whether the kernel of a notebook has started and waits, as the server says."""
    with urlopen(f"{lab.address}/api/sessions?token={lab.token}") as answer:
        sessions = json.load(answer)
    states = [each["kernel"]["execution_state"] for each in sessions if each["path"] == name]
    return states == ["idle"]


def choose_run_all(browser) -> bool:
    """Open the menu Run and choose Run All Cells; False as long as that is greyed out."""

    def find(selector: str, text: str):
        found = browser.driver.find_elements("css selector", selector)
        return next((item for item in found if item.text.startswith(text)), None)

    find(".lm-MenuBar-item", "Run").click()
    item = find(".lm-Menu-item:not(.lm-mod-disabled)", "Run All Cells")
    if item is None:
        browser.press("ESCAPE")
        return False
    item.click()
    return True


def run_all(browser, lab: Lab, name: str) -> None:
    """Open a notebook, run all of its cells from the menu, and wait until they have run."""
    workspace = f"{lab.address}/lab/workspaces/{Path(name).stem}"
    browser.open(f"{workspace}/tree/{name}?token={lab.token}", 1400, 1000)
    wait_for(lambda: idle(lab, name))
    wait_for(lambda: choose_run_all(browser))
    wait_for(lambda: all(text.strip("[]:").isdigit() for text in browser.run(PROMPTS)))
    wait_for(lambda: idle(lab, name))


def test_a_notebook_of_the_course_runs_from_the_menu(lab, browser) -> None:
    run_all(browser, lab, "03_resnextify.ipynb")
    errors = (
        "[data-mime-type='application/vnd.jupyter.stderr'], .jp-RenderedText[data-mime-type*=error]"
    )
    assert browser.run(f"return document.querySelectorAll(`{errors}`).length") == 0
    pictures = "[...document.querySelectorAll('.jp-OutputArea-output img')]"
    assert browser.run(f"return {pictures}.filter(img => img.naturalWidth > 100).length") >= 3
    assert browser.run(f"return {pictures}.every(img => img.alt.length > 20)")
    browser.run(f"{pictures}[0].scrollIntoView()")
    browser.screenshot("lab-notebook")
    browser.assert_quiet(lab.address, console=False)


def test_the_explorer_in_a_notebook_follows_the_choice(lab, browser) -> None:
    from selenium.webdriver.support.ui import Select

    code = "from convnext_steps.course.widgets import explore\nexplore('gelu')"
    notebook = nbformat.read(lab.notebooks / "03_resnextify.ipynb", as_version=4)
    notebook.cells = [nbformat.v4.new_code_cell(code)]
    nbformat.write(notebook, lab.notebooks / "explore.ipynb")
    run_all(browser, lab, "explore.ipynb")

    def shown() -> str:
        return browser.run("return document.querySelector('.widget-html-content')?.innerText ?? ''")

    wait_for(lambda: "ReLU -> GELU (Section 2.6)" in shown())
    browser.screenshot("lab-explore")
    choice = browser.find(".widget-dropdown select")
    Select(choice).select_by_visible_text("inverting dimensions")
    wait_for(lambda: "+layout = 'inverted'" in shown())
    browser.assert_quiet(lab.address, console=False)
