"""What a training is recognised by when it goes on: its model, its data and its recipe."""

import hashlib
import json
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from convnext_steps.models.design import Design
from convnext_steps.training.config import TrainingConfig
from convnext_steps.training.items import SeededItems


def identity(
    model: nn.Module, config: TrainingConfig, train: Dataset[Any], test: Dataset[Any]
) -> dict[str, str]:
    """What a checkpoint must have in common with the training that resumes from it."""
    shapes = [(name, list(value.shape)) for name, value in weights_of(model).items()]
    network: list[Any] = [type(model).__name__, design_of(model), shapes]
    frozen = [name for name, value in model.named_parameters() if not value.requires_grad]
    if frozen:
        network.append(frozen)
    data = [fingerprint(half) for half in (train, test)]
    return {
        "model": hashlib.sha256(json.dumps(network, default=named).encode()).hexdigest(),
        "data set": json.dumps(data),
        "recipe": json.dumps(asdict(config), sort_keys=True),
    }


def fingerprint(dataset: Any) -> list[Any]:
    """A data set's kind, its length, and a hash of its first and its last item.

    An item that is another one each time that it is read is left out.
    """
    items = SeededItems(dataset, 0)
    once, again = ([_digest(items[place]) for place in (0, len(dataset) - 1)] for _ in range(2))
    known = [one if one == other else None for one, other in zip(once, again, strict=True)]
    classes = getattr(dataset, "num_classes", None)  # of any type in a data set of one's own
    classes = classes if isinstance(classes, int) else None
    return [type(dataset).__name__, len(dataset), classes, *known]


def _digest(item: Any) -> str:
    image, label = item
    content = torch.as_tensor(image).detach().cpu().contiguous()
    head = f"{tuple(content.shape)} {content.dtype} {int(label)} "
    return hashlib.sha256(head.encode() + bytes(content.view(torch.uint8).numpy())).hexdigest()


def design_of(model: nn.Module) -> dict[str, Any] | None:
    """The fields of the design that a network of the roadmap was built from."""
    design = getattr(model, "design", None)
    return asdict(design) if isinstance(design, Design) else None


def named(value: Any) -> str:
    """What stands in JSON for a class or a function in a design of one's own."""
    return getattr(value, "__qualname__", None) or str(value)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """A model's state dict, without what a module of its own may add that is no tensor."""
    return {key: value for key, value in model.state_dict().items() if isinstance(value, Tensor)}
