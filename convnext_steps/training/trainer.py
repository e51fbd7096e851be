"""One training: a model, two data sets and a recipe, in one process or many."""

import math
import random
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import Dataset
from tqdm import tqdm

from convnext_steps.errors import TrainingError
from convnext_steps.models.fast.layers import fast_layers
from convnext_steps.training.batch_transforms import Preparation
from convnext_steps.training.batches import TrainingBatches, loader, mixed_seed
from convnext_steps.training.checkpoint import Output, identity
from convnext_steps.training.checks import check_fit
from convnext_steps.training.config import TrainingConfig
from convnext_steps.training.distributed import join
from convnext_steps.training.evaluation import Evaluation, evaluate
from convnext_steps.training.how import How
from convnext_steps.training.optimization import build_optimizer, build_schedule

LOGS_PER_RUN = 50
PROGRESS = ("step", "epoch", "best", "history", "seconds")  # attributes that a checkpoint holds


def seed_everything(*numbers: int) -> None:
    """Seed Python, NumPy and PyTorch from one or more numbers, such as seed, epoch and rank."""
    seed = mixed_seed(*numbers)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


class Trainer:
    """Trains a model on one data set by a recipe, and evaluates it on another.

    Under torchrun, all processes train one model together. Everything random follows from the
    recipe's seed and the epoch: a training that is interrupted and resumed ends with the same bits.
    On a CPU, the model has the fast layers of `models.fast` while it trains, then its own again.

    Args:
        model: any network from images (N, C, H, W) to logits (N, classes).
        train_dataset: pairs of image and label; uint8 images of an `ImageData` are normalised.
        test_dataset: the same, for evaluation.
        config: the recipe.
        output_dir: the folder for history, checkpoints and weights; without it, none are written.
        progress: whether to show a progress bar.
        log: called with each entry of the history, in the main process.
        configs: another name for `config`; give one of the two.
        how: how the work is done.

    Raises:
        TrainingError: the data do not fit the model or do not fill a batch.
        TypeError: both or neither of `config` and `configs` are given.
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
        check_fit(model, train_dataset)
        self.config, self.how = _the_one(config, configs), how
        self.processes = join()
        self.device = self.processes.device
        self.model = model.to(self.device).to(memory_format=torch.channels_last)
        self.compiled: nn.Module = torch.compile(self.model) if how.compile else self.model  # type: ignore[assignment]
        self.network = self.processes.wrap(self.compiled)
        self.train_dataset, self.test_dataset = train_dataset, test_dataset
        own = identity(model, self.config, train_dataset, test_dataset) if output_dir else {}
        self.output = Output(output_dir, self.processes, self.config, own, how.keep_checkpoints)
        self.progress = progress and self.processes.main
        self.log = log
        size = len(train_dataset)  # type: ignore[arg-type]
        self.batches = TrainingBatches(size, self.config, self.processes)
        self.total_steps = max(1, round(self.config.max_epochs * self.batches.steps))
        self.optimizer = build_optimizer(self.model, self.config)
        self.schedule = build_schedule(self.optimizer, self.config, self.total_steps)
        fp16 = self.config.precision == "fp16"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=fp16)
        self.preparation = Preparation(self.model, train_dataset, self.config, self.device)
        decay = self.config.ema_decay
        self.ema = _moving_average(self.model, decay) if decay else None
        self.step, self.epoch, self.best = 0, 0, -1.0
        self.history: list[dict[str, float]] = []
        self.seconds = {"training": 0.0, "evaluation": 0.0}

    def train(self, resume: bool = False) -> Evaluation:
        """Train to the end of the recipe and return the last evaluation of the model.

        Args:
            resume: continue from the newest checkpoint in `output_dir`, if there is one.

        Raises:
            TrainingError: `output_dir` holds an earlier training and `resume` is false, or
                checkpoints of other trainings only; the loss is not finite; or a checkpoint
                cannot be written.
        """
        if not resume:
            self.output.check_unused()
        elif (state := self.output.newest()) is not None:
            self._restore(state)
        self.output.begin(self.history)
        epochs = math.ceil(self.total_steps / self.batches.steps)
        evaluation = self.evaluate() if self.epoch == epochs else None
        fast = self.how.fast_cpu and self.device.type == "cpu"
        with fast_layers(self.model) if fast else nullcontext(), self._bar() as bar:
            while self.epoch < epochs:
                self.epoch += 1
                self._train_epoch(bar)
                if self.epoch == epochs or self.epoch % self.config.evaluate_every == 0:
                    evaluation = self._evaluate_and_log()
                    bar.set_postfix(accuracy=f"{evaluation.accuracy:.2f} %")
                every = self.how.checkpoint_every
                if every and (self.epoch % every == 0 or self.epoch == epochs):
                    self.output.save(self.epoch, self._state())
        assert evaluation is not None
        self.output.save_weights("final", self.model, evaluation.accuracy)
        if self.ema is not None:
            accuracy = self.history[-1]["ema_accuracy"]
            self.output.save_weights("final_ema", self.ema.module, accuracy)
        return evaluation

    def _bar(self) -> "tqdm[Any]":
        """A progress bar on standard output: notebooks show standard error as an error."""
        return tqdm(
            total=self.total_steps,
            initial=self.step,
            unit="step",
            mininterval=1,
            file=sys.stdout,
            disable=not self.progress,
        )

    def _train_epoch(self, bar: "tqdm[Any]") -> None:
        """Train on every image once, or until the last step of the recipe."""
        start = time.perf_counter()
        seed_everything(self.config.seed, self.epoch, self.processes.rank)
        self.batches.epoch = self.epoch
        self.network.train()
        log_every = max(1, self.total_steps // LOGS_PER_RUN)
        losses: list[float] = []
        batches = iter(loader(self.train_dataset, self.batches, self.how.data_workers))
        for _ in range(min(self.batches.steps, self.total_steps - self.step)):
            learning_rate = float(max(self.schedule.get_last_lr()))
            losses.append(self._update(islice(batches, self.batches.micro_batches)))
            bar.update()
            if self.step % log_every == 0 or self.step == self.total_steps:
                loss = self.processes.mean(sum(losses) / len(losses))
                self._log({"training_loss": loss, "learning_rate": learning_rate})
                losses.clear()
        self.seconds["training"] += time.perf_counter() - start

    def _update(self, micro_batches: Iterable[tuple[Tensor, Tensor]]) -> float:
        """Update the weights from all micro-batches; return the mean loss before the update."""
        parts = self.batches.micro_batches
        total = 0.0
        self.optimizer.zero_grad()
        for part, (images, labels) in enumerate(micro_batches, start=1):
            with self.processes.accumulating(self.network, last=part == parts):
                loss = self._loss(images, labels)
                total += self._finite(loss.item())
                self.scaler.scale(loss / parts).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        self.step += 1
        if self.ema is not None:
            self.ema.update_parameters(self.model)
        return total / parts

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """The loss of one augmented micro-batch."""
        images, labels = self.preparation.for_training(images, labels)
        with self.preparation.autocast():
            logits = self.network(images)
            return F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)

    def _finite(self, loss: float) -> float:
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} at step {self.step + 1} of {self.total_steps}; "
                f"lower learning_rate ({self.config.learning_rate}) or raise warmup_fraction"
            )
        return loss

    def evaluate(self, model: nn.Module | None = None) -> Evaluation:
        """Classify every image of the test set once.

        Args:
            model: by default the model in training, not its moving average.
        """
        start = time.perf_counter()
        evaluation = evaluate(
            model or self.compiled,
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
        entry: dict[str, float] = {"epoch": self.epoch, **asdict(evaluation)}
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

    def _parts(self) -> dict[str, Any]:
        """What has state of its own; everything random follows from the seed and the epoch."""
        parts = {
            "model": self.model,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "scaler": self.scaler,
        }
        return parts if self.ema is None else parts | {"ema": self.ema}


def _moving_average(model: nn.Module, decay: float) -> AveragedModel:
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def _the_one(*recipes: TrainingConfig | None) -> TrainingConfig:
    """The recipe, given by either of its names."""
    given = [recipe for recipe in recipes if recipe is not None]
    if len(given) != 1:
        raise TypeError("give the recipe once: config=TrainingConfig(...), or configs=...")
    return given[0]
