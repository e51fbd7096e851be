"""What is known of each image file of a folder: read once, then known by an index in the cache.

The index goes by name, size and modification time.
"""

import hashlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

from tqdm import tqdm

from convnext_steps.errors import DataError
from convnext_steps.files import write_bytes
from convnext_steps.training.decoding import decode, reason
from convnext_steps.training.downloads import alone, data_root, user_cache

T = TypeVar("T")
R = TypeVar("R")

VERSION = 1  # of the fingerprint, of the index and of what is kept decoded
CHUNK = 256  # images that are held in memory at once
INDEX = "index.json"

Stamp = tuple[int, int]  # a file's size in bytes and its modification time in nanoseconds


class Facts(NamedTuple):
    """What is known of an image that was read."""

    digest: str  # SHA-256 of the file
    height: int  # in pixels, upright
    width: int
    grey: bool

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.height, self.width


def cache_folder() -> Path:
    """Where the index of a folder and its decoded images go: never into the folder itself."""
    chosen = data_root()
    return (user_cache() if (chosen / "train").is_dir() else chosen) / "folder"


def cannot_write(cache: Path, error: OSError) -> DataError:
    """The error for a cache that cannot be written."""
    return DataError(
        f"cannot write to {cache} ({error.strerror or error}); free some space, or set "
        "CONVNEXT_STEPS_DATA to a folder for what is kept"
    )


def read_facts(root: Path, stamps: Mapping[str, Stamp]) -> tuple[dict[str, Facts], dict[str, str]]:
    """What is known of each file, and why the others cannot be read.

    Interrupted, it keeps what was read.
    """
    name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    cache = cache_folder() / name
    broken: dict[str, str] = {}
    with alone(cache, create=True):
        known = _read_index(cache / INDEX, stamps)
        new = [name for name in stamps if name not in known]
        try:
            paths = [root / name for name in new]
            for name, result in zip(new, in_parallel(_inspect, paths, "reading"), strict=True):
                if isinstance(result, Facts):
                    known[name] = result
                else:
                    broken[name] = result
        finally:
            if len(broken) < len(new):
                _write_index(cache / INDEX, stamps, known)
    return known, broken


def _inspect(path: Path) -> Facts | str:
    """What is to know of an image, or why it cannot be read."""
    try:
        content = path.read_bytes()
        if not content:
            return "empty"
        image = decode(content)
    except Exception as error:
        return reason(error)
    digest = hashlib.sha256(content).hexdigest()
    return Facts(digest, image.height, image.width, image.mode == "L")


def _read_index(path: Path, stamps: Mapping[str, Stamp]) -> dict[str, Facts]:
    """What is known of the files whose stamps are still the same."""
    try:
        content = json.loads(path.read_bytes())
        if content["version"] != VERSION:
            return {}
        files = zip(*content["columns"], strict=True)  # a list per file would take twice as long
        return {
            name: Facts(digest, height, width, grey)
            for name, size, modified, digest, height, width, grey in files
            if stamps.get(name) == (size, modified)
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # missing or damaged
        return {}


def _write_index(path: Path, stamps: Mapping[str, Stamp], known: Mapping[str, Facts]) -> None:
    files = [(name, *stamps[name], *facts) for name, facts in known.items()]
    content = {"version": VERSION, "columns": list(zip(*files, strict=True))}
    try:
        write_bytes(path, json.dumps(content).encode())
    except OSError as error:
        raise cannot_write(path.parent, error) from None


def in_parallel(function: Callable[[T], R], items: Sequence[T], title: str) -> Iterator[R]:
    """The results in order, from threads: Pillow decodes without Python's lock.

    Pillow's warnings, as of large images, are not shown.
    """
    bar = tqdm(total=len(items), desc=title, unit="image", delay=1, mininterval=1, file=sys.stdout)
    pool = ThreadPoolExecutor(os.cpu_count())
    with bar, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for start in range(0, len(items), CHUNK):
                for result in pool.map(function, items[start : start + CHUNK]):
                    bar.update()
                    yield result
        finally:
            pool.shutdown(cancel_futures=True)
