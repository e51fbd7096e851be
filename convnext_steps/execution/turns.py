"""Several runs in one process, a step of each in turn: on a GPU they run beside one another.

Each run has its own random numbers and, on a GPU, its own stream, so that it computes what it
computes alone.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from convnext_steps.execution.lock import HeldError
from convnext_steps.training.seeds import random_state, set_random_state

Steps = Iterator[None]
Ended = Callable[[int, BaseException | None], None]


class Lane:
    """One run under way, with the random numbers and the stream that are its own."""

    def __init__(self, key: int, begin: Callable[[], Steps], beside: bool) -> None:
        self.key, self.begin, self.beside = key, begin, beside
        self.steps = begin()
        self.random = random_state()
        self.stream = torch.cuda.Stream() if torch.cuda.is_available() else None

    def step(self) -> bool:
        """Go on by one step; whether there are more."""
        with self._turn():
            return next(self.steps, self) is None

    @contextmanager
    def _turn(self) -> Iterator[None]:
        set_random_state(self.random)
        stream: Any = torch.cuda.stream(self.stream) if self.stream else nullcontext()
        try:
            with stream:
                yield
        finally:
            self.random = random_state()


class Turns:
    """The runs of one process, which go on by turns.

    A run that fails beside others is tried again alone: what it lacked may be memory.

    Args:
        ended: called with the key of a run that has ended, and with its error or None.
    """

    def __init__(self, ended: Ended) -> None:
        self.ended = ended
        self.lanes: list[Lane] = []
        self.waiting: deque[tuple[int, Callable[[], Steps]]] = deque()
        self.alone: deque[tuple[int, Callable[[], Steps]]] = deque()

    @property
    def busy(self) -> bool:
        """Whether anything is left to do."""
        return bool(self.lanes or self.waiting or self.alone)

    def add(self, key: int, begin: Callable[[], Steps]) -> None:
        """Take on one more run, given by what begins it."""
        self.waiting.append((key, begin))

    def go_on(self) -> None:
        """One step of each run."""
        if not self.lanes and self.alone:
            self.lanes.append(Lane(*self.alone.popleft(), beside=False))
        while self.waiting and not self.alone and all(lane.beside for lane in self.lanes):
            self.lanes.append(Lane(*self.waiting.popleft(), beside=True))
        for lane in list(self.lanes):
            try:
                if lane.step():
                    continue
                error = None
            except Exception as problem:
                error = problem
            self._end(lane, error)

    def _end(self, lane: Lane, error: Exception | None) -> None:
        others = len(self.lanes) > 1
        self.lanes.remove(lane)
        if error is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()
        if error is not None and others and not isinstance(error, HeldError):
            self.alone.append((lane.key, lane.begin))
        else:
            self.ended(lane.key, error)
