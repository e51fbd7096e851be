"""What can go wrong, in words for the user: each message says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager


class ConvNeXtStepsError(Exception):
    """The base of every error class of this library; in a notebook it is one line."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]

    def __str__(self) -> str:
        """One line: a data loader's worker puts its whole traceback before the message."""
        return super().__str__().rpartition(f"{type(self).__name__}: ")[2].strip()


class TrainingError(ConvNeXtStepsError, RuntimeError):
    """Training cannot start or continue."""


class InvalidStudyError(ConvNeXtStepsError, ValueError):
    """A study, or a change of one, cannot be; the message names the key and the nearest word."""


class NotebookError(ConvNeXtStepsError, RuntimeError):
    """A cell of a notebook failed; the message says why and where to look."""


class StudyError(ConvNeXtStepsError, RuntimeError):
    """Runs of a study failed; the message says which and why."""


class DataError(ConvNeXtStepsError, ValueError):
    """A data set is missing, damaged or unknown."""


class WeightsError(ConvNeXtStepsError, ValueError):
    """Weights cannot be loaded."""


class ResultError(ConvNeXtStepsError, ValueError):
    """A result cannot be trusted; the message says why."""


@contextmanager
def reworded(prefix: str = "", kind: type[Exception] = ValueError) -> Iterator[None]:
    """A block whose ValueErrors are of this kind, and their message stands after a prefix."""
    try:
        yield
    except ValueError as error:
        raise kind(f"{prefix}{error}") from None
