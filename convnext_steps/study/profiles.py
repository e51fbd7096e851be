"""The named studies."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from convnext_steps.text import unknown
from convnext_steps.training.config import RECIPES, TrainingConfig
from convnext_steps.training.how import How


@dataclass(frozen=True)
class Profile:
    """A named study: which data, how the designs are scaled, and one recipe for all steps."""

    name: str
    description: str
    data: str
    train_images: int | None  # the first so many; None for all
    recipe: TrainingConfig
    scale: Mapping[str, Any] = field(default_factory=dict)  # arguments of `scaled`
    steps: tuple[str, ...] | None = None  # None for all
    how: How = How()


SMOKE = Profile(
    name="smoke",
    description="two small steps on synthetic images, in seconds, for tests",
    data="synthetic",
    train_images=None,
    scale={"width": 1 / 8, "depth": 1 / 3, "stem_stride": 2},
    recipe=TrainingConfig(max_epochs=2, batch_size=32, random_shift=1),
    steps=("resnet", "separate_downsampling"),
)
QUICK = Profile(
    name="quick",
    description="every step on 10,000 images of Fashion-MNIST, in minutes",
    data="fashion_mnist",
    train_images=10_000,
    scale={"width": 1 / 8, "stem_stride": 2},
    recipe=TrainingConfig(
        max_epochs=4, batch_size=64, random_shift=2, horizontal_flip=0.5, evaluate_every=4
    ),
)
STANDARD = Profile(
    name="standard",
    description="every step on the whole of Fashion-MNIST, in hours",
    data="fashion_mnist",
    train_images=None,
    scale={"width": 1 / 8, "stem_stride": 2},
    recipe=TrainingConfig(max_epochs=2, batch_size=64, random_shift=2, horizontal_flip=0.5),
)
SHALLOW = replace(
    STANDARD,
    name="shallow",
    description="standard at a third of the depth",
    scale={**STANDARD.scale, "depth": 1 / 3},
)


def _budget(profile: Profile, name: str, share: float) -> Profile:
    """The same study with a share of the images seen."""
    return replace(
        profile,
        name=f"{profile.name}_{name}",
        description=f"{profile.name} with a {name} of the images seen",
        recipe=replace(profile.recipe, max_epochs=profile.recipe.max_epochs * share),
    )


QUARTER = _budget(STANDARD, "quarter", 1 / 4)
STRIDE_4 = replace(
    QUARTER,
    name="standard_quarter_stride_4",
    description="standard_quarter with the paper's stem stride",
    scale={**QUARTER.scale, "stem_stride": 4},
)

# For GPUs; these three have not been run yet.
CIFAR10 = Profile(
    name="cifar10",
    description="every step on CIFAR-10 at a quarter of the width, for a GPU, not run yet",
    data="cifar10",
    train_images=None,
    scale={"width": 1 / 4, "stem_stride": 2},
    recipe=TrainingConfig(
        max_epochs=60, batch_size=128, random_shift=4, horizontal_flip=0.5, evaluate_every=5
    ),
)
IMAGENETTE = Profile(
    name="imagenette",
    description="every step on Imagenette at half the width, for a GPU, not run yet",
    data="imagenette",
    train_images=None,
    scale={"width": 1 / 2},
    recipe=TrainingConfig(
        max_epochs=100,
        batch_size=128,
        learning_rate=2e-3,
        resolution=160,
        random_resized_crop=True,
        rand_augment=9,
        horizontal_flip=0.5,
        random_erasing=0.25,
        evaluate_every=5,
    ),
    how=How(data_workers=8),
)
IMAGENET = Profile(
    name="imagenet",
    description="every step on ImageNet-1K with the paper's own recipe, for eight GPUs a run, "
    "not run yet",
    data="imagenet",
    train_images=None,
    recipe=RECIPES["roadmap"],
    how=How(processes=8, data_workers=8),
)
PROFILES = {
    profile.name: profile
    for profile in (
        *(SMOKE, QUICK),
        *(STANDARD, QUARTER, _budget(STANDARD, "sixteenth", 1 / 16)),
        *(SHALLOW, _budget(SHALLOW, "quarter", 1 / 4), _budget(SHALLOW, "sixteenth", 1 / 16)),
        STRIDE_4,
        *(CIFAR10, IMAGENETTE, IMAGENET),
    )
}


def find_profile(name: str) -> Profile:
    """One profile by name.

    Raises:
        ValueError: the profile does not exist; the message has the nearest name.
    """
    if name not in PROFILES:
        raise ValueError(unknown("profile", name, PROFILES))
    return PROFILES[name]
