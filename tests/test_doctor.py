"""convnext-steps doctor: every check failing gives its remedy, in one line."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import pytest
import torch
import torchvision

import convnext_steps
from convnext_steps import cli
from convnext_steps.cli import doctor
from convnext_steps.execution import doctor as installation
from convnext_steps.execution import machine
from convnext_steps.execution.doctor import Finding
from convnext_steps.training import data

GIB = 2**30


def run(capsys, *arguments: str) -> tuple[int, list[str]]:
    options = cli.parse(["doctor", *arguments])
    code = options.command(options)
    return code, capsys.readouterr().out.splitlines()


def raising(error: Exception):
    def call(*arguments, **options):
        raise error

    return call


# --- The command ----------------------------------------------------------------------------


def test_nothing_fails_here(capsys, tmp_path) -> None:
    code, lines = run(capsys, "--results", str(tmp_path / "results"))
    assert code == 0
    assert [line[6:25].strip() for line in lines] == list(doctor.checks(tmp_path))
    assert all(line.startswith(("ok    ", "warn  ")) for line in lines)
    for name in ("torch, torchvision", "bundled data", "notebooks", "notebook kernel"):
        assert any(line.startswith(f"ok    {name}  ") for line in lines)
    assert str(tmp_path / "results") in "".join(lines)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("check", "code", "line"),
    [
        (lambda: Finding("ok", "fine"), 0, "ok    one                 fine"),
        (lambda: Finding("warn", "slow", "hurry"), 0, "warn  one                 slow; hurry"),
        (lambda: Finding("fail", "lost", "seek"), 1, "fail  one                 lost; seek"),
        (
            raising(RuntimeError("first line\nsecond line")),
            1,
            f"fail  one                 RuntimeError: first line; {doctor.REMEDY}",
        ),
        (raising(KeyError()), 1, f"fail  one                 KeyError; {doctor.REMEDY}"),
    ],
)
def test_each_finding_is_a_line_and_a_failure_the_exit_code(
    capsys, monkeypatch, check, code, line
) -> None:
    """A check that breaks is a failure of its own, and the others go on."""
    other = lambda: Finding("ok", "still here")  # noqa: E731
    monkeypatch.setattr(doctor, "checks", lambda results: {"one": check, "two": other})
    assert run(capsys) == (code, [line, "ok    two                 still here"])


# --- The installation -----------------------------------------------------------------------


def test_an_old_python(monkeypatch) -> None:
    monkeypatch.setattr(installation.platform, "python_version", lambda: "3.9.1")
    finding = installation.python()
    assert finding.level == "fail"
    assert "3.9.1 is not >=3.11; make setup PYTHON=python3.11" in str(finding)


def test_packages_that_are_old_or_missing(monkeypatch) -> None:
    needs = ["pandas>=99", "no-such-package>=1", "numpy>=1", 'ruff>=99; extra == "dev"']
    monkeypatch.setattr(metadata, "requires", lambda name: needs)
    finding = installation.packages()
    assert finding.level == "fail"
    assert f"pandas {metadata.version('pandas')} is not >=99, no-such-package" in finding.message
    assert finding.message.endswith("no-such-package is missing")
    assert finding.remedy == "pip install 'pandas>=99' 'no-such-package>=1'"


@pytest.mark.parametrize(
    ("torch_version", "needed", "level"),
    [  # as torchvision's own releases and a build of one's own require torch
        ("2.8.0", "torch==2.8.0", "ok"),
        ("2.5.1+cu124", "torch==2.5.1", "ok"),
        ("2.15.0+cu132", "torch>=2.14.0", "ok"),
        ("2.9.0a0+git1", "torch", "ok"),
        ("2.8.0", "torch==2.7.1", "fail"),
        ("2.7.1", "torch==2.8.0", "fail"),
        ("2.13.1", "torch>=2.14.0", "fail"),
    ],
)
def test_torch_is_what_torchvision_needs(monkeypatch, torch_version, needed, level) -> None:
    versions = {"torch": torch_version, "torchvision": "0.23.0"}
    monkeypatch.setattr(metadata, "version", versions.__getitem__)
    monkeypatch.setattr(metadata, "requires", {"torchvision": ["numpy", needed]}.__getitem__)
    finding = installation.torch_pair()
    assert finding.level == level
    assert f"torch {torch_version} and torchvision 0.23.0" in finding.message
    if level == "fail":
        assert f"it needs {needed}" in finding.message
        assert finding.remedy == "pip install --force-reinstall torch torchvision"


@pytest.mark.parametrize(
    ("nms", "reason"),
    [
        (raising(RuntimeError("operator torchvision::nms does not exist\n...")), "does not exist"),
        (lambda boxes, scores, threshold: torch.tensor([0, 1]), "kept the boxes [0, 1], not [0]"),
    ],
)
def test_torchvision_whose_operators_do_not_run(monkeypatch, nms, reason) -> None:
    monkeypatch.setattr(torchvision.ops, "nms", nms)
    finding = installation.torch_pair()
    assert finding.level == "fail"
    assert reason in finding.message
    assert "\n" not in str(finding)
    assert finding.remedy == "pip install --force-reinstall torch torchvision"


def test_numba_missing(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    finding = installation.numba()
    assert (finding.level, finding.remedy) == (
        "warn",
        "pip install --upgrade 'convnext-steps[fast]'",
    )
    assert "train slowly" in finding.message


def test_numba_whose_kernels_do_not_compile(monkeypatch) -> None:
    pytest.importorskip("numba")
    monkeypatch.setattr(importlib, "import_module", raising(ImportError("NumPy 2.9 is too new")))
    finding = installation.numba()
    assert finding.level == "warn"
    assert "ImportError: NumPy 2.9 is too new; pip install" in str(finding)


def test_bundled_data_damaged_and_missing(monkeypatch, tmp_path) -> None:
    damaged, missing, *whole = data.SHA256
    for name in whole:
        (tmp_path / f"{name}.gz").symlink_to(data.ARCHIVES / f"{name}.gz")
    content = bytearray((data.ARCHIVES / f"{damaged}.gz").read_bytes())
    content[1000] ^= 1
    (tmp_path / f"{damaged}.gz").write_bytes(content)
    monkeypatch.setattr(data, "ARCHIVES", tmp_path)
    finding = installation.bundled_data()
    assert finding.level == "fail"
    assert finding.message == f"{damaged}.gz is damaged, {missing}.gz is missing"
    assert finding.remedy.startswith(f"git checkout -- {tmp_path}")


def test_a_notebook_that_is_not_found(monkeypatch) -> None:
    monkeypatch.setattr(installation, "NOTEBOOKS", ("run_step", "nowhere"))
    finding = installation.notebooks()
    assert (finding.level, finding.message) == ("fail", "not found: nowhere.ipynb")
    assert "checkout" in finding.remedy


# --- The notebook kernel --------------------------------------------------------------------


@pytest.fixture
def spoilt_kernel(monkeypatch, tmp_path):
    """Puts a program in the place of the python3 kernel."""

    def spoil(program: str) -> None:
        folder = tmp_path / "kernels" / "python3"
        folder.mkdir(parents=True)
        spec = {"argv": [sys.executable, "-c", program], "display_name": "", "language": "python"}
        (folder / "kernel.json").write_text(json.dumps(spec))
        monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))

    return spoil


def test_a_kernel_that_dies(spoilt_kernel) -> None:
    spoilt_kernel("raise SystemExit(1)")
    finding = installation.kernel()
    assert finding.level == "fail"
    assert "python3 does not start: RuntimeError: Kernel died" in finding.message
    assert finding.remedy == f"{sys.executable} -m pip install --force-reinstall ipykernel"


def test_a_kernel_that_never_answers(spoilt_kernel, monkeypatch, tmp_path) -> None:
    """It is waited for until the time limit, and stopped."""
    spoilt_kernel(
        "import os, pathlib, time\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n"
        "time.sleep(600)"
    )
    monkeypatch.setattr(installation, "KERNEL_SECONDS", 5)
    finding = installation.kernel()
    assert finding.level == "fail"
    assert "didn't respond in 5 seconds" in finding.message
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_the_kernel_that_was_asked_is_stopped() -> None:
    (pid,) = installation.ask_kernel("__import__('os').getpid()")
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


@pytest.mark.parametrize(
    ("answers", "level", "message", "remedy"),
    [
        (["3", repr(sys.prefix)], "fail", "python3 answers 3 to 1 + 1", "ipykernel"),
        (["2", "'/other'"], "warn", "python3 is another Python, of '/other'", "-m ipykernel inst"),
        (["2", repr(sys.prefix)], "ok", "python3 starts and answers", ""),
    ],
)
def test_what_a_kernel_answers(monkeypatch, answers, level, message, remedy) -> None:
    monkeypatch.setattr(installation, "ask_kernel", lambda *expressions: answers)
    finding = installation.kernel()
    assert (finding.level, finding.message) == (level, message)
    assert remedy in finding.remedy


# --- The machine ----------------------------------------------------------------------------

Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(
    ("free", "results_level", "data_level"),
    [(GIB // 4, "fail", "warn"), (3 * GIB, "warn", "warn"), (50 * GIB, "ok", "ok")],
)
def test_free_disk(monkeypatch, tmp_path, free, results_level, data_level) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(100 * GIB, 0, free))
    monkeypatch.setenv("CONVNEXT_STEPS_DATA", str(tmp_path / "cache"))
    results, cache = machine.results_disk(tmp_path / "results"), machine.data_disk()
    assert (results.level, cache.level) == (results_level, data_level)
    assert f"{free / GIB:.1f} GiB free" in results.message
    assert str(tmp_path / "cache") in cache.message
    assert ("--results" in results.remedy) == (results_level != "ok")
    assert ("$CONVNEXT_STEPS_DATA" in cache.remedy) == (data_level != "ok")


def test_a_folder_that_cannot_be_written(monkeypatch, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CONVNEXT_STEPS_DATA", str(tmp_path / "file"))
    results, cache = machine.results_disk(tmp_path / "file" / "results"), machine.data_disk()
    assert (results.level, cache.level) == ("fail", "warn")
    assert "cannot be written" in results.message
    assert "cannot be written" in cache.message


@pytest.mark.parametrize(
    ("memory", "level", "text"),
    [
        (16 * GIB, "ok", "8 cores, 16.0 GiB of memory"),
        (3 * GIB, "warn", "8 cores, 3.0 GiB of memory; use --workers 3"),
        (GIB // 2, "warn", "8 cores, 0.5 GiB of memory; use --workers 1"),
        (None, "ok", "8 cores, memory not known"),
    ],
)
def test_memory_for_a_run_on_each_core(monkeypatch, memory, level, text) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 8)
    monkeypatch.setattr(machine, "memory", lambda: memory)
    finding = machine.cores_and_memory()
    assert (finding.level, str(finding)) == (level, text)


@pytest.mark.parametrize(("text", "count"), [("max 100000", 8), ("250000 100000", 2), ("5 10", 1)])
def test_a_containers_limit_is_the_cores(monkeypatch, tmp_path, text, count) -> None:
    limit = tmp_path / "cpu.max"
    limit.write_text(f"{text}\n")
    monkeypatch.setattr(machine, "CPU_LIMIT", limit)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert machine.cores() == count


def test_a_containers_limit_is_the_memory(monkeypatch, tmp_path) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(machine, "MEMORY_LIMIT", limit)
    whole = machine.memory()
    limit.write_text("max\n")
    assert machine.memory() == whole
    limit.write_text("1048576\n")
    assert machine.memory() == 1048576
    monkeypatch.setattr(os, "sysconf", raising(ValueError("unrecognized configuration name")))
    assert machine.memory() is None


@pytest.mark.parametrize(
    ("supported", "architecture", "text"),
    [
        (lambda: True, "x86_64", "AVX2 with bf16"),
        (lambda: False, "x86_64", "AVX2 without bf16; keep to --precision fp32, the default"),
        (lambda: False, "aarch64", "AVX2; whether with bf16 is not known; to find out, conv"),
        (None, "x86_64", "AVX2; whether with bf16 is not known; to find out, convnext-steps ben"),
    ],
)
def test_bf16_of_the_processor(monkeypatch, supported, architecture, text) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", supported, raising=False)
    monkeypatch.setattr(machine.platform, "machine", lambda: architecture)
    finding = machine.processor()
    assert finding.level == "ok"
    assert str(finding).startswith(text)


@pytest.mark.parametrize(("bf16", "text"), [(True, "A100, A100, with bf16"), (False, "without")])
def test_gpus(monkeypatch, bf16, text) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "A100")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    finding = machine.gpus()
    assert finding.level == "ok"
    assert text in finding.message


@pytest.mark.parametrize(("driver", "level"), [("/usr/bin/nvidia-smi", "warn"), (None, "ok")])
def test_a_driver_whose_gpu_pytorch_does_not_see(monkeypatch, driver, level) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: driver)
    finding = machine.gpus()
    assert finding.level == level
    assert ("https://pytorch.org" in finding.remedy) == (level == "warn")


# --- An installation so broken that the library cannot be imported --------------------------


@pytest.fixture
def broken_torchvision(tmp_path) -> dict[str, str]:
    """An environment whose torchvision fails as one does that was built for another torch."""
    (tmp_path / "torchvision").mkdir()
    error = 'raise RuntimeError("operator torchvision::nms does not exist")\n'
    (tmp_path / "torchvision" / "__init__.py").write_text(error)
    project = str(Path(convnext_steps.__file__).parents[1])
    return dict(os.environ) | {"PYTHONPATH": os.pathsep.join([str(tmp_path), project])}


def test_a_torchvision_that_cannot_be_imported(broken_torchvision, tmp_path) -> None:
    command = [sys.executable, "-m", "convnext_steps"]
    keywords = {"capture_output": True, "text": True, "cwd": tmp_path, "env": broken_torchvision}
    told = subprocess.run([*command, "doctor"], **keywords)
    assert told.returncode == 1
    assert told.stderr == ""
    (line,) = [line for line in told.stdout.splitlines() if line[6:].startswith("torch, ")]
    assert line.startswith("fail  torch, torchvision")
    assert "operator torchvision::nms does not exist; pip install --force-reinstall" in line
    assert len(told.stdout.splitlines()) == len(doctor.checks(tmp_path))

    stopped = subprocess.run([*command, "steps"], **keywords)
    assert stopped.returncode == 1
    assert stopped.stderr == (
        "convnext-steps: RuntimeError: operator torchvision::nms does not exist; "
        "`convnext-steps doctor` says what to do\n"
    )
