"""All that work on one study at once, killed at random moments, again and again."""

import contextlib
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from studies import (
    descendants,
    ended,
    install_kernel,
    no_leftovers,
    one_of_an_array,
    plan,
    results_without_times,
    study,
    trained_once,
)

from convnext_steps.study.results import RESULT

pytestmark = pytest.mark.slow

KILLS = 12


class Crowd:
    """Two runners, one of them with workers, and a papermill array, begun again when they end."""

    def __init__(self, results: Path, chance: random.Random) -> None:
        self.results, self.chance, self.seeds = results, chance, 2
        self.written: dict[Path, tuple[int, int]] = {}
        self.processes: dict[str, subprocess.Popen] = {}

    def start(self, kind: str) -> None:
        with self.results.with_suffix(".log").open("a") as log:
            pipes = {"stdout": log, "stderr": log}
            if kind == "array":
                run = self.chance.choice(plan("smoke", seeds=range(self.seeds)))
                self.processes[kind] = one_of_an_array(run, self.results, **pipes)
            else:
                way = f"how.notebooks={'true' if kind == 'runner' else 'false'}"
                seeds = [str(seed) for seed in range(self.seeds)]
                options = ["--seeds", *seeds, "--set", way, "--workers", "1"]
                self.processes[kind] = study(self.results, *options, **pipes)

    def tend(self) -> None:
        """Begin anew what has ended; where all is done, there is more of it."""
        if len(list(self.results.rglob(RESULT))) == 2 * self.seeds:
            self.seeds += 1
        for kind in ("runner", "worker", "array"):
            if kind not in self.processes or self.processes[kind].poll() is not None:
                self.start(kind)

    def check_that_nothing_is_done_twice(self) -> None:
        """A result file, once it is there, is never written again."""
        for path in self.results.rglob(RESULT):
            found = path.stat()
            mark = (found.st_ino, found.st_mtime_ns)
            assert self.written.setdefault(path, mark) == mark, path

    def kill(self) -> None:
        """Kill one of all their processes, some time later."""
        time.sleep(self.chance.uniform(0, 5))
        self.check_that_nothing_is_done_twice()
        victim = self.chance.choice(descendants(*(p.pid for p in self.processes.values())))
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)

    def stop(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


def test_killed_at_random_moments_a_study_ends_as_if_it_had_not_been(tmp_path) -> None:
    seed = int(os.environ.get("FAULTS_SEED", time.time()))
    print(f"FAULTS_SEED={seed}")
    crowd = Crowd(tmp_path / "disturbed", random.Random(seed))
    for _ in range(KILLS):
        crowd.tend()
        crowd.kill()
    crowd.stop()
    seeds = ["--seeds", *(str(number) for number in range(crowd.seeds))]
    ended(study(crowd.results, *seeds))
    ended(study(tmp_path / "undisturbed", *seeds, "--set", "how.notebooks=false"))
    crowd.check_that_nothing_is_done_twice()
    results = results_without_times(crowd.results)
    assert results == results_without_times(tmp_path / "undisturbed")
    assert len(results) == 2 * crowd.seeds
    assert no_leftovers(crowd.results)
    assert trained_once(crowd.results)


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
    install_kernel(tmp_path / "jupyter", program)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    _, err = ended(study(tmp_path / "results", "--steps", "resnet"))
    assert "resnet seed 0 is tried again: RuntimeError: Kernel died" in err
    assert len(results_without_times(tmp_path / "results")) == 1
    assert no_leftovers(tmp_path / "results")
