"""Whole studies, and what happens to them when they are stopped."""

import os
import signal
from pathlib import Path

import pytest
from studies import (
    ended,
    no_leftovers,
    plan,
    results_without_times,
    study,
    trained_once,
    wait_for,
)

from convnext_steps.execution.runfolder import status
from convnext_steps.study.results import RESULT, all_results

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    results = tmp_path_factory.mktemp("finished")
    out, _ = ended(study(results))
    assert f"figure: {results / 'smoke' / 'trajectory.png'}" in out
    return results


def test_a_study_leaves_results_notebooks_table_and_figure(finished) -> None:
    study_folder = finished / "smoke"
    files = {str(path.relative_to(study_folder)) for path in study_folder.rglob("*.*")}
    expected = {"table.csv", "table.md"}  # no step is the other's parent: no differences
    expected |= {"trajectory.png", "trajectory.svg", "trajectory.ipynb", "study.toml"}
    for step in ("resnet", "separate_downsampling"):
        names = ("result.json", "history.jsonl", "run_step.ipynb", "run.lock")
        expected |= {f"{step}/seed-0/{name}" for name in names}
    assert files == expected
    assert set(all_results(finished)["step"]) == {"resnet", "separate_downsampling"}


def test_a_second_call_trains_nothing(finished) -> None:
    times = {path: path.stat().st_mtime_ns for path in finished.rglob(RESULT)}
    out, _ = ended(study(finished))
    assert "all runs are already done" in out
    assert {path: path.stat().st_mtime_ns for path in finished.rglob(RESULT)} == times


def test_interrupted_and_started_again_it_goes_on_with_what_is_missing(finished, tmp_path) -> None:
    process = study(tmp_path, "--workers", "1", start_new_session=True)
    (first, second) = plan("smoke")
    wait_for((first.folder(tmp_path) / RESULT).exists)
    wait_for((second.folder(tmp_path) / "history.jsonl").exists)
    os.killpg(process.pid, signal.SIGINT)
    _, err = ended(process, 130)
    assert "rerun the same command to resume" in err
    assert "Traceback" not in err
    assert not (second.folder(tmp_path) / RESULT).exists()
    done_at = (first.folder(tmp_path) / RESULT).stat().st_mtime_ns

    ended(study(tmp_path))
    assert (first.folder(tmp_path) / RESULT).stat().st_mtime_ns == done_at
    assert results_without_times(tmp_path) == results_without_times(finished)


def test_a_failed_run_does_not_stop_the_others(tmp_path) -> None:
    first, second = plan("smoke")
    obstacle = first.folder(tmp_path) / "best.safetensors"
    (obstacle / "in the way").mkdir(parents=True)
    _, err = ended(study(tmp_path), 1)
    assert "1 of 2 runs failed" in err
    assert first.name in err
    assert "Traceback" not in err
    assert not (first.folder(tmp_path) / RESULT).exists()
    assert (second.folder(tmp_path) / RESULT).exists()
    assert status(first, tmp_path, {}).state == "failed"
    assert status(second, tmp_path, {}).state == "done"

    (obstacle / "in the way").rmdir()
    obstacle.rmdir()
    ended(study(tmp_path))
    assert len(all_results(tmp_path)) == 2
    assert not list(tmp_path.rglob("*.failed.*"))


def test_two_runners_share_a_study(finished, tmp_path) -> None:
    pair = [study(tmp_path, "--workers", "1", "--seeds", "0", "1") for _ in range(2)]
    for process in pair:
        ended(process)
    assert len(all_results(tmp_path)) == 4
    assert trained_once(tmp_path)
    results = results_without_times(tmp_path)
    for name, result in results_without_times(finished).items():
        assert results[name] == result
    assert no_leftovers(tmp_path)
