"""Networks that take turns at the same work, each in a process of its own."""

import signal
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from typing import TypeVar

import torch
from torch import nn

from convnext_steps.measure.speed import Speed, Turn, Work, take_turns

T = TypeVar("T")

_turn: Turn  # of this process, where it is one of those that `measure_apart` starts


def measure_apart(
    builders: Mapping[str, Callable[[], nn.Module]],
    work: Work,
    rounds: int = 10,
    fast: Collection[str] = (),
) -> dict[str, Speed]:
    """Time networks in turn, as `measure_speeds` does, but so that none disturbs another's memory.

    What one network has the C library do with freed memory would hold for its peer too.

    Args:
        builders: functions by name that build a network; picklable.
        work: what is done.
        rounds: timed steps of each network.
        fast: names of the networks that run as the Trainer lets them, with `fast_layers`.
    """
    with ExitStack() as stack:
        turns = {}
        for name, build in builders.items():
            arguments = (build, work, name in fast, torch.get_num_threads())
            pool = ProcessPoolExecutor(1, get_context("spawn"), _prepare, arguments)
            turns[name] = _Elsewhere(stack.enter_context(pool))
        return take_turns(turns, rounds)


class _Elsewhere(Turn):
    """A turn that is another process's."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def seconds(self) -> float:
        return self._pool.submit(_call, Turn.seconds).result()

    def memory(self) -> int | None:
        return self._pool.submit(_call, Turn.memory).result()

    def speed(self, seconds: list[float], memory: int | None) -> Speed:
        return self._pool.submit(_call, Turn.speed, seconds, memory).result()


def _prepare(build: Callable[[], nn.Module], work: Work, fast: bool, threads: int) -> None:
    global _turn
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits
    torch.set_num_threads(threads)
    _turn = Turn(build(), work, fast)


def _call(method: Callable[..., T], *arguments: object) -> T:
    return method(_turn, *arguments)
