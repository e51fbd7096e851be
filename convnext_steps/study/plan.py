"""A named study as a list of runs, each with a hash of everything that decides its result."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from convnext_steps.models.design import Design, scaled
from convnext_steps.models.network import Network
from convnext_steps.models.roadmap import find_step, roadmap
from convnext_steps.study.profiles import find_profile
from convnext_steps.training.config import TrainingConfig, original_recipe
from convnext_steps.training.data import SOURCES, ImageData, load_data
from convnext_steps.training.how import How

# The values of fields that a run's hash leaves out, of a design and of a recipe. Never change one,
# or results of different recipes would share a hash; a new field may be added.
PLAIN: tuple[dict[str, Any], dict[str, Any]] = (
    {
        "depths": (3, 4, 6, 3),
        "width": 64,
        "stem": "resnet",
        "stem_stride": 4,
        "depthwise": False,
        "layout": "bottleneck",
        "kernel_size": 3,
        "activation": "relu",
        "activations_per_block": 3,
        "norm": "batch",
        "norms_per_block": 3,
        "downsampling": "in_block",
    },
    {
        "max_epochs": 300,
        "batch_size": 128,
        "micro_batch_size": 0,
        "optimizer": "adamw",
        "learning_rate": 4e-3,
        "final_learning_rate": 1e-6,
        "warmup_fraction": 20 / 300,
        "schedule": "cosine",
        "weight_decay": 0.05,
        "decay_norms_and_biases": False,
        "momentum": 0.9,
        "layer_decay": 1.0,
        "label_smoothing": 0.1,
        "drop_path_rate": 0.0,
        "mixup": 0.0,
        "cutmix": 0.0,
        "ema_decay": 0.0,
        "resolution": 0,
        "random_resized_crop": False,
        "rand_augment": 0,
        "random_shift": 0,
        "horizontal_flip": 0.0,
        "random_erasing": 0.0,
        "precision": "fp32",
        "evaluate_every": 1,
        "seed": 0,
    },
)


@dataclass(frozen=True)
class Run:
    """One training of one step with one seed: everything that decides its result."""

    profile: str
    regime: str
    step: str
    seed: int
    design: Design
    config: TrainingConfig
    data: str
    train_images: int | None
    how: How = How()  # not in the hash

    @cached_property
    def hash(self) -> str:
        """Sixteen hexadecimal digits that change when the design, the recipe or the data do.

        Fields that are as in `PLAIN` are left out, so that results stay valid when a later version
        has a new field that is off unless asked for: it joins `PLAIN` with the value for off.
        """
        fields = {"design": vars(self.design), "recipe": vars(self.config)}
        decisive = {
            **{name: getattr(self, name) for name in ("profile", "regime", "step", "seed")},
            **{
                kind: {k: v for k, v in values.items() if k not in plain or v != plain[k]}
                for (kind, values), plain in zip(fields.items(), PLAIN, strict=True)
            },
            "data": [self.data, self.train_images, SOURCES[self.data].fingerprint],
        }
        text = json.dumps(decisive, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """Step and seed, for people."""
        return f"{self.step} seed {self.seed}"

    def folder(self, results: str | Path) -> Path:
        """Where the run's files live under a results folder."""
        return Path(results, self.profile, self.regime, self.step, f"seed-{self.seed}")

    def load_data(self) -> tuple[ImageData, ImageData]:
        """The run's training and test images."""
        return load_data(self.data, self.train_images, config=self.config)

    def build(self, data: ImageData) -> Network:
        """The run's network, for the channels and classes of its data."""
        return Network(
            self.design,
            in_channels=data.channels,
            num_classes=data.num_classes,
            drop_path_rate=self.config.drop_path_rate,
        )


def read_run(values: Mapping[str, Any]) -> Run:
    """The run that `asdict` made these values of, though they went through JSON."""
    design = Design(**values["design"] | {"depths": tuple(values["design"]["depths"])})
    config = TrainingConfig(**values["config"])
    return Run(**{**values, "design": design, "config": config, "how": How(**values["how"])})


def plan(
    profile: str = "quick",
    regime: str = "tiny",
    steps: Iterable[str] | None = None,
    seeds: Iterable[int] = (0,),
) -> list[Run]:
    """The runs of a study, seed by seed, in the order of the roadmap.

    Args:
        profile: a key of `PROFILES`.
        regime: "tiny", "base" or "leave_one_out".
        steps: names of steps; by default the profile's own, or all.
        seeds: whole numbers from 0 on.

    Raises:
        ValueError: a name does not exist, or a seed is negative.
    """
    chosen = find_profile(profile)
    names = list(steps or chosen.steps or roadmap(regime))
    known = [find_step(name, regime) for name in names]
    designs = [scaled(step.design, **chosen.scale) for step in known]
    runs = []
    for seed in seeds:
        config = replace(chosen.recipe, seed=seed)
        recipes = {"roadmap": config, "resnet_original": original_recipe(config)}
        for step, design in zip(known, designs, strict=True):
            runs.append(
                Run(
                    profile=profile,
                    regime=regime,
                    step=step.name,
                    seed=seed,
                    design=design,
                    config=recipes[step.recipe],
                    data=chosen.data,
                    train_images=chosen.train_images,
                    how=chosen.how,
                )
            )
    return runs
