"""What runs will cost, before any of them begins; building each network proves that it can be."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from convnext_steps.errors import InvalidStudyError
from convnext_steps.measure.flops import count_on_meta
from convnext_steps.models.design import Design
from convnext_steps.models.network import Network
from convnext_steps.study.plan import Data, Run
from convnext_steps.study.results import PROJECT_RESULTS, read_results
from convnext_steps.training.config import TrainingConfig


@dataclass(frozen=True)
class Shape:
    """The images that a network gets."""

    images: int  # in the training set
    channels: int
    side: int
    classes: int


KNOWN = {
    "fashion_mnist": Shape(60_000, 1, 32, 10),
    "synthetic": Shape(512, 1, 32, 4),
    "cifar10": Shape(50_000, 3, 32, 10),
    "cifar100": Shape(50_000, 3, 32, 100),
    "imagenette": Shape(9_469, 3, 224, 10),
    "imagenette_full": Shape(9_469, 3, 224, 10),
    "imagenet": Shape(1_281_167, 3, 224, 1000),
}


@dataclass(frozen=True)
class Forecast:
    """What runs will cost: images seen, multiply-adds of their forward passes, and hours."""

    images: int
    macs: int
    hours: float | None  # of one core, an estimate; None where no stored run has been timed


def forecast(runs: Sequence[Run], results: Path) -> Forecast:
    """Count what runs will see and compute; estimate the time from the speed of stored runs.

    Args:
        runs: the runs.
        results: one's own results; where there are none, the published ones are timed.

    Raises:
        InvalidStudyError: a network cannot be built, or its images are too small for it.
    """
    images = macs = 0
    for run in runs:
        known = shape(run.data, run.config)
        seen = round(run.config.max_epochs * (run.data.images or known.images))
        images, macs = images + seen, macs + seen * count(run)
    rate = _rate(results) or _rate(PROJECT_RESULTS)
    return Forecast(images, macs, macs / rate / 3600 if rate else None)


def check_runs(runs: Iterable[Run]) -> None:
    """Load the data and build every network once, so that nothing is trained in vain.

    Raises:
        DataError: the data are missing or damaged.
        InvalidStudyError: a network cannot be built.
    """
    runs = list(runs)
    for run in {(run.data, run.config.resolution): run for run in runs}.values():
        run.load_data()
    for run in runs:
        count(run)


def count(run: Run) -> int:
    """The multiply-adds of a run's network, at the size of its images.

    Raises:
        InvalidStudyError: the network cannot be built, or the images are too small for it.
    """
    try:
        return _count(run.design, shape(run.data, run.config))
    except ValueError as error:
        raise InvalidStudyError(f"{run.step} cannot be built: {error}") from None


@cache
def _count(design: Design, known: Shape) -> int:
    shape = {"in_channels": known.channels, "num_classes": known.classes}
    return count_on_meta(partial(Network, design, **shape), known.channels, known.side)


@cache
def shape(data: Data, config: TrainingConfig) -> Shape:
    """The images of a data set as a recipe prepares them; a folder is read for it."""
    if data.source in KNOWN:
        known = KNOWN[data.source]
        return Shape(known.images, known.channels, config.resolution or known.side, known.classes)
    train, _ = data.load(config)
    return Shape(len(train), train.channels, train[0][0].shape[-1], train.num_classes)


def _rate(results: Path) -> float | None:
    """Multiply-adds per second of the trainings in a folder."""
    macs = seconds = 0.0
    for result in read_results(results):
        per_image = result["macs"] * result["recipe"]["batch_size"]
        macs += per_image * result["training_steps"]
        seconds += result["seconds"]["training"]
    return macs / seconds if seconds else None
