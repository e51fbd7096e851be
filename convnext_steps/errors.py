"""What can go wrong, in words for whoever started it: each message says what to do."""


class ConvNeXtStepsError(Exception):
    """The base of every error that the library raises for its user."""


class TrainingError(ConvNeXtStepsError, RuntimeError):
    """Training cannot begin or go on."""


class NotebookError(ConvNeXtStepsError, RuntimeError):
    """A notebook's cell failed; the message says how and where to look."""


class StudyError(ConvNeXtStepsError, RuntimeError):
    """Runs of a study failed; the message says which and why."""


class DataError(ConvNeXtStepsError, ValueError):
    """A data set is missing, damaged or unknown."""

    def __str__(self) -> str:
        """One line: a loader's worker puts its whole traceback in front of the message."""
        return super().__str__().rpartition("DataError: ")[2].strip()


class WeightsError(ConvNeXtStepsError, ValueError):
    """Weights cannot be loaded."""


class ResultError(ConvNeXtStepsError, ValueError):
    """A result cannot be trusted; the message says why."""


class DamagedCheckpointError(ConvNeXtStepsError, ValueError):
    """A checkpoint is truncated or no checkpoint at all."""


class ForeignCheckpointError(ConvNeXtStepsError, ValueError):
    """A checkpoint belongs to another model or recipe."""
