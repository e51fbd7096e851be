"""Notebooks as programs: found, their parameters checked, executed by papermill in a process."""

import atexit
import glob
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_steps.errors import NotebookError
from convnext_steps.fields import convert, read_value
from convnext_steps.files import check_writable, project_folder
from convnext_steps.text import unknown

if TYPE_CHECKING:
    from nbformat import NotebookNode

NOTEBOOKS = project_folder() / "notebooks"
KINDS = {"str": str, "int": int, "float": float, "bool": bool, "list": tuple[Any, ...]}


def find_notebook(name: str) -> Path:
    """A notebook by path, or by name in the project's `notebooks/`, with or without its number.

    Raises:
        ValueError: there is none.
    """
    file = name if name.endswith(".ipynb") else f"{name}.ipynb"
    for folder in (NOTEBOOKS, Path("notebooks"), Path()):
        for path in (folder / file, *folder.glob(f"[0-9][0-9]_{glob.escape(file)}")):
            if path.is_file():
                return path.resolve()
    raise ValueError(f"no notebook {name!r} in {NOTEBOOKS}, in notebooks/, or here")


def read_notebook(path: Path) -> "NotebookNode":
    """What a notebook's file holds.

    Raises:
        ValueError: the file is not a notebook.
        OSError: it cannot be read.
    """
    import nbformat

    try:
        notebook = nbformat.read(path, as_version=4)
        if not all("source" in cell for cell in notebook.cells):
            raise ValueError("a cell has no source")
        return notebook
    except OSError:
        raise
    except Exception:  # a damaged file can fail in many ways
        raise ValueError(f"{path} is damaged or not a notebook") from None


def parameters_of(notebook: Path) -> dict[str, Any]:
    """A notebook's parameters by name, as papermill describes them.

    Raises:
        ValueError: the file is not a notebook.
    """
    from papermill import inspect_notebook

    read_notebook(notebook)
    return inspect_notebook(str(notebook))


def start_notebook(
    notebook: Path,
    output: Path,
    parameters: Mapping[str, Any],
    settings: Mapping[str, str] = {},
    folder: Path | None = None,
) -> "subprocess.Popen[bytes]":
    """Start papermill on a notebook in a process of its own; its messages go to `output`.log.

    The process has a session of its own (on Windows a process group): Ctrl-C reaches the process
    that started it, not the notebook.

    Args:
        notebook: the notebook.
        output: the executed notebook, a path.
        parameters: values for its parameters.
        settings: environment variables of its kernel, beside this process's own.
        folder: where its kernel works; by default the notebook's own folder.
    """
    worker = Path(__file__).with_name("worker.py")
    command = [sys.executable, "-P", str(worker), "papermill"]
    command += [str(notebook), str(output.resolve())]
    command += ["--parameters_yaml", json.dumps(dict(parameters))]
    command += ["--cwd", str(folder or notebook.parent), "--kernel", "python3"]
    command += ["--no-progress-bar", "--log-level", "ERROR"]
    environment = os.environ | {"PYTHONSTARTUP": str(Path(__file__).with_name("kernel_start.py"))}
    environment |= {**_folders_elsewhere(), **settings}
    with log_of(output).open("wb") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # closed when this process ends: the worker follows
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )


@cache
def _folders_elsewhere() -> dict[str, str]:
    """Where IPython and Jupyter keep their own files, if the home cannot be written to."""
    try:
        check_writable(Path.home())
        return {}
    except (ValueError, RuntimeError):  # no home at all
        folder = tempfile.mkdtemp(prefix="convnext-steps-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        names = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
        return dict.fromkeys(names, folder)


def log_of(output: Path) -> Path:
    """The file with papermill's messages next to an executed notebook."""
    return output.with_name(f".{output.name}.log")


def last_line(output: Path) -> str:
    """The last line that papermill printed: the error, where there was one."""
    log = log_of(output)
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    return (text.strip().splitlines() or ["papermill printed nothing"])[-1]


def _values(notebook: Path, given: Mapping[str, str]) -> dict[str, Any]:
    """What the words of a command line mean to a notebook: texts stay as they are.

    Raises:
        ValueError: a parameter is unknown, which papermill would only log; the message has the
            nearest name.
    """
    known = parameters_of(notebook)
    values = {}
    for name, text in given.items():
        if name not in known:
            raise ValueError(f"{notebook.name}: {unknown('parameter', name, known)}")
        kind = KINDS.get(known[name]["inferred_type_name"], Any)
        value = text if kind is str else convert(read_value(text), kind, name)
        values[name] = list(value) if isinstance(value, tuple) else value  # as papermill takes it
    return values


def execute_notebook(name: str, output: Path, parameters: Mapping[str, str]) -> None:
    """Execute one notebook in the current folder; values are of its parameters' types.

    Raises:
        ValueError: there is no such notebook or parameter, or the output cannot be written.
        NotebookError: a cell failed; the executed notebook shows it.
    """
    notebook = find_notebook(name)
    values = _values(notebook, parameters)
    if not output.parent.is_dir():
        raise ValueError(f"there is no folder {output.parent} for the executed notebook")
    if output.resolve() == notebook:
        raise ValueError(
            f"{output} is the notebook itself; choose another file for the executed one"
        )
    start_and_wait(notebook, output, values, Path.cwd())


def start_and_wait(
    notebook: Path, output: Path, values: Mapping[str, Any], folder: Path | None = None
) -> None:
    """Execute one notebook with these values, in this folder or its own.

    Raises:
        NotebookError: a cell failed; the executed notebook shows it.
    """
    process = start_notebook(notebook, output, values, folder=folder)
    try:
        failed = process.wait() != 0
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    if failed:
        raise NotebookError(f"{notebook.name} failed: {last_line(output)} (see {output})")
    log_of(output).unlink(missing_ok=True)
