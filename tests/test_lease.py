"""Leases: no run is done twice, and an abandoned one is taken over."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

import pytest

from convnext_steps import cli
from convnext_steps.execution import lock as lease
from convnext_steps.execution.lock import LEASE, Owner, claim, claims, holder, keep, release
from convnext_steps.execution.runfolder import prepare, record_failure, status
from convnext_steps.study.plan import plan
from convnext_steps.training.checkpoint import HISTORY


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


def take(folder, owner: Owner, age: float = 0.0) -> None:
    """Write another's lease, last renewed so many seconds ago."""
    folder.mkdir(exist_ok=True)
    (folder / LEASE).write_text(json.dumps(asdict(owner)))
    then = time.time() - age
    os.utime(folder / LEASE, (then, then))


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_claimed_run_cannot_be_claimed_again_until_it_is_released(folder, tmp_path) -> None:
    assert claim(folder, tmp_path)
    assert not claim(folder, tmp_path)
    assert keep(folder)
    release(folder)
    assert claim(folder, tmp_path)


@pytest.mark.parametrize("changes", [{"token": "another"}, {"space": "pid:[1]", "pid": 2**22 + 1}])
def test_a_process_of_the_same_number_or_of_other_numbers_is_another(
    folder, tmp_path, changes
) -> None:
    """As in containers, which may all be process 1 of one machine."""
    take(folder, replace(Owner.me(), **changes), age=10)
    assert not claim(folder, tmp_path)
    assert not keep(folder)
    release(folder)
    assert (folder / LEASE).exists()


def test_of_many_claims_at_once_one_wins(folder, tmp_path) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda _: claim(folder, tmp_path), range(40)))
    assert won.count(True) == 1


def test_of_many_takeovers_at_once_one_wins(folder, tmp_path) -> None:
    take(folder, Owner("elsewhere", 1), age=1000)
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda _: claim(folder, tmp_path), range(40)))
    assert won.count(True) == 1


@pytest.mark.parametrize(
    ("host", "alive", "age", "free"),
    [
        ("here", True, 0, False),
        ("here", True, 30, False),  # suspended for a while
        ("here", True, 100, True),  # for too long
        ("here", False, 0, False),  # its notebook may live a second longer
        ("here", False, 6, True),
        ("elsewhere", False, 30, False),  # nobody can tell
        ("elsewhere", False, 100, True),
    ],
)
def test_a_lease_without_heartbeat_is_taken_over(folder, tmp_path, host, alive, age, free) -> None:
    pid = os.getppid() if alive else dead_process()
    take(
        folder, replace(Owner.me(), pid=pid, host=Owner.me().host if host == "here" else host), age
    )
    assert claim(folder, tmp_path) == free


def test_who_has_lost_a_lease_learns_it_and_does_not_release_it(folder, tmp_path) -> None:
    assert claim(folder, tmp_path)
    take(folder, Owner("elsewhere", 1))
    assert not keep(folder)
    release(folder)
    with claims(tmp_path) as now:
        assert holder(folder, now) == Owner("elsewhere", 1)


def test_a_heartbeat_renews(folder, tmp_path) -> None:
    assert claim(folder, tmp_path)
    os.utime(folder / LEASE, (1, 1))
    assert keep(folder)
    assert (folder / LEASE).stat().st_mtime > time.time() - 10


def test_a_lease_cut_off_is_nobodys_until_it_is_old(folder, tmp_path) -> None:
    folder.mkdir()
    (folder / LEASE).write_text('{"host": "he')
    assert not claim(folder, tmp_path)
    os.utime(folder / LEASE, (1, 1))
    assert claim(folder, tmp_path)


def test_status_tells_each_state_and_its_reason(tmp_path, capsys) -> None:
    running, failed, interrupted, missing = plan(
        "quick", steps=["resnet", "width", "gelu", "layer_norm"]
    )
    assert claim(running.folder(tmp_path), tmp_path)
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
    assert "running  75 % of its training" in out
    assert "failed   ValueError: why" in out
    assert "missing  interrupted" in out
    assert "1 running, 1 failed, 2 missing" in out


def test_an_index_beyond_the_plan(capsys, tmp_path) -> None:
    arguments = ["study", "--index", "17", "--results", str(tmp_path)]
    assert cli.main(arguments) == 2
    assert "the plan's runs are 0 to 16" in capsys.readouterr().err


def test_leases_do_not_outlive_the_heartbeat_they_need() -> None:
    assert lease.HEARTBEAT_SECONDS * 5 < lease.ABANDONED_SECONDS
