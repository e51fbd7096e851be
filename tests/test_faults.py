"""Kernel, worker and runner killed at random moments, again and again, in one study."""

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from studies import kernels_below, no_leftovers, processes, results_without_times, study

from convnext_steps.study.results import RESULT

pytestmark = pytest.mark.slow

KILLS = 20


class Study:
    """A study in a process of its own, with so many seeds, begun again whenever it has ended."""

    def __init__(self, results: Path) -> None:
        self.results, self.seeds = results, 2
        self.written: dict[Path, tuple[int, int]] = {}
        self.start()

    def start(self) -> None:
        log = self.results.with_suffix(".log")
        with log.open("a") as file:
            seeds = [str(seed) for seed in range(self.seeds)]
            self.process = study(self.results, "--seeds", *seeds, stdout=file, stderr=file)

    def check_that_nothing_is_done_twice(self) -> None:
        """A result file, once it is there, is never written again."""
        for path in self.results.rglob(RESULT):
            found = path.stat()
            mark = (found.st_ino, found.st_mtime_ns)
            assert self.written.setdefault(path, mark) == mark, path

    def victims(self) -> dict[str, list[int]]:
        """The processes to choose from, by their part in the study."""
        below = {child for child, parent, _ in processes() if parent == self.process.pid}
        workers = [
            pid for pid, _, command in processes() if pid in below and "worker.py" in command
        ]
        return {
            "kernel": kernels_below(self.process.pid),
            "worker": workers,
            "runner": [self.process.pid],
        }


def test_killed_twenty_times_a_study_ends_as_if_it_had_not_been(tmp_path) -> None:
    seed = int(os.environ.get("FAULTS_SEED", time.time()))
    print(f"FAULTS_SEED={seed}")
    chance, kills = random.Random(seed), Counter[str]()
    disturbed = Study(tmp_path / "disturbed")
    while kills.total() < KILLS:
        time.sleep(chance.uniform(0.2, 4))
        disturbed.check_that_nothing_is_done_twice()
        if disturbed.process.poll() is not None:
            disturbed.seeds += disturbed.process.returncode == 0  # all done already: more of it
            disturbed.start()
        elif victims := disturbed.victims()[kind := chance.choice(["kernel", "worker", "runner"])]:
            os.kill(chance.choice(victims), signal.SIGKILL)
            kills[kind] += 1
    print(kills)
    assert min(kills[kind] for kind in ("kernel", "worker", "runner")) > 0
    disturbed.process.wait(timeout=300)
    disturbed.start()
    assert disturbed.process.wait(timeout=300) == 0
    disturbed.check_that_nothing_is_done_twice()

    seeds = [str(number) for number in range(disturbed.seeds)]
    undisturbed = study(tmp_path / "undisturbed", "--seeds", *seeds)
    undisturbed.communicate(timeout=300)
    results = results_without_times(disturbed.results)
    assert results == results_without_times(tmp_path / "undisturbed")
    assert len(results) == 2 * disturbed.seeds
    assert no_leftovers(disturbed.results)
    for history in disturbed.results.rglob("history.jsonl"):
        steps = [json.loads(line)["step"] for line in history.open()]
        assert steps == sorted(steps)
        assert steps.count(1) == 1


def test_a_kernel_that_does_not_start_is_tried_again(tmp_path, monkeypatch) -> None:
    once = tmp_path / "tried"
    program = (
        "import os, pathlib, sys\n"
        f"once = pathlib.Path({str(once)!r})\n"
        "if not once.exists():\n"
        "    once.touch()\n"
        "    sys.exit(1)\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'ipykernel_launcher', *sys.argv[1:]])\n"
    )
    folder = tmp_path / "jupyter" / "kernels" / "python3"
    folder.mkdir(parents=True)
    argv = [sys.executable, "-c", program, "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    process = study(tmp_path / "results", "--steps", "resnet")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "resnet seed 0 is tried again: RuntimeError: Kernel died" in err
    assert len(results_without_times(tmp_path / "results")) == 1
    assert no_leftovers(tmp_path / "results")
