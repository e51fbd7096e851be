"""What can go wrong with a study, in words for whoever started it."""


class NotebookError(RuntimeError):
    """A notebook's cell failed; the message says how and where to look."""


class StudyError(RuntimeError):
    """Runs of a study failed; the message says which and why."""
