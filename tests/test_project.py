"""The project's own files: that they agree with each other and with what they say."""

import ast
import importlib
import importlib.util
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from unittest.mock import Mock, call

import papermill
import pytest
import yaml
from IPython.core.inputtransformer2 import TransformerManager

import convnext_steps
from convnext_steps import cli, load_study

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
REPOSITORY = "https://github.com/OWNER/convnext_steps"
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.M | re.S)  # language and text
COMMANDS = [line for language, text in BLOCKS if not language for line in text.splitlines()]
CONDA_NAMES = {"torch": "pytorch"}


def test_every_public_name_is_there_and_nothing_heavy_is_imported_for_it_before() -> None:
    for name in convnext_steps.__all__:
        assert getattr(getattr(convnext_steps, name), "__name__", name) == name
    assert set(convnext_steps.__all__) <= set(dir(convnext_steps))
    with pytest.raises(AttributeError, match="has no attribute 'convnext_tinny'"):
        _ = convnext_steps.convnext_tinny
    program = "import sys, convnext_steps.cli; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "False\n"


def split(requirement: str) -> tuple[str, str]:
    name, version = re.fullmatch(r"([a-z-]+(?:\[[a-z,]+\])?)(.*)", requirement).groups()
    return name, version


def test_environment_yml_and_pyproject_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge"]
    assert environment["dependencies"].pop() == {"pip": ["-e ."]}
    conda = dict(split(requirement) for requirement in environment["dependencies"])
    assert conda.pop("python") == project["requires-python"]
    assert conda.pop("pip") == ""
    pip = dict(split(requirement) for requirement in project["dependencies"])
    extras = project["optional-dependencies"]
    names = ("fast", "statistics", "tensorboard", "site")
    chosen = [requirement for name in names for requirement in extras[name]]
    chosen += [requirement for requirement in extras["dev"] if split(requirement)[0] == "pytest"]
    pip |= dict(split(requirement) for requirement in chosen)
    assert conda == {CONDA_NAMES.get(name, name): version for name, version in pip.items()}


def test_the_oldest_torch_and_torchvision_are_a_pair() -> None:
    """torchvision 0.N came with torch 2.(N - 15)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = dict(split(requirement) for requirement in project["dependencies"])
    one, other = (bounds[name].removeprefix(">=") for name in ("torch", "torchvision"))
    assert int(one.split(".")[1]) + 15 == int(other.split(".")[1])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_have_short_cells_no_outputs_no_bare_figures_and_no_tex(path) -> None:
    """No page renders TeX, and a figure is shown by `Picture`, which asks for words."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
            assert len(source.splitlines()) <= 15
            assert not re.search("matplotlib inline|pyplot", source)
        else:
            assert not re.search(r"\$[^$\n]+\$|\\\(|\\\[", source)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_first_code_cell_installs_the_library_on_colab_and_does_nothing_elsewhere(
    path, monkeypatch
) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    first = next(cell for cell in cells if cell["cell_type"] == "code")
    assert [cell for cell in cells if "colab" in cell["metadata"].get("tags", [])] == [first]
    code = TransformerManager().transform_cell("".join(first["source"]))
    shell = Mock()
    exec(code, {"get_ipython": lambda: shell})
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    exec(code, {"get_ipython": lambda: shell})
    assert shell.mock_calls == []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    exec(code, {"get_ipython": lambda: shell})
    assert shell.mock_calls == [call.run_line_magic("pip", f"install --quiet git+{REPOSITORY}")]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_papermill_knows_every_parameter(path) -> None:
    """It overlooks, without a word, a line with two equals signs, or a type such as `X | Y`."""
    cells = json.loads(path.read_text())["cells"]
    (cell,) = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", ())]
    names = [line.split(":")[0] for line in "".join(cell["source"]).splitlines()]
    assert list(papermill.inspect_notebook(str(path))) == names


def documents() -> list[tuple[Path, str]]:
    pages = [(path, path.read_text()) for path in ROOT.glob("*.md")]
    pages += [(path, path.read_text()) for path in (ROOT / "results").rglob("*.md")]
    pages += [(path, path.read_text()) for path in (ROOT / "notebooks").glob("*.md")]
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text())["cells"]
        prose = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
        pages.append((path, "\n".join(prose)))
    return pages


@pytest.mark.parametrize(
    ("path", "text"), documents(), ids=lambda value: getattr(value, "stem", "")
)
def test_links_resolve(path, text) -> None:
    """Those to other sites are https, to a section alone name one of the page, others a file."""
    headings = {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)", text, re.M)
    }
    for target in re.findall(r"\]\(([^)]+)\)", text):
        file, _, section = target.partition("#")
        if target.startswith("http"):
            assert re.fullmatch(r"https://[\w.-]+\.\w+(/\S*)?", target), target
        elif file:
            assert (path.parent / file).exists(), f"{path.name} links to {target}"
        else:
            assert section in headings, f"{path.name} links to {target}"


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("convnext-steps ")])
def test_a_command_of_the_readme_has_these_options(line) -> None:
    words = shlex.split(line, comments=True)
    assert cli.parse(words[1:]).command


def test_the_readmes_study_can_be_loaded(tmp_path) -> None:
    (text,) = [text for language, text in BLOCKS if language == "toml"]
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    (tmp_path / "photos").mkdir()
    study = load_study(tmp_path / "mine.toml")
    assert Path(study.data.root) == tmp_path / "photos"
    assert study.steps()["kernel_13"].design.kernel_size == 13


def test_the_readmes_programs_compile_and_import_what_there_is() -> None:
    programs = [text for language, text in BLOCKS if language == "python"]
    assert len(programs) == 2
    for node in ast.walk(ast.Module([ast.parse(text) for text in programs], [])):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, name.name) for name in node.names)


def test_the_package_holds_its_data() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "convnext_steps"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    mapped = {"convnext_steps.notebooks", "convnext_steps.results"}
    folders = {Path(name).parent for name in tracked if name.endswith("/__init__.py")}
    assert set(setuptools["packages"]) == mapped | {".".join(folder.parts) for folder in folders}
    patterns = setuptools["package-data"]["convnext_steps"]
    for name in tracked:
        path = Path(name).relative_to("convnext_steps")
        assert path.suffix == ".py" or any(path.match(pattern) for pattern in patterns), name


def test_the_map_of_the_library_names_every_module() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = re.findall(r"^\| `([\w/]+\.py)` \|", text, re.M)
    package = ROOT / "convnext_steps"
    without_code = [path for path in package.rglob("__*__.py") if "\ndef " not in path.read_text()]
    modules = set(package.rglob("*.py")) - set(without_code)
    assert sorted(named) == sorted(str(path.relative_to(package)) for path in modules)


def test_the_version_is_one() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"version: {version}" in (ROOT / "CITATION.cff").read_text()
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()
