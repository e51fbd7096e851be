"""Keeping memory from one batch to the next."""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from threading import Event

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4  # options of glibc's mallopt
MEBIBYTE = 2**20
_KEEPING = Event()  # set by the outermost of several


@contextmanager
def kept_memory() -> Iterator[None]:
    """Let the C library keep what tensors free, for the next ones; at the end, give it back.

    glibc returns large tensors' memory to the system, which clears it anew, page by page: at
    224 x 224, up to a tenth of a step's time. Afterwards glibc does so again, from the sizes on at
    which its own adaptation would end. With another C library nothing changes.
    """
    library = _glibc()
    if library is None or _KEEPING.is_set():
        yield
        return
    option, trim = library
    _KEEPING.set()
    option(TRIM_THRESHOLD, -1)  # never
    option(MMAP_MAX, 0)  # no tensor by itself, all from the one heap
    try:
        yield
    finally:
        option(MMAP_MAX, 2**16)
        option(MMAP_THRESHOLD, 32 * MEBIBYTE)
        option(TRIM_THRESHOLD, 64 * MEBIBYTE)
        trim(0)
        _KEEPING.clear()


@cache
def _glibc() -> tuple[Callable[[int, int], int], Callable[[int], int]] | None:
    """Return glibc's `mallopt` and `malloc_trim`; None where they are not."""
    try:
        library = ctypes.CDLL(None)
        return library.mallopt, library.malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return None
