"""The explorer: its data against the result files and the paper, its page in a real browser."""

import json
import re
from pathlib import Path

import pytest
from studies import table_of
from test_pages import Parsed

from convnext_steps import cli, load_results, load_study, roadmap
from convnext_steps.course.explorer import embedded, explorer_data

RESULTS = Path(__file__).parents[1] / "results"
DARK = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}


def data_of(page: str) -> dict:
    """The data that a page holds."""
    return json.loads(re.search(r'id="data">(.*?)</script>', page)[1])


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("explorer") / "explorer.html"
    assert cli.main(["explorer", str(path), "--results", str(RESULTS)]) == 0
    return path.read_text()


def test_the_page_is_whole_and_names_no_other_file_but_that_of_orders(page) -> None:
    parsed = Parsed(page)
    assert (parsed.parts, parsed.links) == (["data:,"], ["explorer_order.html"])
    assert "default-src 'none'" in page
    assert "{{" not in page
    data = data_of(page)
    assert list(data["regimes"]) == ["tiny", "base"]
    for regime, shown in data["regimes"].items():
        assert [step["name"] for step in shown["steps"]] == list(roadmap(regime))
        for step in shown["steps"]:
            paper = roadmap(regime)[step["name"]].paper
            assert step["paper"] == {"top1": paper.top1_mean, "std": paper.top1_std}
            assert (step["macs"], step["params"]) == (paper.macs, paper.params)
            assert step["drawing"]["svg"].startswith("<svg ")
            assert len(step["drawing"]["alternative"]) > 50


def test_our_numbers_are_those_of_the_result_files(page) -> None:
    table = table_of(RESULTS)
    steps = data_of(page)["regimes"]["tiny"]["steps"]
    shown = {step["name"]: step["ours"] for step in steps}
    for row in table.itertuples():
        seeds = {seed["seed"]: seed for seed in shown[row.step]["seeds"]}
        assert seeds[row.seed]["top1"] == row.accuracy
        assert seeds[row.seed]["seconds"] == row.training_seconds
        assert shown[row.step]["macs"] == row.macs
    means = table.groupby("step")["accuracy"].mean()
    assert {name: ours["top1"] for name, ours in shown.items()} == pytest.approx(means.to_dict())


@pytest.mark.slow
def test_without_results_the_papers_numbers_stand_alone(tmp_path) -> None:
    data = explorer_data(table_of(tmp_path))
    assert (data["study"], data["seeds"]) == (None, [])
    assert all(step["ours"] is None for step in data["steps"])
    assert data["steps"][-1]["gain"]["paper_difference"] == pytest.approx(0.5)


def test_decisions_that_are_not_the_papers_are_left_out(tmp_path) -> None:
    path = tmp_path / "own.toml"
    step = 'name = "kernel_13"\nparent = "resnet+gelu"\nchange = { kernel_size = 13 }\n'
    path.write_text(f'base = "quick"\norder = ["gelu", "layer_norm"]\n[[step]]\n{step}')
    steps = explorer_data(load_results(load_study(path), tmp_path))["steps"]
    assert [each["name"] for each in steps] == ["resnet"]


def test_no_text_can_end_the_script_that_holds_it() -> None:
    hostile = {"title": "</script><script>alert(1)</script> <!-- & \u2028"}
    text = embedded(hostile)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == hostile


@pytest.mark.slow
class TestInABrowser:
    @pytest.fixture(autouse=True)
    def _open(self, page, browser, tmp_path) -> None:
        path = tmp_path / "explorer.html"
        path.write_text(page)
        self.address = path.as_uri()
        self.browser = browser
        browser.open(self.address)

    def focused(self) -> str:
        return self.browser.run("return document.activeElement.dataset.step")

    def test_the_arrow_keys_walk_through_every_step_of_both_roadmaps(self) -> None:
        for regime in ("tiny", "base"):
            self.browser.find(f"input[value={regime}]").click()
            self.browser.find(".row[tabindex='0']").click()
            self.browser.press("HOME")
            for name, step in roadmap(regime).items():
                assert self.focused() == name
                chosen = "[...document.querySelectorAll('[aria-selected=true]')]"
                assert self.browser.run(f"return {chosen}.map(row => row.dataset.step)") == [name]
                assert self.browser.find("#details h2").text == step.title
                self.browser.run("return document.querySelector('figure img').decode()")
                self.browser.press("ARROW_DOWN")
            assert self.focused() == name  # the last row is the end
            self.browser.screenshot(f"explorer-{regime}")
        self.browser.assert_quiet()

    def test_focus_is_visible_and_a_row_tells_its_numbers(self) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        row = self.browser.find(".row[data-step=gelu]")
        ActionChains(self.browser.driver).move_to_element(row).perform()
        told = self.browser.find("#tooltip").text
        assert "81.62 %, 80.33 %" in told
        assert "80.62 % ± 0.14" in told
        row.click()
        self.browser.press("ARROW_DOWN")
        style = "getComputedStyle(document.activeElement.querySelector('rect'))"
        assert self.browser.run(f"return {style}.strokeWidth") == "2.5px"
        assert self.focused() == "fewer_activations"
        assert self.browser.run("return location.hash") == "#tiny/fewer_activations"

    @pytest.mark.parametrize("width", [320, 390, 1024])
    def test_it_fits_a_phone(self, width) -> None:
        self.browser.open(f"{self.address}#tiny/inverted", width, 900)
        assert self.browser.run("return document.documentElement.scrollWidth") <= width
        self.browser.screenshot(f"explorer-{width}")

    def test_dark_and_printed(self) -> None:
        page_color = "return getComputedStyle(document.body).backgroundColor"
        light = self.browser.run(page_color)
        self.browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", DARK)
        assert self.browser.run(page_color) != light
        self.browser.screenshot("explorer-dark")
        self.browser.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"media": "print", "features": []}
        )
        assert self.browser.run(page_color) == "rgb(255, 255, 255)"
        self.browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
