"""The runner, with a backend that only pretends."""

from collections import Counter, defaultdict

import pytest

from convnext_steps import cli
from convnext_steps.errors import StudyError
from convnext_steps.execution import runner, timing
from convnext_steps.execution.backends import Outcome
from convnext_steps.execution.local import LocalBackend
from convnext_steps.execution.lock import claim
from convnext_steps.execution.runner import Runner, run_study
from convnext_steps.study.plan import plan

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
    work = Runner([run], tmp_path, LocalBackend(), 1)
    work.execute()
    assert list(work.errors) == [run]


def test_the_others_are_completed_before_a_failure_is_told(tmp_path, monkeypatch) -> None:
    bad, good = runs = plan("smoke")
    backend = Pretended({bad: [FAILED, FAILED]})
    monkeypatch.setattr(runner, "LocalBackend", lambda: backend)
    with pytest.raises(StudyError, match="1 of 2 runs failed:\n  resnet seed 0: why"):
        run_study(runs, tmp_path)
    assert backend.started == {bad: 2, good: 1}


def test_the_runs_an_hour_are_measured_with_as_many_workers_as_asked_for(
    tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    backend = Pretended()
    monkeypatch.setattr(timing, "open_backend", lambda name, address: backend)
    arguments = ["bench", "--study", "--profile", "smoke", "--workers", "1", "3"]
    assert cli.main(arguments) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("1 workers: ")
    assert first.endswith("runs an hour, 1.00 x")
    assert second.startswith("3 workers: ")
    runs = plan("smoke", steps=["separate_downsampling"], seeds=range(12))
    assert backend.started == {run: 3 if run.seed < 3 else 2 for run in runs}
    assert backend.most == 3
    assert list(tmp_path.iterdir()) == []


def test_failed_runs_make_no_rate(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (bad,) = plan("smoke", steps=["separate_downsampling"], seeds=[0])
    monkeypatch.setattr(
        timing, "open_backend", lambda name, address: Pretended({bad: [FAILED] * 2})
    )
    assert cli.main(["bench", "--study", "--profile", "smoke", "--workers", "1"]) == 1
    written = capsys.readouterr()
    assert "1 of 1 runs failed:\n  separate_downsampling seed 0: why" in written.err
    assert "runs an hour" not in written.out


def test_the_bookkeeping_is_timed_in_parts(capsys) -> None:
    assert cli.main(["bench", "--bookkeeping", "40"]) == 0
    lines = capsys.readouterr().out.splitlines()
    parts = ["planning", "finding what is missing", "reporting", "together"]
    assert [line[:26].strip() for line in lines] == parts


def test_runs_that_others_hold_are_not_looked_at_again_and_again(tmp_path, monkeypatch) -> None:
    """One of theirs is done meanwhile; the rest are left alone until it is time."""
    *theirs, ours = runs = plan("quick")
    for run in theirs:
        assert claim(run.folder(tmp_path), tmp_path)
    looks = Counter()
    monkeypatch.setattr(runner, "done", lambda run, results: looks.update([run]))
    monkeypatch.setattr(runner, "LATER_SECONDS", 1000.0)
    backend = Pretended({ours: [None] * 20 + [KeyboardInterrupt]})
    monkeypatch.setattr(PretendedAttempt, "outcome", interrupted(PretendedAttempt.outcome))
    with pytest.raises(KeyboardInterrupt):
        Runner(runs, tmp_path, backend, 2).execute()
    assert looks == dict.fromkeys(runs, 1)
    assert backend.started == {ours: 1}
    assert backend.stopped == {ours: 1}


def interrupted(outcome):
    def ask(attempt):
        found = outcome(attempt)
        if found is KeyboardInterrupt:
            raise KeyboardInterrupt
        return found

    return ask
