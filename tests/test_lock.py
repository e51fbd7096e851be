"""Locks: no run is done twice, and one whose holder has died is free at once."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from studies import plan, wait_for

from convnext_steps.execution import lock, worker
from convnext_steps.execution.lock import HOLDER, HeldError, holder, take
from convnext_steps.execution.runfolder import prepare, record_failure, status
from convnext_steps.training.checkpoint import HISTORY

HOLDS = """
import sys, time
from pathlib import Path
from convnext_steps.execution.lock import take
lock = take(Path(sys.argv[1]))
time.sleep(600)
"""
PROCESSES: list[subprocess.Popen] = []


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    yield
    while PROCESSES:
        PROCESSES.pop().kill()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.0)


def working(folder: Path) -> subprocess.Popen:
    """A process that holds a run, in place of one that trains it."""
    PROCESSES.append(subprocess.Popen([sys.executable, "-c", HOLDS, str(folder)]))
    wait_for((folder / HOLDER).exists)
    return PROCESSES[-1]


def test_a_lock_is_held_by_one_and_free_again_after_it(tmp_path) -> None:
    assert holder(tmp_path / "run") == ""
    held = take(tmp_path / "run")
    assert holder(tmp_path / "run") == f"process {os.getpid()} on {socket.gethostname()}"
    take(tmp_path / "run")  # the same process again, as when a cell is run twice
    (tmp_path / "run" / HOLDER).write_text("{")
    assert holder(tmp_path / "run") == "another process"
    held.release(force=True)
    assert holder(tmp_path / "run") == ""


def test_a_process_holds_its_run_until_it_has_ended_however_it_ends(tmp_path) -> None:
    process = working(tmp_path / "run")
    assert holder(tmp_path / "run") == f"process {process.pid} on {socket.gethostname()}"
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(HeldError, match="another process is working"):
        take(tmp_path / "run")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    take(tmp_path / "run").release(force=True)


def work_on(folder: Path, program: str) -> "subprocess.Popen[str]":
    """A worker with a module of this text."""
    (folder / "given.py").write_text(program)
    command = [sys.executable, "-P", worker.__file__, "given"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.Popen(command, env=environment, text=True, **pipes)


def test_a_worker_ends_with_the_process_that_started_it(tmp_path) -> None:
    with work_on(tmp_path, "import time; time.sleep(600)") as process:
        process.stdin.close()  # as the system does when this process dies
        assert process.wait(timeout=60) == 1


def test_what_a_worker_imports_is_not_ours(tmp_path) -> None:
    """Its folder has modules named as packages are: ray, notebook."""
    with work_on(tmp_path, "import sys; print(*sys.path, sep=chr(10))") as process:
        folders = process.stdout.read().splitlines()
    assert str(Path(worker.__file__).parent) not in folders
    assert str(tmp_path) in folders


def test_status_tells_each_state_and_its_reason(tmp_path, told) -> None:
    steps = ["resnet", "width", "gelu", "layer_norm"]
    running, failed, interrupted, missing = plan("quick", steps=steps)
    process = working(running.folder(tmp_path))
    entry = {"step": 30, "total_steps": 40}
    (running.folder(tmp_path) / HISTORY).write_text(json.dumps(entry) + "\n")
    failed.folder(tmp_path).mkdir(parents=True)
    record_failure(failed.folder(tmp_path), "ValueError: why")
    interrupted.folder(tmp_path).mkdir(parents=True)
    prepare(interrupted, interrupted.folder(tmp_path))
    assert status(running, tmp_path, {}).state == "running"
    assert status(missing, tmp_path, {}).state == "missing"
    out = told("status", "--results", tmp_path, "--steps", *steps).out
    assert f"running  75 % of its training, process {process.pid} on {socket.gethostname()}" in out
    assert "failed   ValueError: why" in out
    assert "missing  interrupted" in out
    assert "1 running, 1 failed, 2 missing" in out
