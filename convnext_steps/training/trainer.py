"""One training run: a model, two data sets and a recipe."""

import json
import math
import random
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler
from tqdm import tqdm

from convnext_steps.training.augment import random_horizontal_flip, random_shift
from convnext_steps.training.config import TrainingConfig
from convnext_steps.training.data import ImageTensors
from convnext_steps.training.optimization import build_optimizer, build_schedule

EVALUATION_BATCH_SIZE = 500
LOGS_PER_RUN = 50


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class Evaluation:
    """How a model does on a whole test set."""

    accuracy: float  # per cent, top-1
    loss: float  # cross-entropy, without smoothing
    correct: int
    count: int


def seed_everything(seed: int, epoch: int = 0) -> None:
    """Seed Python, NumPy and PyTorch from a seed and an epoch together."""
    words = np.random.SeedSequence([seed, epoch]).generate_state(2)
    random.seed(int(words[0]))
    np.random.seed(int(words[0]))
    torch.manual_seed(int(words[0]) << 32 | int(words[1]))


class Trainer:
    """Trains a model on a data set with a recipe, and evaluates it on another.

    Args:
        model: any network from images (N, C, H, W) to logits (N, classes).
        train_dataset: pairs of image and label; uint8 images of an `ImageTensors` are normalised.
        test_dataset: the same, for evaluation.
        configs: the recipe.
        output_dir: where `history.jsonl` is written while training; nothing is written without it.
        progress: whether to show a progress bar.

    Raises:
        TrainingError: the training data do not fill one batch, or the loss is not finite.
    """

    def __init__(
        self,
        model: nn.Module,
        train_dataset: Dataset[Any],
        test_dataset: Dataset[Any],
        configs: TrainingConfig,
        output_dir: str | Path | None = None,
        progress: bool = True,
    ) -> None:
        self.config = configs
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model.to(self.device).to(memory_format=torch.channels_last)
        self.train_dataset = train_dataset
        self.test_dataset = test_dataset
        self.output_dir = Path(output_dir) if output_dir else None
        self.progress = progress
        self.train_batches = batches(train_dataset, configs.batch_size, shuffle=True)
        self.total_steps = max(1, round(configs.max_epochs * len(self.train_batches)))
        self.optimizer = build_optimizer(self.model, configs)
        self.schedule = build_schedule(self.optimizer, configs, self.total_steps)
        self.step = 0
        self.history: list[dict[str, float]] = []
        self.seconds = {"training": 0.0, "evaluation": 0.0}

    def train(self) -> Evaluation:
        """Train to the end of the recipe and return the last evaluation."""
        if self.output_dir:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            (self.output_dir / "history.jsonl").unlink(missing_ok=True)
        epochs = math.ceil(self.total_steps / len(self.train_batches))
        with self._bar() as bar:
            for epoch in range(1, epochs + 1):
                seed_everything(self.config.seed, epoch)
                self._train_epoch(bar)
                if epoch == epochs or epoch % self.config.evaluate_every == 0:
                    evaluation = self.evaluate()
                    self._log({"epoch": epoch, **asdict(evaluation)})
                    bar.set_postfix(accuracy=f"{evaluation.accuracy:.2f} %")
        return evaluation

    def _bar(self) -> "tqdm[Any]":
        """A progress bar on standard output, since notebooks paint standard error as an error."""
        return tqdm(
            total=self.total_steps,
            unit="step",
            mininterval=1,
            file=sys.stdout,
            disable=not self.progress,
        )

    def _train_epoch(self, bar: "tqdm[Any]") -> None:
        """Train on every batch once, or until the last step of the recipe."""
        start = time.perf_counter()
        self.model.train()
        log_every = max(1, self.total_steps // LOGS_PER_RUN)
        losses: list[float] = []
        for images, labels in self.train_batches:
            learning_rate = float(self.schedule.get_last_lr()[0])
            losses.append(self._train_step(images, labels))
            bar.update()
            if self.step % log_every == 0 or self.step == self.total_steps:
                mean = sum(losses) / len(losses)
                self._log({"training_loss": mean, "learning_rate": learning_rate})
                losses.clear()
            if self.step == self.total_steps:
                break
        self.seconds["training"] += time.perf_counter() - start

    def _train_step(self, images: Tensor, labels: Tensor) -> float:
        """One update of the weights; returns the loss before it."""
        images, labels = self._prepare(images, labels, augment=True)
        with self._autocast():
            logits = self.model(images)
            loss = F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss is {value} at step {self.step + 1} of {self.total_steps}; "
                f"lower the learning rate ({self.config.learning_rate}) or lengthen the warm-up"
            )
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.step += 1
        return value

    @torch.inference_mode()
    def evaluate(self) -> Evaluation:
        """Classify every image of the test set once, in eval mode."""
        start = time.perf_counter()
        self.model.eval()
        correct, count, loss = 0, 0, 0.0
        for images, labels in batches(self.test_dataset, EVALUATION_BATCH_SIZE, shuffle=False):
            images, labels = self._prepare(images, labels, augment=False)
            with self._autocast():
                logits = self.model(images).float()
            correct += int((logits.argmax(1) == labels).sum())
            loss += F.cross_entropy(logits, labels, reduction="sum").item()
            count += len(labels)
        self.seconds["evaluation"] += time.perf_counter() - start
        return Evaluation(100 * correct / count, loss / count, correct, count)

    def _prepare(self, images: Tensor, labels: Tensor, augment: bool) -> tuple[Tensor, Tensor]:
        """Move a batch to the device, augment it, and turn bytes into normalised floats."""
        images, labels = images.to(self.device), labels.to(self.device)
        if augment:
            images = random_shift(images, self.config.random_shift)
            images = random_horizontal_flip(images, self.config.horizontal_flip)
        if isinstance(self.train_dataset, ImageTensors):
            data = self.train_dataset
            images = (images.float() / 255 - data.mean) / data.std
        return images.contiguous(memory_format=torch.channels_last), labels

    def _autocast(self) -> torch.autocast:
        enabled = self.config.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def _log(self, entry: dict[str, float]) -> None:
        entry = {"step": self.step, "total_steps": self.total_steps, **entry}
        self.history.append(entry)
        if self.output_dir:
            with (self.output_dir / "history.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")


def batches(dataset: Dataset[Any], batch_size: int, shuffle: bool) -> DataLoader[Any]:
    """Batches of (images, labels); when shuffled, an incomplete last batch is left out.

    Raises:
        TrainingError: the data do not fill one batch.
    """
    size = len(dataset)  # type: ignore[arg-type]
    if size < (batch_size if shuffle else 1):
        raise TrainingError(f"{size} images do not fill a batch of {batch_size}; lower batch_size")
    sampler = RandomSampler(dataset) if shuffle else SequentialSampler(dataset)  # type: ignore[arg-type]
    if isinstance(dataset, ImageTensors):  # whole batches by one indexing
        batch_sampler = BatchSampler(sampler, batch_size, drop_last=shuffle)
        return DataLoader(dataset, sampler=batch_sampler, batch_size=None)
    return DataLoader(dataset, batch_size, sampler=sampler, drop_last=shuffle)
