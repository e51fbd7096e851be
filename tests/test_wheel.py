"""What is installed from a wheel does what a checkout does, from an empty folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from convnext_steps.study.loading import load_results
from convnext_steps.study.results import read_results

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
STUDY = "quick --set recipe.max_epochs=0.02 --set scale.width=1/16"
FOLDER = Path("results", "own", "quick_max_epochs_0.02_width_0.0625")


class Installed:
    """A virtual environment with the wheel, and this environment's other packages behind it."""

    def __init__(self, folder: Path) -> None:
        self.python = folder / "bin" / "python"
        if os.name == "nt":
            self.python = folder / "Scripts" / "python.exe"
        self.home = folder.with_name("empty")
        self.home.mkdir()
        self.variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(self, *command: str) -> str:
        done = subprocess.run(
            [str(self.python), *command],
            cwd=self.home,
            env=self.variables,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def steps(self, command: str) -> str:
        return self.run("-m", "convnext_steps", *command.split())


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Installed:
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / "source" / name)
    pip = [sys.executable, "-m", "pip"]
    here = {"cwd": folder, "check": True, "capture_output": True}
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), "./source"]
    subprocess.run(build, **here)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "venv"], **here)
    place = Installed(folder / "venv")
    install = [*pip, "--python", str(place.python), "install", "--no-deps", "--no-index"]
    subprocess.run([*install, str(wheel)], **here)
    packages = Path(
        place.run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    )
    others = {sysconfig.get_path(kind) for kind in ("purelib", "platlib")}
    (packages / "others.pth").write_text("\n".join(others), encoding="utf-8")
    found = place.run("-c", "import convnext_steps; print(convnext_steps.__file__)")
    assert Path(found.strip()) == packages / "convnext_steps" / "__init__.py"
    place.packages = packages / "convnext_steps"
    return place


def files_of(folder: Path) -> set[str]:
    """All files below a folder but Python's own caches."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix() for path in paths if "__pycache__" not in path.parts
    }


def test_a_wheel_does_what_a_checkout_does(installed) -> None:
    before = files_of(installed.packages)
    runs = "--seeds 0 --steps resnet stage_ratio"
    figure = FOLDER / "trajectory.png"
    assert f"figure: {figure}" in installed.steps(f"study {STUDY} {runs}")
    assert (installed.home / figure).is_file()
    own = {result["step"]: result for result in read_results(installed.home / FOLDER)}
    assert set(own) == {"resnet", "stage_ratio"}
    assert own["resnet"]["environment"]["commit"] is None
    assert installed.steps(f"status {STUDY} {runs}") == "2 done\n"
    assert "| stage ratio | 1 |" in installed.steps(f"report {STUDY}")
    assert f"| stage ratio | {FOLDER.name} | 1 |" in installed.steps(
        f"compare quick {FOLDER / 'study.toml'}"
    )
    installed.steps(f"notebook trajectory shown.ipynb -p STUDY={FOLDER / 'study.toml'}")
    assert FOLDER.name in (installed.home / "shown.ipynb").read_text(encoding="utf-8")
    assert files_of(installed.packages) == before
    assert {path.name for path in installed.home.iterdir()} == {"results", "shown.ipynb"}


def test_a_wheel_holds_the_course_and_the_published_results(installed) -> None:
    program = "from convnext_steps import load_results; print(len(load_results('standard')))"
    assert installed.run("-c", program) == f"{len(load_results('standard'))}\n"
    files = files_of(installed.packages)
    tracked = subprocess.run(
        ["git", "ls-files", "notebooks", "results", "convnext_steps"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert files == {name.removeprefix("convnext_steps/") for name in tracked}
    installed.steps("notebooks course")
    assert files_of(installed.home / "course") == files_of(ROOT / "notebooks")
