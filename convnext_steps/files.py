"""Files that are either whole or not there."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

PACKAGE = Path(__file__).resolve().parent


def project_folder() -> Path:
    """The folder with `notebooks/` and `results/`: the checkout, or what was installed."""
    return PACKAGE if (PACKAGE / "notebooks").is_dir() else PACKAGE.parent


def expanded(path: str | Path) -> Path:
    """A path with its `~` as the home.

    Raises:
        ValueError: it is the home of a user who is not known.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ValueError(f"{path}: there is no such user; write the path without ~") from None


def own_results(folder: str | Path | None = None) -> Path:
    """The folder of one's own results: the one given, or `results/own`.

    That is the project's from anywhere in its checkout, else one below the current folder.
    """
    if folder:
        return expanded(folder)
    project = project_folder()
    inside = (project / "pyproject.toml").is_file() and Path.cwd().is_relative_to(project)
    return Path(project if inside else "", "results", "own")


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to that takes the name `path` when the block ends without an error."""
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", suffix=".partial", delete=False
    ) as file:
        temporary = Path(file.name)
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            file.close()  # Windows neither renames nor removes an open file
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            file.close()
            temporary.unlink(missing_ok=True)
            raise


def clear_partial(folder: Path) -> None:
    """Remove the files that a killed process left half-written."""
    for path in folder.glob(".*.partial"):
        path.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file, atomically."""
    with atomic_file(path) as file:
        file.write(content)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, atomically."""
    write_bytes(path, (json.dumps(content, indent=2) + "\n").encode())


def fault(path: Path, sha256: str) -> str:
    """What is wrong with a file whose SHA-256 is known: "missing", "damaged", or nothing ("")."""
    if not path.is_file():
        return "missing"
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return "" if digest == sha256 else "damaged"


def nearest_existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    nearest = path.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    return nearest


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be created or written to, before any work is done.

    Raises:
        ValueError: it cannot.
    """
    try:
        with tempfile.TemporaryFile(dir=nearest_existing(folder)):
            pass
    except OSError as error:
        raise ValueError(f"cannot write to the folder {folder}: {error}") from None
