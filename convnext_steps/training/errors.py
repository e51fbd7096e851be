"""What can go wrong while training, in words for whoever started it."""


class TrainingError(RuntimeError):
    """Training cannot begin or go on; the message says why and what to do."""
