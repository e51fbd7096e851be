"""Locks: no run is done twice, and one whose holder has died is free at once."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from studies import wait_for

from convnext_steps import cli
from convnext_steps.execution import worker
from convnext_steps.execution.lock import HOLDER, LOCK, HeldError, Holder, hold, holder
from convnext_steps.execution.runfolder import prepare, record_failure, status
from convnext_steps.study.plan import plan
from convnext_steps.training.checkpoint import HISTORY

WORKERS: list[subprocess.Popen] = []


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    yield
    while WORKERS:
        WORKERS.pop().kill()


def working(folder: Path) -> subprocess.Popen:
    """A worker that holds a run, in place of papermill with a module that only sleeps."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder.parent / "sleeper.py").write_text("import time; time.sleep(600)")
    command = [sys.executable, "-P", worker.__file__, str(os.getpid()), str(folder / LOCK)]
    environment = os.environ | {"PYTHONPATH": str(folder.parent)}
    WORKERS.append(subprocess.Popen([*command, "sleeper"], env=environment))
    wait_for(folder / HOLDER)
    return WORKERS[-1]


def test_a_lock_is_held_by_one_and_free_again_after_it(tmp_path) -> None:
    assert holder(tmp_path / "run") is None
    with hold(tmp_path / "run"):
        with pytest.raises(HeldError, match="another process works in"), hold(tmp_path / "run"):
            pass
        assert holder(tmp_path / "run") == Holder(0, "unknown")
    assert holder(tmp_path / "run") is None


def test_of_many_at_once_one_wins(tmp_path) -> None:
    def take(_: int) -> bool:
        try:
            with hold(tmp_path):
                barrier.wait(60)
        except HeldError:
            barrier.wait(60)
            return False
        return True

    barrier = Barrier(8)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(take, range(8))).count(True) == 1


def test_a_worker_holds_its_run_until_it_has_ended_however_it_ends(tmp_path) -> None:
    process = working(tmp_path / "run")
    assert holder(tmp_path / "run") == Holder(process.pid, socket.gethostname())
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(HeldError), hold(tmp_path / "run"):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with hold(tmp_path / "run"):
        pass


def test_a_second_worker_leaves_at_once(tmp_path) -> None:
    working(tmp_path / "run")
    command = [
        sys.executable,
        "-P",
        worker.__file__,
        str(os.getpid()),
        str(tmp_path / "run" / LOCK),
    ]
    done = subprocess.run([*command, "this"], timeout=60)
    assert done.returncode == worker.HELD
    assert worker.HOLDER == HOLDER


def test_what_a_worker_imports_is_not_ours(tmp_path) -> None:
    """Its folder has modules named as packages are: ray, notebook."""
    (tmp_path / "asks.py").write_text("import sys; print(*sys.path, sep=chr(10))")
    command = [sys.executable, "-P", worker.__file__, str(os.getpid()), "-", "asks"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert str(Path(worker.__file__).parent) not in done.stdout.splitlines()
    assert str(tmp_path) in done.stdout.splitlines()


def test_status_tells_each_state_and_its_reason(tmp_path, capsys) -> None:
    running, failed, interrupted, missing = plan(
        "quick", steps=["resnet", "width", "gelu", "layer_norm"]
    )
    worker = working(running.folder(tmp_path))
    entry = {"step": 30, "total_steps": 40}
    (running.folder(tmp_path) / HISTORY).write_text(json.dumps(entry) + "\n")
    failed.folder(tmp_path).mkdir(parents=True)
    record_failure(failed.folder(tmp_path), "ValueError: why")
    interrupted.folder(tmp_path).mkdir(parents=True)
    prepare(interrupted, interrupted.folder(tmp_path))
    assert status(running, tmp_path, {}).state == "running"
    assert status(missing, tmp_path, {}).state == "missing"
    steps = [run.step for run in (running, failed, interrupted, missing)]
    assert cli.main(["status", "--results", str(tmp_path), "--steps", *steps]) == 0
    out = capsys.readouterr().out
    assert f"running  75 % of its training, process {worker.pid} on {socket.gethostname()}" in out
    assert "failed   ValueError: why" in out
    assert "missing  interrupted" in out
    assert "1 running, 1 failed, 2 missing" in out


def test_an_index_beyond_the_plan(capsys, tmp_path) -> None:
    arguments = ["study", "--index", "17", "--results", str(tmp_path)]
    assert cli.main(arguments) == 2
    assert "the plan's runs are 0 to 16" in capsys.readouterr().err
