"""One run from its beginning to its result: the same in a notebook and without one."""

from collections.abc import Callable, Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import nn

from convnext_steps.execution.lock import take
from convnext_steps.execution.runfolder import WEIGHTS, prepare, record_failure, stored, tidy
from convnext_steps.execution.train_run import Trained, Training, training_steps
from convnext_steps.files import expanded, own_results, write_json
from convnext_steps.measure.flops import FlopCount, count_flops
from convnext_steps.study.code import own_code
from convnext_steps.study.plan import Run
from convnext_steps.study.results import RESULT, SCHEMA, checksum
from convnext_steps.text import first_line
from convnext_steps.training.checkpoint import FINAL
from convnext_steps.training.evaluation import Evaluation
from convnext_steps.training.how import OF_THE_STUDY
from convnext_steps.training.images import ImageData
from convnext_steps.training.stepwise import finish
from convnext_steps.training.trainer import seed_everything

Halves = tuple[ImageData, ImageData]  # to train and to test on


class Work:
    """A run in its folder: locked, resumed where it stopped, and in the end a result.

    Args:
        run: the run.
        results: the results folder; by default `results/own`.
        output: the run's folder, if it is to be another.

    Raises:
        HeldError: another process is working on the run.
    """

    def __init__(self, run: Run, results: str | Path = "", output: str | Path = "") -> None:
        self.run = run
        self.folder = expanded(output) if output else run.folder(own_results(results))
        self.lock = take(self.folder)
        try:
            self.result = stored(run, self.folder, own_results(results))
            if self.result is None:
                prepare(run, self.folder)
        except BaseException:
            self.lock.release(force=True)
            raise

    def train(self, model: nn.Module, train: ImageData, test: ImageData) -> Trained:
        """Train the run's model, or what is left of it; of a finished run, what it found.

        Raises:
            TrainingError: training cannot start or continue.
        """
        return finish(self.steps(model, train, test))

    def steps(self, model: nn.Module, train: ImageData, test: ImageData) -> Training:
        """Train as `train` does, but stop after each step."""
        if self.result is not None:
            return trained_before(self.result)
        (self.folder / f"{FINAL}.safetensors").unlink(missing_ok=True)  # of an unfinished attempt
        return (yield from training_steps(self.run, model, train, test, self.folder))

    def finish(self, count: FlopCount, trained: Trained) -> None:
        """Write the result, last and atomically, tidy up, and release the lock."""
        if self.result is None:
            if self.run.how.keep_weights:
                (self.folder / f"{FINAL}.safetensors").replace(self.folder / WEIGHTS)
            write_json(self.folder / RESULT, result_from(self.run, count, trained))
        tidy(self.folder)
        self.lock.release(force=True)


def do_run(run: Run, results: str | Path) -> None:
    """Train one run in this process and write its result, unless it exists.

    Raises:
        HeldError: another process is working on the run.
        ConvNeXtStepsError: training failed; the run's folder says so too.
    """
    finish(run_steps(run, results))


def run_steps(
    run: Run, results: str | Path, load: Callable[[Run], Halves] = Run.load_data
) -> Generator[None, None, None]:
    """Do what `do_run` does, but stop after each step of the training.

    Args:
        run: the run.
        results: the results folder.
        load: gives the run's training and test images.
    """
    work = Work(run, results)
    try:
        if work.result is None:
            seed_everything(run.seed)
            train, test = load(run)
            model = run.build(train)
            count = count_flops(model, resolution=train[0][0].shape[-1])
            work.finish(count, (yield from work.steps(model, train, test)))
    except Exception as error:
        record_failure(work.folder, first_line(error))
        raise
    finally:
        work.lock.release(force=True)


def result_from(run: Run, count: FlopCount, trained: Trained) -> dict[str, Any]:
    """What a run found, with its evidence, as it is stored."""
    evaluation, fit = trained.evaluation, trained.fit
    assert fit is not None
    result = {
        "schema": SCHEMA,
        "hash": run.hash,
        **{name: getattr(run, name) for name in ("study", "step", "seed")},
        "design": vars(run.design),
        "recipe": {k: v for k, v in vars(run.config).items() if k != "seed"},
        "how": {k: v for k, v in vars(run.how).items() if k not in OF_THE_STUDY},
        "data": run.data.identity(),
        "code": own_code(run.design),
        "accuracy": evaluation.accuracy,
        "loss": evaluation.loss,
        "correct": evaluation.correct,
        "test_images": evaluation.count,
        "fit": {"accuracy": fit.accuracy, "loss": fit.loss, "images": fit.count},
        "training_steps": trained.steps,
        "macs": count.conv_linear,
        "flops_fvcore": count.total,
        "params": count.params,
        "environment": trained.environment,
        "seconds": trained.seconds,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "curve": list(trained.history),
    }
    return result | {"checksum": checksum(result)}


def trained_before(result: dict[str, Any]) -> Trained:
    """What a stored result says of its training."""
    names = ("accuracy", "loss", "correct", "test_images")
    fit = result.get("fit")  # none in what version 0.1 made
    return Trained(
        evaluation=Evaluation(*(result[name] for name in names)),
        fit=Evaluation(fit["accuracy"], fit["loss"], 0, fit["images"]) if fit else None,
        history=result["curve"],
        steps=result["training_steps"],
        seconds=result["seconds"],
        environment=result["environment"],
    )
