"""The training recipe as one value, and the named recipes of the paper."""

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_origin

from convnext_steps.fields import convert

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

MAX_MAGNITUDE = 10  # of RandAugment, on the authors' scale (timm's); torchvision's ends at 30


def option(default: Any, meaning: str) -> Any:
    """A field with a default and the line that `convnext-steps train --help` shows."""
    return field(default=default, metadata={"help": meaning})


def check_types(values: "DataclassInstance") -> None:
    """Refuse a field whose value is of another type than the field's; keep NumPy's as Python's.

    Raises:
        ValueError: one is, or it is a number that is not finite.
    """
    for each in fields(values):
        given = getattr(values, each.name)
        value = convert(given, each.type, each.name)
        if type(given) is not int:  # whole numbers stay so, also where others may be
            object.__setattr__(values, each.name, value)


def require(values: object, name: str, holds: bool, rule: str) -> None:
    """Refuse the value of a field unless a rule about it holds.

    Raises:
        ValueError: it does not.
    """
    if not holds:
        raise ValueError(f"{name} is {getattr(values, name)!r}; it {rule}")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The recipe: everything that decides how a network is trained.

    How the work is done is `How`.

    Raises:
        ValueError: a field is out of range.
    """

    # how long, and how much at once
    max_epochs: float = option(300, "passes over the training images; a fraction ends within one")
    batch_size: int = option(128, "images per update, over all processes")
    micro_batch_size: int = option(
        0, "images per forward pass, with gradients accumulated; 0: all at once"
    )

    # the optimiser and its schedule
    optimizer: Literal["adamw", "sgd"] = option("adamw", "adamw or sgd")
    learning_rate: float = option(4e-3, "the peak, at the end of the warm-up")
    final_learning_rate: float = option(1e-6, "at the end of the cosine")
    warmup_fraction: float = option(20 / 300, "share of all updates; the warm-up is linear")
    schedule: Literal["cosine", "thirds"] = option(
        "cosine", "after the warm-up; thirds: divided by 10 after each third"
    )
    weight_decay: float = option(0.05, "of parameters with more than one dimension")
    decay_norms_and_biases: bool = option(False, "weight decay for all parameters")
    momentum: float = option(0.9, "of sgd")
    layer_decay: float = option(1.0, "factor on the learning rate from each layer to the one below")

    # regularisation
    label_smoothing: float = option(0.1, "share of the label that is spread over all classes")
    drop_path_rate: float = option(
        0.0, "stochastic depth of the last block; an argument of the network's"
    )
    mixup: float = option(0.0, "alpha; 0: off")
    cutmix: float = option(0.0, "alpha; 0: off; with mixup, each batch gets one of the two")
    ema_decay: float = option(0.0, "of the moving average of the weights, at most; 0: no average")

    # the images
    resolution: int = option(0, "pixels per side; 0: the data set's own")
    random_resized_crop: bool = option(False, "crop 8 to 100 per cent of each image")
    rand_augment: int = option(0, "magnitude; 0: off")
    random_shift: int = option(0, "pixels, at most, in either direction")
    horizontal_flip: float = option(0.0, "probability")
    random_erasing: float = option(0.0, "probability")

    precision: Literal["fp32", "bf16", "fp16"] = option("fp32", "of the forward and backward pass")
    evaluate_every: int = option(1, "epochs; the last is always evaluated")
    seed: int = option(0, "for everything random")

    def __post_init__(self) -> None:
        check_types(self)
        above_zero = ("max_epochs", "batch_size", "learning_rate", "evaluate_every", "layer_decay")
        for name in above_zero:
            require(self, name, getattr(self, name) > 0, "must be above 0")
        unit = ("warmup_fraction", "label_smoothing", "momentum", "layer_decay", "drop_path_rate")
        for name in (*unit, "ema_decay", "horizontal_flip", "random_erasing"):
            require(self, name, 0 <= getattr(self, name) <= 1, "must be from 0 to 1")
        for each in fields(self):
            if get_origin(each.type) is not Literal:
                require(self, each.name, getattr(self, each.name) >= 0, "must be 0 or more")
        rule = f"must be at most {MAX_MAGNITUDE}"
        require(self, "rand_augment", self.rand_augment <= MAX_MAGNITUDE, rule)


# Table 5. Stochastic depth is the model's: 0.1 / 0.4 / 0.5 / 0.5 for T / S / B / L.
PAPER = TrainingConfig(
    max_epochs=300,
    batch_size=4096,
    micro_batch_size=128,
    learning_rate=4e-3,
    weight_decay=0.05,
    warmup_fraction=20 / 300,
    label_smoothing=0.1,
    drop_path_rate=0.1,
    mixup=0.8,
    cutmix=1.0,
    ema_decay=0.9999,
    resolution=224,
    random_resized_crop=True,
    rand_augment=9,
    horizontal_flip=0.5,
    random_erasing=0.25,
)

# Appendix A.1: fine-tuning at 384 from ImageNet-1K; from ImageNet-22K layer_decay is 0.8.
FINETUNE = replace(
    PAPER,
    max_epochs=30,
    batch_size=512,
    micro_batch_size=32,
    learning_rate=5e-5,
    weight_decay=1e-8,
    warmup_fraction=0.0,
    mixup=0.0,
    cutmix=0.0,
    layer_decay=0.7,
    resolution=384,
)


# The fields of ResNet's first recipe that are the same whatever the modern one has.
ORIGINAL: dict[str, Any] = {
    "optimizer": "sgd",
    "schedule": "thirds",
    "warmup_fraction": 0.0,
    "weight_decay": 1e-4,
    "decay_norms_and_biases": True,
    "label_smoothing": 0.0,
    "drop_path_rate": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "ema_decay": 0.0,
    "rand_augment": 0,
    "random_erasing": 0.0,
}


def original_recipe(config: TrainingConfig) -> TrainingConfig:
    """ResNet's first recipe, scaled to the length and batch size of a modern one.

    SGD with momentum, batches of at most 256, a learning rate of 0.1 per 256 images, divided by 10
    after each third, weight decay of 1e-4 for all parameters, crops and flips only, and 90 epochs
    where the modern recipe has 300 (torchvision's V1 weights).
    """
    batch_size = min(config.batch_size, 256)
    return replace(
        config,
        max_epochs=config.max_epochs * 90 / 300,
        batch_size=batch_size,
        learning_rate=0.1 * batch_size / 256,
        **ORIGINAL,
    )


RECIPES = {
    "paper": PAPER,
    # The roadmap's runs: "EMA severely hurts models with BatchNorm", and no LayerScale.
    "roadmap": replace(PAPER, ema_decay=0.0),
    "finetune": FINETUNE,
    "resnet_original": original_recipe(PAPER),
}
