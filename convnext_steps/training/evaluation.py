"""How well a model does on a test set."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Dataset

from convnext_steps.models.layers import evaluating
from convnext_steps.training.batch_transforms import Preparation
from convnext_steps.training.batches import evaluation_batches, loader
from convnext_steps.training.checks import logits_of, remedies
from convnext_steps.training.distributed import Processes
from convnext_steps.training.items import class_names


@dataclass(frozen=True)
class Evaluation:
    """The results of a model on a test set."""

    accuracy: float  # top-1, per cent
    loss: float  # cross-entropy, without smoothing
    correct: int
    count: int
    classes: tuple[str, ...] = ()  # names of the labels 0, 1, ..., where the data set has some


@remedies()
@torch.no_grad()  # not inference_mode: what a network keeps of a batch must serve training too
def evaluate(
    model: nn.Module,
    dataset: Dataset[Any],
    preparation: Preparation,
    processes: Processes,
    data_workers: int = 0,
) -> Evaluation:
    """Classify every image of a data set once, in eval mode, shared among all processes.

    Raises:
        TrainingError: a label is not one of the network's classes.
    """
    processes.same_buffers(model)
    correct, losses, count = torch.zeros((), dtype=torch.long, device=preparation.device), [], 0
    size = len(dataset)  # type: ignore[arg-type]
    shares = evaluation_batches(size, processes, preparation.config.micro_batch_size)
    with evaluating(model):
        for batch in loader(dataset, shares, data_workers):
            images, labels = preparation.for_evaluation(*batch)
            with preparation.autocast():
                logits = logits_of(model(images))
            losses.append(F.cross_entropy(logits.float(), labels, reduction="sum"))
            correct += (logits.argmax(1) == labels).sum()
            count += len(labels)
    loss = sum(torch.stack(losses).tolist()) if losses else 0.0
    sums = torch.tensor([int(correct), loss, count], dtype=torch.float64)  # which mps has not
    all_correct, all_loss, every = processes.sum(sums).tolist()
    names = class_names(dataset)
    accuracy = 100 * all_correct / every
    return Evaluation(accuracy, all_loss / every, int(all_correct), int(every), names)
