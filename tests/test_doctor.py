"""convnext-steps doctor: a line per check, and every failing one says what to do."""

import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from studies import install_kernel

import convnext_steps
from convnext_steps.cli import doctor as command
from convnext_steps.execution import doctor, machine
from convnext_steps.execution.doctor import GIB, CheckError


def test_nothing_fails_here(told, tmp_path) -> None:
    lines = told("doctor", "--results", tmp_path / "results").out.splitlines()
    assert [line[6:26].strip() for line in lines] == list(doctor.checks(tmp_path))
    assert all(line.startswith(("ok    ", "warn  ")) for line in lines)
    for name in ("Python, packages", "disk and locks", "notebook kernel"):
        assert any(line.startswith(f"ok    {name}  ") for line in lines)
    assert list(tmp_path.iterdir()) == []


def test_each_finding_is_a_line_and_a_fatal_one_the_exit_code(told, monkeypatch) -> None:
    """A check that breaks has failed, and the others go on."""

    def raising(error: Exception):
        def check() -> str:
            raise error

        return check

    found = {
        "one": raising(CheckError("slow; hurry", fatal=False)),
        "two": raising(CheckError("lost; seek")),
        "three": raising(RuntimeError("first line\nsecond line")),
        "four": lambda: "fine",
    }
    monkeypatch.setattr(command, "checks", lambda results: found)
    lines = told("doctor", code=1).out.splitlines()
    assert [line[:6] + line[28:] for line in lines] == [
        "warn  slow; hurry",
        "fail  lost; seek",
        f"fail  RuntimeError: first line; {command.REMEDY}",
        "ok    fine",
    ]


def test_packages_that_are_old_or_missing(monkeypatch) -> None:
    needs = ["pandas>=99", "no-such-package>=1", "numpy>=1", 'ruff>=99; extra == "dev"']
    monkeypatch.setattr(metadata, "requires", lambda name: needs)
    with pytest.raises(CheckError, match=r"pip install .pandas>=99. .no-such-package>=1.$"):
        doctor.packages()


def test_without_the_kernels_training_goes_on(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "convnext_steps.cpu.kernels", raising=False)
    with pytest.raises(CheckError, match=r"--upgrade 'convnext-steps\[fast\]'") as problem:
        doctor.numba()
    assert not problem.value.fatal


def test_memory_and_disk_that_are_too_little(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(doctor, "cores", lambda: 8)
    monkeypatch.setattr(doctor, "memory", lambda: 3 * GIB)
    with pytest.raises(CheckError, match=r"3\.0 GiB for 8 cores; convnext-steps study --workers 3"):
        doctor.enough_memory()
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=GIB))
    with pytest.raises(CheckError, match=r"1\.0 GiB free in .*; free some"):
        doctor.disk(tmp_path)
    with pytest.raises(ValueError, match="cannot write to the folder"):
        doctor.disk(Path("/proc/nowhere"))


def test_locks_that_keep_nobody_out(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(doctor, "TRY_LOCK", "pass")
    with pytest.raises(CheckError, match="two processes got the same lock; put --results on"):
        doctor.disk(tmp_path)


def test_a_container_has_less_than_its_machine(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(machine, "CPU_LIMIT", tmp_path / "cpu")
    monkeypatch.setattr(machine, "MEMORY_LIMIT", tmp_path / "memory")
    whole = machine.cores(), machine.memory()
    (tmp_path / "cpu").write_text("max 100000")
    (tmp_path / "memory").write_text("max")
    assert (machine.cores(), machine.memory()) == whole
    (tmp_path / "cpu").write_text("50000 100000")
    (tmp_path / "memory").write_text(str(GIB))
    assert (machine.cores(), machine.memory()) == (1, GIB)


def test_a_driver_without_a_gpu_that_pytorch_sees(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    with pytest.raises(CheckError, match="an NVIDIA driver, but PyTorch sees no GPU"):
        doctor.gpu()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert doctor.gpu() == "none; training runs on the CPU"
    with pytest.raises(CheckError, match="tests in a browser are skipped"):
        doctor.browser()


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("raise SystemExit(1)", "Kernel died"),
        (
            "import sys; sys.prefix = '/other'; exec({launch!r})",
            "belongs to another Python, /other",
        ),
    ],
)
def test_a_kernel_that_dies_or_is_anothers(monkeypatch, tmp_path, program, reason) -> None:
    launch = "from ipykernel.kernelapp import launch_new_instance; launch_new_instance()"
    install_kernel(tmp_path, program.format(launch=launch))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    with pytest.raises((CheckError, RuntimeError), match=reason):
        doctor.kernel()


@pytest.mark.slow
def test_a_torchvision_that_cannot_be_imported(tmp_path) -> None:
    """The doctor speaks where nothing else of the library can be imported."""
    (tmp_path / "torchvision").mkdir()
    error = 'raise RuntimeError("operator torchvision::nms does not exist")\n'
    (tmp_path / "torchvision" / "__init__.py").write_text(error)
    paths = [str(tmp_path), str(Path(convnext_steps.__file__).parents[1])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    program = [sys.executable, "-m", "convnext_steps"]
    keywords = {"capture_output": True, "text": True, "cwd": tmp_path, "env": environment}
    told = subprocess.run([*program, "doctor"], **keywords)
    assert (told.returncode, told.stderr) == (1, "")
    assert "nms does not exist; pip install --force-reinstall torch torchvision" in told.stdout
    assert len(told.stdout.splitlines()) == len(doctor.checks(tmp_path))
    stopped = subprocess.run([*program, "steps"], **keywords)
    assert stopped.returncode == 1
    assert stopped.stderr == (
        "convnext-steps: RuntimeError: operator torchvision::nms does not exist; "
        "`convnext-steps doctor` says what to do\n"
    )
