"""What is known of each image file of a folder: read once, then known by an index in the cache."""

import hashlib
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from tqdm import tqdm

from convnext_steps.errors import DataError
from convnext_steps.files import write_bytes
from convnext_steps.training.decoding import decode, reason
from convnext_steps.training.downloads import alone, user_cache

T = TypeVar("T")
R = TypeVar("R")

VERSION = 1  # of the identity, of the index and of what is kept decoded
CHUNK = 256  # images held in memory at once
FEW, QUICK = 8, 1e-3  # the first images, and seconds for each that threads would not make less

Stamp = tuple[int, int]  # a file's size in bytes and its modification time in nanoseconds


class Entry(NamedTuple):
    """What is known of an image file that was read."""

    name: str  # from the root on
    digest: str  # SHA-256 of the file
    height: int  # in pixels, upright
    width: int
    grey: bool
    label: int = -1


def cache_folder(key: str) -> Path:
    """Where what is known of a folder of images is kept: never in the folder itself."""
    return user_cache() / "folder" / hashlib.sha256(os.fsencode(key)).hexdigest()[:16]


@contextmanager
def writing(cache: Path) -> Iterator[None]:
    """Let one process at a time write to a folder of the cache.

    Raises:
        DataError: it cannot be written to.
    """
    try:
        with alone(cache, create=True):
            yield
    except OSError as error:
        raise DataError(
            f"cannot write to {cache} ({error.strerror or error}); free some space, or set "
            "the environment variable XDG_CACHE_HOME to another folder"
        ) from None


def read_entries(root: Path, stamps: Mapping[str, Stamp]) -> tuple[dict[str, Entry], list[str]]:
    """What is known of the images that can be read, and the others' names, each with the reason.

    A file is known by its name, size and modification time. Interrupted, it keeps what was read.

    Raises:
        DataError: the cache cannot be written to.
    """
    cache = cache_folder(str(root.resolve()))
    index = cache / "index.json"
    known = _read_index(index, stamps)
    if len(known) == len(stamps):
        return known, []
    broken = []
    with writing(cache):
        known = _read_index(index, stamps)  # another process may have read the images meanwhile
        new = [name for name in stamps if name not in known]
        results = in_parallel(partial(_inspect, root), new, "reading images")
        try:
            for name, result in zip(new, results, strict=True):
                if isinstance(result, Entry):
                    known[name] = result
                else:
                    broken.append(f"{name} ({result})")
        finally:
            files = {name: (stamps[name], entry[1:5]) for name, entry in known.items()}
            write_bytes(index, json.dumps({"version": VERSION, "files": files}).encode())
    return known, broken


def stamp(file: "os.DirEntry[str]") -> Stamp:
    """What tells whether a file has changed."""
    try:
        status = file.stat()
    except OSError:  # a link to nothing; reading it says so
        return -1, 0
    return status.st_size, status.st_mtime_ns


def _read_index(path: Path, stamps: Mapping[str, Stamp]) -> dict[str, Entry]:
    """What is known of the files whose stamps are still the same."""
    try:
        index = json.loads(path.read_bytes())
        files = index["files"] if index["version"] == VERSION else {}
        return {
            name: Entry(name, *facts)
            for name, (stamp, facts) in files.items()
            if stamps.get(name) == tuple(stamp)
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # missing or damaged
        return {}


def _inspect(root: Path, name: str) -> Entry | str:
    """What there is to know of an image, or why it cannot be read."""
    try:
        content = (root / name).read_bytes()
        if not content:
            return "empty"
        image = decode(content)
    except Exception as error:
        return reason(error)
    digest = hashlib.sha256(content).hexdigest()
    return Entry(name, digest, image.height, image.width, image.mode == "L")


def in_parallel(function: Callable[[T], R], items: Sequence[T], title: str) -> Iterator[R]:
    """The results in order, from threads unless the images are small.

    Pillow decodes without Python's lock, but opens a file with it: threads would only hold each
    other up. Pillow's warnings, as of large images, are not shown.
    """
    bar = tqdm(total=len(items), desc=title, unit="image", delay=1, mininterval=1, file=sys.stdout)
    pool = ThreadPoolExecutor(os.cpu_count())
    with bar, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run: Callable[..., Iterable[R]] = map
        start, size = 0, FEW
        try:
            while start < len(items):
                began = time.perf_counter()
                results = list(run(function, items[start : start + size]))
                if time.perf_counter() - began > QUICK * len(results):
                    run = pool.map
                start, size = start + size, CHUNK
                for result in results:
                    bar.update()
                    yield result
        finally:
            pool.shutdown(cancel_futures=True)
