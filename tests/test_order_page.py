"""The page "Your own order": its numbers against the statistics', itself in a real browser."""

import itertools

import numpy as np
import pytest
from test_effects import simulated
from test_explorer import data_of
from test_pages import Parsed

from convnext_steps import load_study
from convnext_steps.course.order_page import order_data, order_page
from convnext_steps.study.effects import values
from convnext_steps.study.loading import of_the_study
from convnext_steps.study.orders import credits
from convnext_steps.study.results import all_results

OWN = [
    *("gelu", "depthwise", "kernel_7", "width", "inverted", "layer_norm", "stage_ratio"),
    *("fewer_norms", "move_up", "separate_downsampling", "patchify", "fewer_activations"),
]


@pytest.fixture(scope="module")
def found():
    analysis, _, table = simulated(0)
    return analysis, table, data_of(order_page(table))


def codes_of(data, order) -> list[int]:
    names = [decision["name"] for decision in data["decisions"]]
    return list(itertools.accumulate((1 << names.index(name) for name in order), initial=0))


def expected(analysis, data, order) -> tuple[np.ndarray, np.ndarray]:
    """The statistics' own accuracies along an order, and whether each was measured."""
    space = analysis.space
    known, _, measured = values(analysis)
    places = np.searchsorted(space.codes(space.sets), codes_of(data, order))
    return known[places], measured[places]


def test_the_data_give_the_statistics_own_numbers_in_any_order(found) -> None:
    analysis, _, data = found
    networks = data["networks"]
    for order in (OWN, *data["orders"].values()):
        accuracies, trained = expected(analysis, data, order)
        for code, accuracy, known in zip(codes_of(data, order), accuracies, trained, strict=True):
            shown, runs, *margin = networks[str(code)]
            assert shown == pytest.approx(accuracy, abs=0.001)
            assert (bool(runs), not margin) == (known, known)
    assert sum(runs for _, runs, *_ in networks.values()) == len(analysis.runs) == 328
    assert len(networks) == len(analysis.space.sets)


def test_intervals_are_those_of_statsmodels_and_of_two_runs(found) -> None:
    analysis, _, data = found
    space, networks = analysis.space, data["networks"]
    frame = analysis.best.get_prediction(analysis.terms(space.sets)).summary_frame(alpha=0.05)
    half = (frame["obs_ci_upper"] - frame["obs_ci_lower"]) / 2
    for code, margin in zip(space.codes(space.sets), half, strict=True):
        assert networks[str(code)][2:] in ([], [pytest.approx(margin, abs=0.001)])
    runs = {int(code): runs for code, (_, runs, *_) in networks.items() if runs}
    both = [
        (margin, runs[int(code)], runs[int(code) | 1])
        for code, margin in data["credit_margins"][0].items()
        if {int(code), int(code) | 1} <= set(runs)
    ]
    quantile = (frame["mean_ci_upper"] - frame["mean"]).iloc[0] / frame["mean_se"].iloc[0]
    sd = np.sqrt(analysis.best.mse_resid)
    assert len(both) > 5
    for margin, one, other in both:
        assert margin == pytest.approx(quantile * sd * np.sqrt(1 / one + 1 / other), abs=0.001)


def test_the_credits_of_the_papers_order_are_those_of_the_table(found) -> None:
    analysis, _, data = found
    accuracies, _ = expected(analysis, data, data["orders"]["paper"])
    table = credits(analysis.space, values(analysis)[0])
    assert np.diff(accuracies).tolist() == pytest.approx(table["paper"].tolist())


def test_a_beginning_has_no_interactions(found) -> None:
    _, table, _ = found
    data = order_data(table.iloc[:100])
    assert not data["interactions"]


def test_the_command_writes_the_page_only_where_there_are_results(
    tmp_path, monkeypatch, told, found
) -> None:
    _, table, _ = found
    monkeypatch.setattr(
        "convnext_steps.cli.pages.explorer_page", lambda *given: ", ".join(given[-1].values())
    )
    places = ("pages", "options")
    for place in places:
        monkeypatch.setattr(f"convnext_steps.cli.{place}.load_results", lambda *_: table)
    page, order = tmp_path / "page #1.html", tmp_path / "page #1_order.html"
    told("explorer", page)
    assert page.read_text() == order.name
    assert Parsed(order.read_text()).links == ["page%20%231.html"]
    assert "default-src 'none'" in order.read_text()
    told("explorer", tmp_path / "own.html", "factorial_quick")
    assert Parsed((tmp_path / "own.html").read_text()).links == []
    order.unlink()
    none = of_the_study(all_results(tmp_path), load_study("factorial_quick"))
    for place in places:
        monkeypatch.setattr(f"convnext_steps.cli.{place}.load_results", lambda *_: none)
    out = told("explorer", page).out
    assert page.read_text() == ""
    assert not order.exists()
    assert "no page page #1_order.html: factorial_quick: 0 runs are too few" in out
    told("explorer", order, "factorial_quick", code=2)
    assert not order.exists()


@pytest.mark.slow
class TestInABrowser:
    @pytest.fixture(autouse=True)
    def _open(self, found, browser, tmp_path) -> None:
        self.analysis, table, self.data = found
        path = tmp_path / "order.html"
        path.write_text(order_page(table))
        self.address, self.browser = path.as_uri(), browser
        browser.open("about:blank")
        browser.open(self.address)

    def order(self) -> list[str]:
        return self.browser.run(
            "return [...document.querySelectorAll('#cards li')].map(card => card.dataset.decision)"
        )

    def hash(self) -> list[str]:
        return self.browser.run("return location.hash").removeprefix("#").split(",")

    def points(self, kind: str = "mine") -> int:
        return self.browser.run(f"return document.querySelectorAll('#chart circle.{kind}').length")

    def test_the_page_computes_the_statistics_own_numbers(self) -> None:
        for order in (OWN, *self.data["orders"].values()):
            curve = self.browser.run("return model.curve(numbersOf(arguments[0]))", order)
            accuracies, measured = expected(self.analysis, self.data, order)
            shown = [point["accuracy"] for point in curve["points"]]
            assert shown == pytest.approx(accuracies.tolist(), abs=0.002)
            assert [point["runs"] > 0 for point in curve["points"]] == measured.tolist()
            changes = [credit["change"] for credit in curve["credits"]]
            assert changes == pytest.approx(np.diff(accuracies).tolist(), abs=0.004)
            assert all(credit["margin"] > 0 for credit in curve["credits"])

    def test_a_card_is_dragged_and_the_order_stands_in_the_address(self) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        paper = self.order()
        assert paper == self.hash() == self.data["orders"]["paper"]
        handle = self.browser.find("[data-decision=gelu] .handle")
        onto = self.browser.find("[data-decision=stage_ratio]")
        mouse = ActionChains(self.browser.driver, duration=50).click_and_hold(handle)
        mouse.move_to_element(self.browser.find("[data-decision=inverted]"))
        mouse.move_to_element_with_offset(onto, 0, -12).release().perform()
        assert self.order() == ["gelu", *(name for name in paper if name != "gelu")] == self.hash()
        assert self.points() == 13
        assert self.points("predicted") > 0
        elsewhere = self.browser.find("[data-decision=depthwise]")
        mouse.move_to_element(elsewhere).perform()  # it was let go
        shared = self.browser.run("return location.href")
        self.browser.open("about:blank")
        self.browser.open(shared)
        assert self.order()[0] == "gelu"
        self.browser.assert_quiet()

    def test_a_card_is_moved_by_keyboard_and_keeps_the_focus(self) -> None:
        self.browser.find("[data-decision=stage_ratio]").click()
        self.browser.press("ARROW_DOWN", "ARROW_DOWN", shift=True)
        assert self.order()[:3] == ["patchify", "depthwise", "stage_ratio"] == self.hash()[:3]
        assert self.browser.find("#message").text == "stage ratio is now 3 of 12."
        focused = "return document.activeElement.dataset.decision"
        assert self.browser.run(focused) == "stage_ratio"
        self.browser.press("ARROW_DOWN")
        assert self.browser.run(focused) == "width"
        self.browser.press("HOME", shift=True)
        assert self.order()[0] == "width"
        self.browser.find("[data-decision=width] button[aria-label$=later]").click()
        assert self.order()[1] == "width"

    def test_a_forbidden_order_is_said_and_not_drawn(self) -> None:
        self.browser.find("[data-decision=inverted]").click()
        self.browser.press("HOME", shift=True)
        assert self.browser.find("#message").text == (
            "No curve: “inverting dimensions” needs “depthwise conv” before it."
        )
        assert self.points() == 0
        assert self.browser.find("[data-decision=gelu] .credit").text == "\u2013"
        self.browser.find("button[value=best]").click()
        assert self.points() == 13
        assert self.order() == self.data["orders"]["best"]
        assert self.browser.find("button[value=best]").get_attribute("aria-pressed") == "true"

    def test_an_address_without_a_whole_order_gives_the_papers(self) -> None:
        for wrong in ("gelu", "gelu,gelu", ",".join([*OWN[:-1], "nothing"]), "%"):
            self.browser.open("about:blank")
            self.browser.open(f"{self.address}#{wrong}")
            assert "does not name each decision once" in self.browser.find("#message").text
            assert self.order() == self.data["orders"]["paper"]
        self.browser.assert_quiet()

    @pytest.mark.parametrize("width", [320, 390, 1280])
    def test_it_fits_a_phone(self, width) -> None:
        self.browser.open(f"{self.address}#{','.join(OWN)}", width, 844)
        assert self.browser.run("return document.documentElement.scrollWidth") <= width
        inside = (
            "[...document.querySelectorAll('#cards li')].every(c => c.scrollWidth <= c.clientWidth)"
        )
        assert self.browser.run(f"return {inside}")
        assert self.points() == 13
        self.browser.screenshot(f"order-{width}")
