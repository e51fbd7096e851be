"""The training recipe as one value."""

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Everything that decides how a network is trained; a study has one for all of its steps.

    Raises:
        ValueError: a field is out of range.
    """

    max_epochs: float = 300  # the last epoch may be a part of one
    batch_size: int = 128
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 4e-3  # the peak, reached after the warm-up
    final_learning_rate: float = 1e-6  # where the cosine ends
    warmup_fraction: float = 20 / 300  # of all steps, linear
    schedule: Literal["cosine", "thirds"] = "cosine"  # thirds: a tenth after each third
    weight_decay: float = 0.05
    decay_norms_and_biases: bool = False
    momentum: float = 0.9  # of sgd
    label_smoothing: float = 0.1
    random_shift: int = 0  # pixels, at most, in both directions
    horizontal_flip: float = 0.0  # probability
    drop_path_rate: float = 0.0  # of the last block; for whoever builds the network
    precision: Literal["fp32", "bf16"] = "fp32"
    evaluate_every: int = 1  # epochs; the last step is always followed by an evaluation
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("max_epochs", "batch_size", "learning_rate", "evaluate_every"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it needs to be above 0")
        for name in ("weight_decay", "final_learning_rate", "random_shift", "seed"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it needs to be at least 0")
        for name in (
            "warmup_fraction",
            "label_smoothing",
            "horizontal_flip",
            "drop_path_rate",
            "momentum",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it needs to be in [0, 1]")
        choices = {
            "optimizer": ("adamw", "sgd"),
            "schedule": ("cosine", "thirds"),
            "precision": ("fp32", "bf16"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it may be one of {allowed}")


def original_recipe(config: TrainingConfig) -> TrainingConfig:
    """The recipe that ResNet was first trained with, in the measure of a modern one.

    SGD with momentum, learning rate 0.1 at batch 256 divided by ten after each third, weight decay
    1e-4 on everything, no smoothing, 90 epochs where the modern recipe has 300 (torchvision V1).
    """
    return replace(
        config,
        max_epochs=config.max_epochs * 90 / 300,
        optimizer="sgd",
        learning_rate=0.1 * config.batch_size / 256,
        schedule="thirds",
        warmup_fraction=0.0,
        weight_decay=1e-4,
        decay_norms_and_biases=True,
        label_smoothing=0.0,
        drop_path_rate=0.0,
    )
