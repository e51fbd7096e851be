"""Kernel, worker and runner killed at random moments, again and again, in one study."""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
from studies import kernels_below, no_leftovers, processes, results_without_times, study

from convnext_steps.study.results import RESULT

pytestmark = pytest.mark.slow

KILLS = 20


class Study:
    """A study in a process of its own, begun again whenever it has ended."""

    def __init__(self, results: Path, chance: random.Random) -> None:
        self.results, self.chance, self.seeds = results, chance, 2
        self.written: dict[Path, tuple[int, int]] = {}
        self.start()

    def start(self) -> None:
        seeds = [str(seed) for seed in range(self.seeds)]
        with self.results.with_suffix(".log").open("a") as log:
            self.process = study(self.results, "--seeds", *seeds, stdout=log, stderr=log)

    def check_that_nothing_is_done_twice(self) -> None:
        """A result file, once it is there, is never written again."""
        for path in self.results.rglob(RESULT):
            found = path.stat()
            mark = (found.st_ino, found.st_mtime_ns)
            assert self.written.setdefault(path, mark) == mark, path

    def parts(self, kind: str) -> list[int]:
        """The processes of one kind: kernels, papermill's workers, or the runner."""
        if kind == "runner":
            return [self.process.pid]
        if kind == "kernel":
            return kernels_below(self.process.pid)
        ours = [entry for entry in processes() if entry[1] == self.process.pid]
        return [pid for pid, _, command in ours if "worker.py" in command]

    def kill(self, kind: str) -> None:
        """Kill one process of a kind, some time after a run has begun."""
        while True:
            if self.process.poll() is not None:
                self.seeds += self.process.returncode == 0  # all is done: more of it
                self.start()
            elif self.parts("kernel"):
                time.sleep(self.chance.uniform(0, 4))
                self.check_that_nothing_is_done_twice()
                if self.process.poll() is None and (victims := self.parts(kind)):
                    os.kill(self.chance.choice(victims), signal.SIGKILL)
                    return
            time.sleep(0.1)


def test_killed_twenty_times_a_study_ends_as_if_it_had_not_been(tmp_path) -> None:
    seed = int(os.environ.get("FAULTS_SEED", time.time()))
    print(f"FAULTS_SEED={seed}")
    chance = random.Random(seed)
    disturbed = Study(tmp_path / "disturbed", chance)
    for kind in chance.sample(["kernel", "worker", "runner"] * 7, KILLS):
        disturbed.kill(kind)
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
