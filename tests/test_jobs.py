"""The job templates for clusters."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from studies import plan

from convnext_steps import cli, execution
from convnext_steps.study.results import all_results

JOBS = Path(execution.__file__).parent / "jobs"


def environment(**variables: str) -> dict[str, str]:
    """This environment's programs first, as after `conda activate`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return dict(os.environ) | {"PATH": path} | variables


def container() -> tuple[dict, dict]:
    job = yaml.safe_load((JOBS / "kubernetes.yml").read_text())["spec"]
    return job, job["template"]["spec"]["containers"][0]


def test_the_indexed_job_has_an_index_for_every_run_of_the_plan() -> None:
    job, _ = container()
    assert job["completionMode"] == "Indexed"
    assert job["completions"] == len(plan("quick"))


def commands(results: Path, index: int) -> list[tuple[list[str], dict[str, str]]]:
    options = ["smoke", "--results", str(results)]
    _, pod = container()
    script = pod["args"][0].replace("/results", str(results)).replace("quick", "smoke")
    return [
        (["bash", str(JOBS / "slurm.sh"), *options], {"SLURM_ARRAY_TASK_ID": str(index)}),
        ([*pod["command"], script], {"JOB_COMPLETION_INDEX": str(index)}),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [0, 1], ids=["slurm", "kubernetes"])
def test_each_task_does_its_own_run(tmp_path, kind) -> None:
    for index, run in enumerate(plan("smoke")):
        command, variables = commands(tmp_path, index)[kind]
        subprocess.run(command, env=environment(**variables), check=True, timeout=200)
        assert list(all_results(tmp_path)["step"])[-1:] == [run.step]
    assert len(all_results(tmp_path)) == 2


def test_the_ray_job_calls_the_command_with_options_that_it_has() -> None:
    job = yaml.safe_load((JOBS / "ray_kubernetes.yml").read_text())
    program, *arguments = shlex.split(job["spec"]["entrypoint"])
    assert program == "convnext-steps"
    assert cli.parse(arguments).address == "auto"


@pytest.mark.slow
def test_a_ray_cluster_within_a_slurm_job(tmp_path) -> None:
    """With `srun` and `scontrol` as they are for a job of one node, and without a dashboard."""
    pytest.importorskip("ray")
    srun = 'exec "$1" "$2" --include-dashboard=false "${@:3}"'
    for name, command in {"srun": srun, "scontrol": "echo 127.0.0.1"}.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{command}\n")
        (tmp_path / name).chmod(0o755)
    variables = environment(
        SLURM_JOB_NODELIST="one", SLURM_JOB_NUM_NODES="1", SLURM_CPUS_PER_TASK="1"
    )
    variables["PATH"] = f"{tmp_path}{os.pathsep}{variables['PATH']}"
    command = ["bash", str(JOBS / "ray_slurm.sh"), "smoke", "--results"]
    subprocess.run([*command, str(tmp_path / "results")], env=variables, check=True, timeout=400)
    assert len(all_results(tmp_path / "results")) == 2
