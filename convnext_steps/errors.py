"""What can go wrong, in words for the user: each message says what to do."""


class ConvNeXtStepsError(Exception):
    """The base of every error class of this library."""

    def __str__(self) -> str:
        """One line: a data loader's worker puts its whole traceback before the message."""
        return super().__str__().rpartition(f"{type(self).__name__}: ")[2].strip()


class TrainingError(ConvNeXtStepsError, RuntimeError):
    """Training cannot start or continue."""


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


class DamagedCheckpointError(ConvNeXtStepsError, ValueError):
    """A checkpoint is truncated or is not a checkpoint at all."""


class ForeignCheckpointError(ConvNeXtStepsError, ValueError):
    """A checkpoint belongs to another model, data set or recipe."""
