"""Whole studies, and what happens to them when they are stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from convnext_steps import load_results
from convnext_steps.study.plan import plan
from convnext_steps.study.results import RESULT, read_result

pytestmark = pytest.mark.slow
TIMES = ("seconds",)


def study(results: Path, *options: str, **keywords) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "convnext_steps", "study", "--profile", "smoke"]
    command += ["--results", str(results), *options]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **keywords
    )


def results_without_times(folder: Path) -> dict[str, dict]:
    found = {}
    for path in sorted(folder.rglob(RESULT)):
        result = read_result(path)
        for name in TIMES:
            del result[name]
        found[str(path.relative_to(folder))] = result
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    results = tmp_path_factory.mktemp("finished")
    process = study(results)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert f"figure: {results / 'smoke' / 'tiny' / 'trajectory.png'}" in out
    return results


def test_a_study_leaves_results_notebooks_table_and_figure(finished) -> None:
    files = {str(path.relative_to(finished / "smoke" / "tiny")) for path in finished.rglob("*.*")}
    expected = {"table.csv", "table.md", "trajectory.png", "trajectory.svg", "trajectory.ipynb"}
    for step in ("resnet", "separate_downsampling"):
        names = ("result.json", "history.jsonl", "run_step.ipynb")
        expected |= {f"{step}/seed-0/{name}" for name in names}
    assert files == expected
    assert set(load_results(finished)["step"]) == {"resnet", "separate_downsampling"}


def test_a_second_call_trains_nothing(finished) -> None:
    times = {path: path.stat().st_mtime_ns for path in finished.rglob(RESULT)}
    start = time.monotonic()
    process = study(finished)
    out, _ = process.communicate(timeout=60)
    assert time.monotonic() - start < 30
    assert process.returncode == 0
    assert "all 2 runs are done already" in out
    assert {path: path.stat().st_mtime_ns for path in finished.rglob(RESULT)} == times


def test_two_studies_of_one_seed_are_equal_bit_for_bit_but_for_times(finished, tmp_path) -> None:
    process = study(tmp_path, "--workers", "2")
    process.communicate(timeout=300)
    assert results_without_times(tmp_path) == results_without_times(finished)


def test_interrupted_and_started_again_it_goes_on_with_what_is_missing(finished, tmp_path) -> None:
    process = study(tmp_path, "--workers", "1", start_new_session=True)
    (first, second) = plan("smoke")
    wait_for(first.folder(tmp_path) / RESULT)
    wait_for(second.folder(tmp_path) / "history.jsonl")
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "goes on with what is missing" in err
    assert "Traceback" not in err
    assert not (second.folder(tmp_path) / RESULT).exists()
    done_at = (first.folder(tmp_path) / RESULT).stat().st_mtime_ns

    process = study(tmp_path)
    process.communicate(timeout=300)
    assert process.returncode == 0
    assert (first.folder(tmp_path) / RESULT).stat().st_mtime_ns == done_at
    assert results_without_times(tmp_path) == results_without_times(finished)


def test_a_failed_run_does_not_stop_the_others(tmp_path) -> None:
    """The kernel of the first run is killed; the second run is completed, the first one named."""
    process = study(tmp_path, "--workers", "1")
    first, second = plan("smoke")
    wait_for(first.folder(tmp_path) / "history.jsonl")
    for kernel in kernels_below(process.pid):
        os.kill(kernel, signal.SIGKILL)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "1 of 2 runs failed" in err
    assert first.name in err
    assert "Traceback" not in err
    assert not (first.folder(tmp_path) / RESULT).exists()
    assert (first.folder(tmp_path) / "run_step.failed.ipynb").exists()
    assert (second.folder(tmp_path) / RESULT).exists()

    process = study(tmp_path)
    process.communicate(timeout=300)
    assert process.returncode == 0
    assert len(load_results(tmp_path)) == 2
    assert not list(tmp_path.rglob("*.failed.*"))


def test_a_changed_plan_is_trained_again(finished, tmp_path) -> None:
    (run, _) = plan("smoke")
    folder = run.folder(tmp_path)
    folder.mkdir(parents=True)
    old = json.loads((run.folder(finished) / RESULT).read_text()) | {"hash": "0" * 16}
    (folder / RESULT).write_text(json.dumps(old))
    process = study(tmp_path, "--steps", run.step)
    process.communicate(timeout=300)
    assert process.returncode == 0
    assert read_result(folder / RESULT)["hash"] == run.hash


def wait_for(path: Path, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


def kernels_below(pid: int) -> list[int]:
    """The notebook kernels among the descendants of a process."""
    listing = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True).stdout
    rows = [line.split(None, 2) for line in listing.splitlines()[1:]]
    family = {pid}
    for _ in range(4):
        family |= {int(child) for child, parent, *_ in rows if int(parent) in family}
    return [int(p) for p, _, *args in rows if int(p) in family and "ipykernel" in "".join(args)]
