"""The runner, with a backend that only pretends."""

from collections import Counter, defaultdict
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
from filelock import FileLock
from studies import plan

from convnext_steps import How
from convnext_steps.errors import StudyError
from convnext_steps.execution import runner
from convnext_steps.execution.backends import Outcome
from convnext_steps.execution.local import LocalBackend
from convnext_steps.execution.lock import LOCK
from convnext_steps.execution.runner import Runner, run_study

DONE, HELD, FAILED = Outcome("done"), Outcome("held"), Outcome("failed", "why")


class Pretended:
    """Ends each attempt at once, with what is next on its run's list, or done."""

    workers = 2

    def __init__(self, outcomes=None) -> None:
        self.outcomes = defaultdict(list, outcomes or {})
        self.started, self.stopped, self.most = Counter(), Counter(), 0
        self.current = set()

    def start(self, run, results):
        self.started[run] += 1
        self.current.add(run)
        self.most = max(self.most, len(self.current))
        return PretendedAttempt(self, run)

    def close(self) -> None:
        pass


class PretendedAttempt:
    def __init__(self, backend, run) -> None:
        self.backend, self.run = backend, run

    def outcome(self):
        following = self.backend.outcomes[self.run]
        found = following.pop(0) if following else DONE
        if found is KeyboardInterrupt:
            raise KeyboardInterrupt
        if found is not None:
            self.backend.current.remove(self.run)
        return found

    def stop(self) -> None:
        self.backend.stopped[self.run] += 1


@pytest.fixture(autouse=True)
def _quick(monkeypatch) -> None:
    monkeypatch.setattr(runner, "LATER_SECONDS", 0.0)
    monkeypatch.setattr(runner, "POLL_SECONDS", 0.0)


def test_every_run_is_started_once_and_never_more_than_the_workers_at_once(tmp_path) -> None:
    runs = plan("quick")
    backend = Pretended({run: [None, None] for run in runs})
    Runner(runs, tmp_path, backend, 3).execute()
    assert backend.started == dict.fromkeys(runs, 1)
    assert backend.most == 3


def test_a_failed_run_is_tried_again_and_one_that_another_has_does_not_count(tmp_path) -> None:
    once, twice, shared = runs = plan("quick", steps=["resnet", "width", "gelu"])
    backend = Pretended({once: [FAILED], twice: [FAILED, FAILED], shared: [HELD, HELD, FAILED]})
    work = Runner(runs, tmp_path, backend, 1)
    work.execute()
    assert backend.started == {once: 2, twice: 2, shared: 4}
    assert work.errors == {twice: "why"}


def test_a_folder_that_cannot_be_used_fails_its_run_alone(tmp_path) -> None:
    (run,) = plan("smoke", steps=["resnet"])
    run.folder(tmp_path).parent.mkdir(parents=True)
    run.folder(tmp_path).touch()
    work = Runner([run], tmp_path, LocalBackend(How()), 1)
    work.execute()
    assert list(work.errors) == [run]


def test_the_others_are_completed_before_a_failure_is_told(tmp_path, monkeypatch) -> None:
    bad, good = plan("smoke")
    backend = Pretended({bad: [FAILED, FAILED]})
    monkeypatch.setattr(runner, "LocalBackend", lambda how: backend)
    with pytest.raises(StudyError, match="1 of 2 runs failed:\n  resnet seed 0: why"):
        run_study("smoke", results=tmp_path)
    assert backend.started == {bad: 2, good: 1}


def test_runs_that_others_hold_are_not_looked_at_again_and_again(tmp_path, monkeypatch) -> None:
    """One of theirs is done meanwhile; the rest are left alone until it is time."""
    *theirs, ours = runs = plan("quick")
    locks = ExitStack()
    for run in theirs:
        run.folder(tmp_path).mkdir(parents=True)
        locks.enter_context(FileLock(run.folder(tmp_path) / LOCK))
    looks = Counter()
    monkeypatch.setattr(runner, "done", lambda run, folder: looks.update([run]))
    monkeypatch.setattr(runner, "LATER_SECONDS", 1000.0)
    backend = Pretended({ours: [None] * 20 + [KeyboardInterrupt]})
    with locks, pytest.raises(KeyboardInterrupt):
        Runner(runs, tmp_path, backend, 2).execute()
    assert looks == dict.fromkeys(runs, 1)
    assert backend.started == {ours: 1}
    assert backend.stopped == {ours: 1}


def test_a_failed_run_is_not_counted_as_done_in_the_bar(tmp_path) -> None:
    runs = plan("smoke")
    work = Runner(runs, tmp_path, Pretended({run: [FAILED, FAILED] for run in runs}), 2)
    work.execute()
    shown, moved = [], []
    bar = SimpleNamespace(n=0, update=moved.append)
    bar.set_postfix_str = lambda text, refresh: shown.append(text)
    work._show(bar)
    assert (shown, moved) == (["2 failed"], [0])
