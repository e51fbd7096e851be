"""Where the time of a study goes: one run's parts, many runs at once, and the bookkeeping."""

import json
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from convnext_steps.execution.backends import Backend
from convnext_steps.execution.evidence import environment
from convnext_steps.execution.local import parameters
from convnext_steps.execution.notebook import find_notebook, start_notebook
from convnext_steps.execution.report import report
from convnext_steps.execution.runner import Runner, open_backend, run_study
from convnext_steps.execution.train_run import PARTIAL_RESULT
from convnext_steps.study.plan import Run, plan
from convnext_steps.study.results import RESULT, SCHEMA, checksum, read_result


def run_times(profile: str, regime: str, step: str | None) -> dict[str, Any]:
    """Time one run of a study from the start of its process to its result, part by part."""
    (run,) = plan(profile, regime, [step or "separate_downsampling"])
    with tempfile.TemporaryDirectory() as folder:
        notebook = Path(folder, "executed.ipynb")
        start = time.perf_counter()
        given = parameters(run, Path(folder))
        process = start_notebook(find_notebook("run_step"), notebook, given, threads=1)
        process.wait()
        wall = time.perf_counter() - start
        result = read_result(Path(folder, PARTIAL_RESULT))
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    durations = [cell["metadata"].get("papermill", {}).get("duration") or 0.0 for cell in cells]
    importing = next(place for place, cell in enumerate(cells) if "import " in cell["source"][0])
    imports = durations[importing]
    seconds = result["seconds"]
    times = {
        "papermill and kernel": wall - sum(durations),
        "imports": imports,
        "training": seconds["training"],
        "evaluation": seconds["evaluation"],
        "diff, counts, data, plot": sum(durations) - imports - sum(seconds.values()),
    }
    return {"run": run.name, "profile": profile, "wall": wall, "seconds": times}


def runs_per_hour(
    profile: str,
    regime: str,
    workers: Sequence[int],
    backend: str = "local",
    address: str | None = None,
) -> dict[int, float]:
    """How many runs an hour are done with so many workers, by their number.

    Each number has the same runs to do: of the profile's last step, four seeds for each of the most
    workers. One run for each goes before, untimed: by then every worker has imported what it needs.

    Raises:
        StudyError: a run failed.
    """
    step, most = plan(profile, regime)[-1].step, max(workers)
    runs = plan(profile, regime, [step], range(4 * most))
    with closing(open_backend(backend, address)) as chosen:
        _seconds(runs[:most], chosen, most)
        return {count: 3600 * len(runs) / _seconds(runs, chosen, count) for count in workers}


def _seconds(runs: Sequence[Run], backend: Backend, workers: int) -> float:
    with tempfile.TemporaryDirectory(dir=".") as folder:  # where other nodes may see it
        runner = Runner(runs, Path(folder).resolve(), backend, workers)
        start = time.perf_counter()
        runner.execute()
        seconds = time.perf_counter() - start
    runner.check()
    return seconds


def bookkeeping_times(count: int) -> dict[str, float]:
    """Plan a study of so many results, find what is missing (nothing), and report, in seconds.

    The results are made up: the `quick` study's, with accuracies that mean nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        seeds = range(-(-count // len(plan("quick"))))
        made_with = environment()
        for number, run in enumerate(plan("quick", seeds=seeds)[:count]):
            result = {"schema": SCHEMA, "hash": run.hash, **asdict(run)}
            result |= {"accuracy": 80 + number % 100 / 10, "loss": 0.5, "macs": 1, "params": 1}
            result |= {"environment": made_with, "seconds": {"training": 1.0, "evaluation": 1.0}}
            result["checksum"] = checksum(result)
            run.folder(folder).mkdir(parents=True)
            (run.folder(folder) / RESULT).write_text(json.dumps(result, indent=2))
        moments = [time.perf_counter()]
        runs = plan("quick", seeds=seeds)[:count]
        moments.append(time.perf_counter())
        missing = run_study(runs, folder)
        assert missing == 0
        moments.append(time.perf_counter())
        report(folder, "quick")
        moments.append(time.perf_counter())
    parts = ("planning", "finding what is missing", "reporting")
    return {
        part: end - start for part, start, end in zip(parts, moments, moments[1:], strict=False)
    }
