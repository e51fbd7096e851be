"""What runs will cost, before any of them begins; building each network proves that it can be."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from convnext_steps.device import find_device
from convnext_steps.study.counts import counts, images_seen
from convnext_steps.study.plan import Run
from convnext_steps.study.results import PROJECT_RESULTS, read_results
from convnext_steps.training.batches import TrainingBatches
from convnext_steps.training.distributed import Processes


@dataclass(frozen=True)
class Forecast:
    """What runs will cost: images seen, multiply-adds of their forward passes, and hours."""

    images: int
    macs: int
    hours: float | None  # of one core, an estimate; None where no stored run was on a CPU


def forecast(runs: Sequence[Run], results: Path) -> Forecast:
    """Count what runs will see and compute; estimate the time from the speed of stored runs.

    Args:
        runs: the runs.
        results: one's own results; where there are none, the published ones are timed.

    Raises:
        InvalidStudyError: a network cannot be built, or its images are too small for it.
    """
    images = macs = 0
    for run, count in zip(runs, counts(runs), strict=True):
        seen = images_seen(run)
        images, macs = images + seen, macs + seen * count
    rate = _rate(results) or _rate(PROJECT_RESULTS)
    return Forecast(images, macs, macs / rate / 3600 if rate else None)


def check_runs(runs: Sequence[Run]) -> None:
    """Load the data and build every network once, so that nothing is trained in vain.

    Raises:
        DataError: the data are missing or damaged.
        InvalidStudyError: a network cannot be built.
        TrainingError: there is no such device, or the images do not fill a batch.
    """
    for device in {run.how.device for run in runs}:
        find_device(device)

    def what_fills_batches(run: Run) -> tuple[object, ...]:
        config = run.config
        batch = (config.batch_size, config.micro_batch_size, run.how.processes_here)
        return run.data, config.resolution, batch

    for run in {what_fills_batches(run): run for run in runs}.values():
        train, _ = run.load_data()
        TrainingBatches(len(train), run.config, Processes(count=run.how.processes_here))
    counts(runs)


def _rate(results: Path) -> float | None:
    """Multiply-adds per second of the trainings in a folder that were on a CPU."""
    macs = seconds = 0.0
    for result in read_results(results):
        if result["environment"].get("device", "cpu") != "cpu":
            continue
        per_image = result["macs"] * result["recipe"]["batch_size"]
        macs += per_image * result["training_steps"]
        seconds += result["seconds"]["training"]
    return macs / seconds if seconds else None
