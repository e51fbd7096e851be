"""One training: a model, two data sets and a recipe, in one process or many."""

import math
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from convnext_steps.cpu.depthwise import fast_depthwise
from convnext_steps.device import lay_out, set_determinism
from convnext_steps.errors import TrainingError
from convnext_steps.training.batch_transforms import Preparation
from convnext_steps.training.batches import TrainingBatches, loader
from convnext_steps.training.checkpoint import Output, copied
from convnext_steps.training.checks import check_used, check_weights, modules_in_eval, remedies
from convnext_steps.training.config import TrainingConfig
from convnext_steps.training.distributed import join
from convnext_steps.training.evaluation import Evaluation, evaluate
from convnext_steps.training.how import How
from convnext_steps.training.identity import identity
from convnext_steps.training.items import common_classes, say_unapplied, to_device
from convnext_steps.training.optimization import (
    build_optimizer,
    moving_average,
    schedule_factor,
    set_learning_rates,
    update_average,
)
from convnext_steps.training.seeds import mixed_seed
from convnext_steps.training.seeds import seed_everything as seed_everything
from convnext_steps.training.stepwise import finish
from convnext_steps.training.update import Update

LOGS_PER_RUN = 50
PROGRESS = ("step", "epoch", "best", "history", "seconds")  # attributes that a checkpoint holds


class Trainer:
    """Trains a model on one data set by a recipe, and evaluates it on another.

    Under torchrun, all processes train one model together. Everything random follows from the
    recipe's seed and the epoch: a training that is interrupted and resumed ends with the same bits.
    On a CPU, its depthwise convolutions train fast (`fast_depthwise`), unless `how` says otherwise.

    Args:
        model: any network from images (N, C, H, W) to logits (N, classes), or to an object with
            `logits`; it may be compiled. Modules in eval mode stay so if the model itself is in
            training mode, or if their own parameters are frozen.
        train_dataset: pairs of image and label; uint8 images of an `ImageData`, or of subsets of
            one, are normalised.
        test_dataset: the same, for evaluation.
        config: the recipe.
        output_dir: the folder for history, checkpoints and weights; without it, none are written.
        progress: whether to show a progress bar.
        log: called with each entry of the history, in the main process.
        configs: another name for `config`; give one of the two.
        how: how the work is done.

    Raises:
        TrainingError: the data do not fit the model or do not fill a batch, or the folder cannot
            be written to.
        TypeError: both or neither of `config` and `configs` are given, or `model` or `how` is
            something else.
    """

    def __init__(
        self,
        model: nn.Module,
        train_dataset: Dataset[Any],
        test_dataset: Dataset[Any],
        config: TrainingConfig | None = None,
        output_dir: str | Path | None = None,
        progress: bool = True,
        log: Callable[[Mapping[str, float]], None] | None = None,
        *,
        configs: TrainingConfig | None = None,
        how: How = How(),
    ) -> None:
        recipes = [recipe for recipe in (config, configs) if recipe is not None]
        if len(recipes) != 1 or not isinstance(recipes[0], TrainingConfig):
            raise TypeError("give the recipe once: config=TrainingConfig(...), or configs=...")
        self.config, self.how = recipes[0], how
        for name, given, kind in (("model", model, nn.Module), ("how", how, How)):
            if not isinstance(given, kind):
                raise TypeError(f"{name} is a {type(given).__name__}; it must be a {kind.__name__}")
        self.processes = join(how.device)
        self.device = self.processes.device
        set_determinism(self.device, how.deterministic)
        self.model: nn.Module = getattr(model, "_orig_mod", model)  # inside a compiled one
        self.model.to(self.device)
        self.preparation = Preparation(self.model, train_dataset, self.config, self.device)
        lay_out(self.model, self.device)
        self.preparation.try_images(self.model, test_dataset, "test")
        if self.processes.main:
            say_unapplied(train_dataset, self.config)
        compiled: Any = torch.compile(self.model) if how.compile else model
        self.compiled: nn.Module = compiled
        self.network = self.processes.wrap(self.compiled)
        self.still = modules_in_eval(self.model)
        self.train_dataset = to_device(train_dataset, self.device)
        self.test_dataset = to_device(test_dataset, self.device)
        own = identity(self.model, self.config, train_dataset, test_dataset) if output_dir else {}
        keep, names = how.keep_checkpoints, common_classes(train_dataset, test_dataset)
        self.output = Output(output_dir, self.processes, self.config, own, keep, names)
        self.progress = progress and self.processes.main
        self.log = log
        size = len(train_dataset)  # type: ignore[arg-type]
        self.batches = TrainingBatches(size, self.config, self.processes)
        self.total_steps = max(1, round(self.config.max_epochs * self.batches.steps))
        parts = self.batches.micro_batches
        # A graph holds one batch on one GPU, with nothing to scale.
        graph = how.graph and not how.compile and self.device.type == "cuda"
        graph = graph and parts == self.processes.count == 1 and self.config.precision != "fp16"
        self.optimizer = build_optimizer(self.model, self.config, graph)
        prepared = self.optimizer, self.preparation, self.processes
        self.update = Update(self.network, *prepared, parts, graph)
        self.ema = moving_average(self.model) if self.config.ema_decay else None
        self.step, self.epoch, self.best = 0, 0, -1.0
        self.history: list[dict[str, float]] = []
        self.seconds = {"training": 0.0, "evaluation": 0.0}
        self.broken: dict[str, Any] | None = None  # the state before an epoch that has not ended

    def train(self, resume: bool = False) -> Evaluation:
        """Train to the end of the recipe and return the last evaluation of the model.

        Interrupted and called again, it goes on from the beginning of the epoch.

        Args:
            resume: continue from the newest checkpoint in `output_dir`, if there is one.

        Raises:
            TrainingError: `output_dir` holds an earlier training and `resume` is false, or its
                weights without a checkpoint, or a checkpoint of another training, or another
                process is training there; the loss
                or the weights are not finite; or a checkpoint cannot be written.
        """
        return finish(self.steps(resume))

    def steps(self, resume: bool = False) -> Generator[None, None, Evaluation]:
        """Train as `train` does, but stop after each step, so that others can have a turn."""
        with remedies(), self.output.held():
            self._begin(resume)
            return (yield from self._train())

    def _begin(self, resume: bool) -> None:
        """Go back to the state that training goes on from, if there is one."""
        set_determinism(self.device, self.how.deterministic)  # another Trainer's may differ
        state = self.broken
        if state is None and self.step == 0:
            output = self.output
            state = self.processes.from_main(output.newest if resume else output.check_unused)
        if state is not None:
            self._restore(state)
        check_weights(self.model, self.step)
        self.output.begin(self.history)

    def _train(self) -> Generator[None, None, Evaluation]:
        epochs = math.ceil(self.total_steps / self.batches.steps)
        evaluation = self.evaluate() if self.epoch == epochs else None
        fast = self.how.fast_cpu and self.compiled is self.model
        bar = tqdm(
            total=self.total_steps,
            initial=self.step,
            unit="step",
            mininterval=1,
            file=sys.stdout,  # notebooks show standard error as an error
            disable=not self.progress,
        )
        with fast_depthwise(self.model) if fast else nullcontext(), bar:
            while self.epoch < epochs:
                self.broken = copied(self._state())
                self.epoch += 1
                yield from self._train_epoch(bar)
                check_weights(self.model, self.step)
                if self.epoch == epochs or self.epoch % self.config.evaluate_every == 0:
                    evaluation = self._evaluate_and_log()
                    bar.set_postfix(accuracy=f"{evaluation.accuracy:.2f} %")
                every = self.how.checkpoint_every
                if every and (self.epoch % every == 0 or self.epoch == epochs):
                    self.output.save(self.epoch, self._state())
                self.broken = None
        assert evaluation is not None
        self.output.save_weights("final", self.model, evaluation.accuracy)
        if self.ema is not None:
            accuracy = self.history[-1]["ema_accuracy"]
            self.output.save_weights("final_ema", self.ema.module, accuracy)
        return evaluation

    def _train_epoch(self, bar: "tqdm[Any]") -> Generator[None, None, None]:
        """Train on every image once, or until the last step of the recipe."""
        start = time.perf_counter()
        seed_everything(self.config.seed, self.epoch, self.processes.rank)
        self.batches.epoch = self.epoch
        self.network.train()
        for module in self.still:
            module.training = False
        log_every = max(1, self.total_steps // LOGS_PER_RUN)
        losses: list[Tensor] = []
        seed = mixed_seed(self.config.seed, self.epoch)
        batches = iter(loader(self.train_dataset, self.batches, self.how.data_workers, seed))
        for _ in range(min(self.batches.steps, self.total_steps - self.step)):
            factor = schedule_factor(self.step, self.config, self.total_steps)
            set_learning_rates(self.optimizer, factor)
            losses += self.update(islice(batches, self.batches.micro_batches))
            if self.step == 0 and self.processes.count > 1:
                check_used(self.model)
            self.step += 1
            if self.ema is not None:
                update_average(self.ema, self.model, self.config.ema_decay)
            bar.update()
            if self.step % log_every == 0 or self.step == self.total_steps:
                rate = factor * max(group["initial_lr"] for group in self.optimizer.param_groups)
                self._log({"training_loss": self._mean(losses), "learning_rate": rate})
                losses.clear()
            yield
        if losses:
            self._mean(losses)
        self.seconds["training"] += time.perf_counter() - start

    def _mean(self, losses: list[Tensor]) -> float:
        """The mean of the last micro-batches' losses, read from the device all at once."""
        values, parts = torch.stack(losses).tolist(), self.batches.micro_batches
        steps = [sum(values[i : i + parts]) / parts for i in range(0, len(values), parts)]
        for step, loss in enumerate(steps, start=self.step - len(steps) + 1):
            self._finite(loss, step)
        mean = torch.tensor(sum(steps) / len(steps), dtype=torch.float64)
        return float(self.processes.sum(mean)) / self.processes.count

    def _finite(self, loss: float, step: int) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} at step {step} of {self.total_steps}; "
                f"lower learning_rate ({self.config.learning_rate}) or raise warmup_fraction"
            )

    def evaluate(self, model: nn.Module | None = None) -> Evaluation:
        """Classify every image of the test set once.

        Args:
            model: by default the model in training, not its moving average.
        """
        start = time.perf_counter()
        evaluation = evaluate(
            self.compiled if model is None else model,
            self.test_dataset,
            self.preparation,
            self.processes,
            self.how.data_workers,
        )
        self.seconds["evaluation"] += time.perf_counter() - start
        return evaluation

    def _evaluate_and_log(self) -> Evaluation:
        """Evaluate the model and its moving average; save the weights of the best so far."""
        evaluation = self.evaluate()
        self._finite(evaluation.loss, self.step)
        values = {name: value for name, value in asdict(evaluation).items() if name != "classes"}
        entry: dict[str, float] = {"epoch": self.epoch, **values}
        accuracy, model = evaluation.accuracy, self.model
        if self.ema is not None:
            averaged = self.evaluate(self.ema.module)
            entry |= {"ema_accuracy": averaged.accuracy, "ema_loss": averaged.loss}
            if averaged.accuracy > accuracy:
                accuracy, model = averaged.accuracy, self.ema.module
        self._log(entry)
        if accuracy > self.best:
            self.best = accuracy
            self.output.save_weights("best", model, accuracy)
        return evaluation

    def _log(self, entry: dict[str, float]) -> None:
        entry = {"step": self.step, "total_steps": self.total_steps, **entry}
        self.history.append(entry)
        if self.log and self.processes.main:
            self.log(entry)
        self.output.log(entry)

    def _state(self) -> dict[str, Any]:
        """Everything that the next epoch depends on."""
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        return {name: getattr(self, name) for name in PROGRESS} | parts

    def _restore(self, state: dict[str, Any]) -> None:
        for name in PROGRESS:
            setattr(self, name, state[name])
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.update.recorded = None  # it would go on with the tensors of before

    def _parts(self) -> dict[str, Any]:
        """What has state of its own; everything random follows from the seed and the epoch."""
        parts = {"model": self.model, "optimizer": self.optimizer, "scaler": self.update.scaler}
        return parts if self.ema is None else parts | {"ema": self.ema}
