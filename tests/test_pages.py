"""The slides and the site: whole, offline, readable for all, and seen in a real browser."""

import os
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest

from convnext_steps import cli
from convnext_steps.course.executed import is_fresh, read_static, relink
from convnext_steps.course.site import contents, fold, write_site
from convnext_steps.course.slides import set_slides, write_slides
from convnext_steps.errors import StudyError
from convnext_steps.execution.notebook import find_notebook
from convnext_steps.study.results import PACKED

NAMES = ["03_resnextify", "trajectory"]
PARAMETERS = ["--study", "smoke"]


@dataclass
class Parsed(HTMLParser):
    """What a page refers to, what it can be referred to by, and its pictures."""

    text: str
    links: list[str] = field(default_factory=list)  # where a reader can go
    parts: list[str] = field(default_factory=list)  # what the browser fetches
    ids: set[str] = field(default_factory=set)
    images: list[dict] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.text)

    def handle_starttag(self, tag, attrs) -> None:
        values = dict(attrs)
        self.ids |= {values[name] for name in ("id", "name") if values.get(name)}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag in ("link", "script", "img", "iframe", "source"):
            self.parts += [values[name] for name in ("href", "src") if name in values]
        if tag in ("img", "svg"):
            self.images.append(values)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    build = tmp_path_factory.mktemp("build")
    for command in ("site", "slides"):
        assert cli.main([command, *NAMES, "--build", str(build), *PARAMETERS]) == 0
    return build


@pytest.fixture(scope="module")
def pages(built) -> dict[Path, Parsed]:
    found = [*built.glob("site/*.html"), *built.glob("slides/*.html")]
    return {path: Parsed(path.read_text(encoding="utf-8")) for path in found}


@pytest.mark.slow
def test_every_address_of_every_page_is_a_file_beside_it(pages, built) -> None:
    assert len(pages) >= 7
    for path, page in pages.items():
        for address in page.links + page.parts:
            parts = urlsplit(address)
            if parts.scheme in ("http", "https"):
                assert address in page.links, f"{path.name} fetches {address}"
                assert re.fullmatch(r"[\w.-]+\.\w+", parts.netloc), address
            elif parts.scheme not in ("data", "mailto"):
                target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
                assert target.exists(), f"{path.name} refers to {address}"
                if parts.fragment and target in pages and not parts.fragment.startswith("/"):
                    assert unquote(parts.fragment) in pages[target].ids, f"{path.name}: {address}"


@pytest.mark.slow
def test_every_picture_has_an_alternative_text(pages) -> None:
    seen = 0
    for path, page in pages.items():
        for image in page.images:
            text = image.get("alt") or image.get("aria-label") or ""
            hidden = image.get("aria-hidden") == "true"
            assert hidden or len(text) > 20, f"{path.name}: {str(image)[:200]}"
            seen += not hidden
    assert seen >= 10


def test_what_a_notebook_shows_is_older_than_it_or_it_is_stale(tmp_path) -> None:
    results, target = tmp_path / "results", tmp_path / "executed.ipynb"
    packed = results / "mine" / PACKED
    packed.parent.mkdir(parents=True)
    packed.touch()
    os.utime(packed, (1, 1))  # clocks of files are coarse
    values = {"RESULTS": str(results)}
    notebook = nbformat.v4.new_notebook(metadata={"papermill": {"parameters": values}})
    nbformat.write(notebook, target)
    assert is_fresh(target, find_notebook("trajectory"), values)
    assert not is_fresh(target, find_notebook("trajectory"), {})
    later = target.stat().st_mtime + 1
    os.utime(packed, (later, later))
    assert not is_fresh(target, find_notebook("trajectory"), values)
    packed.unlink()
    assert is_fresh(target, find_notebook("trajectory"), values)
    study = tmp_path / "mine.toml"
    study.touch()
    os.utime(study, (later, later))
    values["STUDY"] = str(study)
    nbformat.write(notebook, target)
    assert not is_fresh(target, find_notebook("trajectory"), values)


@pytest.mark.slow
def test_what_has_not_changed_is_not_executed_again(built, told) -> None:
    assert "executing" not in told("slides", *NAMES, "--build", built, *PARAMETERS).out


@pytest.mark.slow
def test_the_slides_are_walked_through(built, browser) -> None:
    browser.open((built / "slides" / "03_resnextify.slides.html").as_uri(), 1280, 800)
    notebook = nbformat.read(built / "executed" / "03_resnextify.ipynb", as_version=4)
    headings = re.findall(r"^## (.+)", "\n\n".join(cell.source for cell in notebook.cells), re.M)
    assert browser.run("return Reveal.getHorizontalSlides().length") == 1 + len(headings)
    seen = []
    for number in range(browser.run("return Reveal.getTotalSlides()")):
        if number in (3, 5, 8):
            browser.screenshot(f"slides-{number}")
        seen += browser.run(
            "return [...Reveal.getCurrentSlide().querySelectorAll('h2')].map(h => h.innerText)"
        )
        browser.press("SPACE")
    assert browser.run("return Reveal.isLastSlide()")
    assert [heading.strip() for heading in seen] == headings
    browser.assert_quiet()


@pytest.mark.slow
def test_the_site_is_read_and_searched_from_its_folder(built, browser) -> None:
    browser.open((built / "site" / "index.html").as_uri())
    browser.screenshot("site")
    assert browser.run("return document.querySelector('.figure img').naturalWidth") > 100
    doors = browser.run(
        "return [...document.querySelectorAll('.door strong')].map(e => e.innerText)"
    )
    assert doors == ["Read.", "Run.", "Teach."]
    browser.size(390, 900)
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    browser.size(1400, 1000)
    browser.driver.find_element("partial link text", "ResNeXt-ify").click()
    images = "[...document.querySelectorAll('.cell_output img')]"
    assert browser.run(f"return {images}.filter(img => img.naturalWidth > 100).length") >= 3
    browser.screenshot("site-notebook")
    assert browser.run("return document.querySelectorAll('details:not([open])').length") >= 4
    browser.open((built / "site" / "search.html").as_uri() + "?q=depthwise")
    browser.driver.implicitly_wait(10)
    assert browser.find("#search-results li a")
    browser.driver.implicitly_wait(0)
    browser.open((built / "site" / "explorer.html").as_uri())
    assert browser.run("return document.querySelectorAll('.row').length") == 17
    browser.driver.find_element("partial link text", "The course").click()
    assert browser.run("return document.querySelectorAll('.door').length") == 3
    browser.assert_quiet()


def notebook(*cells) -> nbformat.NotebookNode:
    return nbformat.v4.new_notebook(cells=list(cells))


def markdown(source: str, **metadata) -> nbformat.NotebookNode:
    return nbformat.v4.new_markdown_cell(source, metadata=metadata)


def code(source: str, **metadata) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell(source, metadata=metadata)


def test_slides_begin_at_headings_and_at_code() -> None:
    answer = {"nbgrader": {"solution": True}}
    divided = set_slides(
        notebook(
            markdown("# Title"),
            code("A: int = 1", tags=["parameters"]),
            code("from x import y\ny()"),
            markdown("## First"),
            code("1"),
            markdown("then"),
            code("2"),
            code("3"),
            markdown("## Second"),
            code("4", **answer),
            markdown("### Third"),
        )
    )
    kinds = [cell.metadata.slideshow.slide_type for cell in divided.cells]
    assert " ".join(kinds) == "- skip skip slide - subslide - subslide slide skip -"


def test_answers_are_folded_on_the_site() -> None:
    answer = {"nbgrader": {"solution": True}}
    folded = fold(notebook(code("answer = 1", **answer), markdown("words", **answer), code("1")))
    assert folded.cells[0].metadata.tags == ["hide-input"]
    assert folded.cells[1].source.startswith("<details><summary>")
    assert "tags" not in folded.cells[2].metadata


def test_links_lead_to_pages_or_become_text() -> None:
    pages = {"b.ipynb": "b.html"}
    text = "[b](b.ipynb#part), [c](../c.py), [d](https://d.org/x), [e](#e), ![f](f.png)"
    changed = "[b](b.html#part), c, [d](https://d.org/x), [e](#e), ![f](f.png)"
    assert relink(text, pages) == changed


def test_widgets_are_left_to_their_pictures(tmp_path) -> None:
    cell = code("explore()")
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/html": "<p>x</p>"}
    cell.outputs = [nbformat.v4.new_output("display_data", view)]
    book = notebook(cell)
    book.metadata["widgets"] = {"state": {}}
    nbformat.write(book, tmp_path / "n.ipynb")
    static = read_static(tmp_path / "n.ipynb", {})
    assert static.cells[0].outputs[0].data == {"text/html": "<p>x</p>"}
    assert "widgets" not in static.metadata
    (page,) = write_slides({"n": tmp_path / "n.ipynb"}, tmp_path / "slides")
    assert "<p>x</p>" in page.read_text()


def test_a_progress_bar_is_shown_as_it_ends(tmp_path) -> None:
    cell = code("train()")
    cell.outputs = [nbformat.v4.new_output("stream", text="before\n  0%\r 50%\r100%\nafter\r\n")]
    nbformat.write(notebook(cell), tmp_path / "n.ipynb")
    static = read_static(tmp_path / "n.ipynb", {})
    assert static.cells[0].outputs[0].text == "before\n100%\nafter\r\n"


def test_the_contents_leave_out_what_is_not_there() -> None:
    names = ["trajectory", "11_budget", "00_overview"]
    captions = re.findall(r":caption: (.+)", contents(names))
    assert captions == ["The roadmap", "The craft of ablations", "Tools", "Reference"]


def test_a_folder_that_is_not_the_sites_is_kept(tmp_path) -> None:
    page = tmp_path / "site" / "mine.html"
    page.parent.mkdir()
    page.write_text("mine")
    with pytest.raises(StudyError, match="not made by this command; choose another --build"):
        write_site({}, tmp_path / "site-source", tmp_path / "site")
    assert page.read_text() == "mine"


@pytest.mark.slow
def test_what_sphinx_warns_of_stops_the_site(tmp_path, capsys) -> None:
    path = tmp_path / "bad.ipynb"
    nbformat.write(notebook(markdown("# Title\n\n{nonsense}`x`")), path)
    with pytest.raises(StudyError, match="Sphinx failed or warned"):
        write_site({"bad": path}, tmp_path / "source", tmp_path / "site")
    assert "nonsense" in capsys.readouterr().err
