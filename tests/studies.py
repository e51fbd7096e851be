"""What the tests of studies share."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from convnext_steps import Network, Study, find_step, load_study, scaled
from convnext_steps.files import write_json
from convnext_steps.study.loading import of_the_study
from convnext_steps.study.plan import Run
from convnext_steps.study.results import RESULT, SCHEMA, all_results, checksum, read_result
from convnext_steps.training.trainer import seed_everything

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
TIMES = ("seconds", "written", "checksum")  # the checksum covers the times


def small(step: str = "separate_downsampling", **options: Any) -> Network:
    """A step's network at a tiny size, for the images of `synthetic`: the same each time."""
    seed_everything(0)
    design = scaled(find_step(step).design, width=1 / 8, depth=1 / 3, stem_stride=2)
    return Network(design, in_channels=1, num_classes=4, **options)


def torch_macs(model: nn.Module, side: int, channels: int = 3) -> int:
    """A network's multiply-adds for one image, as PyTorch's own counter has them."""
    images = torch.empty(1, channels, side, side, device=next(model.parameters()).device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(images)
    return counter.get_total_flops() // 2


def the_study(name: str = "quick", roadmap: str = "tiny") -> Study:
    """A study of the package, on one of the roadmaps."""
    named = name if roadmap == "tiny" else f"{name}_{roadmap}"
    return load_study(name).change({"roadmap": roadmap}, named)


def plan(
    name: str = "quick",
    roadmap: str = "tiny",
    steps: Sequence[str] | None = None,
    seeds: Iterable[int] = (0,),
) -> list[Run]:
    """The runs of a study of the package."""
    return the_study(name, roadmap).plan(seeds, steps)


def result_of(run: Run, accuracy: float = 80.0, **changes) -> dict:
    result = {
        "schema": SCHEMA,
        "hash": run.hash,
        "study": run.study,
        "step": run.step,
        "seed": run.seed,
        "accuracy": accuracy,
        "loss": 0.5,
        "correct": round(100 * accuracy),
        "test_images": 10_000,
        "macs": 2_500_000,
        "params": 500_000,
        "environment": {"commit": "abc"},
        "data": {"content": "some"},
        "recipe": {"batch_size": 64},
        "training_steps": 600,
        "seconds": {"training": 30.0, "evaluation": 2.0},
    } | changes
    return result | {"checksum": checksum(result)}


def put(run: Run, results, accuracy: float = 80.0, **changes) -> None:
    folder = run.folder(results)
    folder.mkdir(parents=True)
    write_json(folder / RESULT, result_of(run, accuracy, **changes))


def table_of(results: Path, name: str = "quick", roadmap: str = "tiny") -> pd.DataFrame:
    """The results of a study in a folder; the published ones do not take their place."""
    return of_the_study(all_results(results), the_study(name, roadmap))


def study(results: Path, *options: str, **keywords) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "convnext_steps", "study", "smoke"]
    command += ["--results", str(results), *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, **(pipes | keywords))


def ended(process: "subprocess.Popen[str]", code: int = 0) -> tuple[str, str]:
    """What a process printed, once it has ended as it should."""
    out, err = process.communicate(timeout=600)
    assert process.returncode == code, err or out
    return out, err


def results_without_times(folder: Path) -> dict[str, dict]:
    found = {}
    for path in sorted(folder.rglob(RESULT)):
        result = read_result(path)
        for name in TIMES:
            del result[name]
        found[str(path.relative_to(folder))] = result
    return found


def trained_once(results: Path) -> bool:
    """Whether no step of any run was done twice: training appends to its history."""
    histories = [path.read_text().splitlines() for path in results.rglob("history.jsonl")]
    steps = [[json.loads(line)["step"] for line in lines] for lines in histories]
    return all(each == sorted(each) and each.count(1) == 1 for each in steps)


def no_leftovers(results: Path) -> bool:
    partial = [path for path in results.rglob("*") if "partial" in path.name]
    return partial == [] and not list(results.rglob("checkpoint-*"))


def wait_for(condition: Callable[[], Any], seconds: float = 300) -> Any:
    """The condition's value, as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"still waiting after {seconds} s"
        time.sleep(0.02)
    return found


def papermill(output: Path, values: Mapping[str, str], **keywords) -> "subprocess.Popen[str]":
    """`run_step.ipynb` by plain papermill, in the folder of what it writes."""
    command = [sys.executable, "-m", "papermill", str(NOTEBOOKS / "run_step.ipynb"), str(output)]
    for name, value in values.items():
        command += ["-p", name, value]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(
        command, text=True, cwd=output.parent, env=environment, **(pipes | keywords)
    )


def one_of_an_array(
    run: Run, results: Path, changes: str = "", **keywords
) -> "subprocess.Popen[str]":
    """A run by plain papermill, as a task of a job array does it."""
    values = {"STUDY": "smoke", "CHANGES": changes, "STEP": run.step, "SEED": str(run.seed)}
    output = results.parent / f"{run.study}-{run.step}-{run.seed}.ipynb"
    return papermill(output, {**values, "RESULTS": str(results)}, **keywords)


def install_kernel(folder: Path, program: str) -> None:
    """Make a program the kernel of notebooks, where JUPYTER_PATH is this folder."""
    argv = [sys.executable, "-c", program, "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "", "language": "python"}
    (folder / "kernels" / "python3").mkdir(parents=True)
    (folder / "kernels" / "python3" / "kernel.json").write_text(json.dumps(spec))


def descendants(*roots: int) -> list[int]:
    """These processes and all below them."""
    family = set(roots)
    for _ in range(4):
        family |= {child for child, parent, _ in processes() if parent in family}
    return sorted(family)


def processes() -> list[tuple[int, int, str]]:
    """Identifier, parent and command of every process."""
    command = ["ps", "-wweo", "pid,ppid,args"]
    listing = subprocess.run(command, capture_output=True, text=True).stdout
    rows = [line.split(None, 2) for line in listing.splitlines()[1:]]
    return [(int(pid), int(parent), "".join(command)) for pid, parent, *command in rows]
