"""Several runs in one process, which take turns: on a GPU they run beside one another.

Each run has its own random numbers and, on a GPU, its own stream, so that it computes what it
computes alone.
"""

import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice

import torch

from convnext_steps.execution.lock import HeldError
from convnext_steps.training.seeds import random_state, set_random_state

Steps = Iterator[None]
Ended = Callable[[int, BaseException | None], None]

GPU_STEPS = 8  # of one run in a turn: to change runs takes time, and a GPU has others to go on with


class Lane:
    """One run under way, with the random numbers and the stream that are its own.

    Args:
        key: what tells it from others.
        begin: what begins it.
        stream: on a GPU.
        alone: whether no other may run beside it.
    """

    def __init__(
        self, key: int, begin: Callable[[], Steps], stream: torch.cuda.Stream | None, alone: bool
    ) -> None:
        self.key, self.begin, self.stream, self.alone = key, begin, stream, alone
        self.beside = False  # whether another has run beside it
        self.random = random_state()
        self.generator = torch.cuda.default_generators[0].clone_state() if stream else None
        self.steps: Steps | None = None

    def go_on(self, count: int) -> bool:
        """Begin, or go on, by so many steps; whether there may be more."""
        with _own_gpu_state(self.stream, self.generator):
            set_random_state(self.random)
            if self.steps is None:
                self.steps = self.begin()
            taken = sum(1 for _ in islice(self.steps, count))
            self.random = random_state()
        return taken == count


@contextmanager
def _own_gpu_state(
    stream: torch.cuda.Stream | None, generator: torch.Generator | None
) -> Iterator[None]:
    """A block in which a stream and a generator are the GPU's current ones.

    Before PyTorch 2.14, the graphs of one generator share the memory that it gives them its state
    in, so that two of them cannot run at once.
    """
    if stream is None or generator is None:
        yield
        return
    current = torch.cuda.default_generators[0]
    before = current.graphsafe_get_state()
    current.graphsafe_set_state(generator)
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        current.graphsafe_set_state(before)


class Turns:
    """The runs of one process, which go on by turns.

    A run that fails beside others is tried again alone: what it lacked may be memory.

    Args:
        ended: called with the key of a run that has ended, and with its error or None.
        on_gpu: whether each run has a stream of its own.
    """

    def __init__(self, ended: Ended, on_gpu: bool = False) -> None:
        self.ended, self.on_gpu = ended, on_gpu
        self.steps = GPU_STEPS if on_gpu else 1  # of each run in a turn
        self.lanes: list[Lane] = []
        self.waiting: deque[tuple[int, Callable[[], Steps]]] = deque()
        self.alone: deque[tuple[int, Callable[[], Steps]]] = deque()
        self.streams: list[torch.cuda.Stream] = []  # of runs that have ended, for those to come
        if on_gpu:
            torch.cuda.init()  # which makes the generator

    @property
    def busy(self) -> bool:
        """Whether anything is left to do."""
        return bool(self.lanes or self.waiting or self.alone)

    def add(self, key: int, begin: Callable[[], Steps]) -> None:
        """Take on one more run, given by what begins it."""
        self.waiting.append((key, begin))

    def go_on(self) -> None:
        """A turn of each run."""
        if not self.lanes and self.alone:
            self._start(*self.alone.popleft(), alone=True)
        while self.waiting and not self.alone and not any(lane.alone for lane in self.lanes):
            self._start(*self.waiting.popleft(), alone=False)
        together = len(self.lanes) > 1
        for lane in list(self.lanes):
            lane.beside = lane.beside or together
            try:
                if lane.go_on(self.steps):
                    continue
                error = None
            except Exception as problem:
                error = problem
            self._end(lane, error)

    def _start(self, key: int, begin: Callable[[], Steps], alone: bool) -> None:
        stream = None
        if self.on_gpu:
            stream = self.streams.pop() if self.streams else torch.cuda.Stream()
        self.lanes.append(Lane(key, begin, stream, alone))

    def _end(self, lane: Lane, error: Exception | None) -> None:
        self.lanes.remove(lane)
        lane.steps = None
        if error is not None:
            _let_go(error)
        if lane.stream is not None:
            lane.stream.synchronize()
            self.streams.append(lane.stream)
            torch.cuda.empty_cache()
        if error is not None and lane.beside and not isinstance(error, HeldError):
            self.alone.append((lane.key, lane.begin))
        else:
            self.ended(lane.key, error)


def _let_go(error: BaseException | None) -> None:
    """Release what the frames of an error hold: the run's memory."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
