"""One training as a value, with a hash of everything that decides its result."""

import hashlib
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache, cached_property
from pathlib import Path
from typing import Any, SupportsIndex

from convnext_steps.errors import DataError
from convnext_steps.models.design import Design
from convnext_steps.models.network import Network
from convnext_steps.models.own import use
from convnext_steps.study.code import own_code
from convnext_steps.training.config import TrainingConfig, require
from convnext_steps.training.data import content_of, load_data
from convnext_steps.training.how import How
from convnext_steps.training.images import ImageData

# The values that a run's hash leaves out. Never change one, or results of different recipes would
# share a hash; a new field joins them with the value for off, so that older results stay valid.
HASH_DEFAULTS: dict[str, dict[str, Any]] = {
    "design": {
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
    "recipe": {
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
        "evaluate_every": 1,
    },
}


def run_hash(
    design: Mapping[str, Any],
    recipe: Mapping[str, Any],
    data: Mapping[str, Any],
    seed: int,
    code: str | None = None,
) -> str:
    """Sixteen hexadecimal digits that change with anything that decides a run's result.

    Args:
        design: the fields of the network's design.
        recipe: the fields of the recipe.
        data: the content of the data set, and how many of its training images are used.
        seed: of everything random.
        code: a digest of the user's own code that the design comes from, if any.
    """
    recipe = {name: value for name, value in recipe.items() if name != "seed"}
    decisive: dict[str, Any] = {
        "design": _beyond_defaults(design, "design"),
        "recipe": _beyond_defaults(recipe, "recipe"),
        "data": {name: value for name, value in data.items() if value and name != "source"},
        "seed": seed,
    }
    if code:
        decisive["code"] = code
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def _beyond_defaults(fields: Mapping[str, Any], kind: str) -> dict[str, Any]:
    plain = {name: _as_json(value) for name, value in HASH_DEFAULTS[kind].items()}
    given = {name: _as_json(value) for name, value in fields.items()}
    return {k: v for k, v in given.items() if k not in plain or v != plain[k]}


def _as_json(value: Any) -> Any:
    """The same whether it went through JSON or not, and 4 for 4.0."""
    if isinstance(value, list | tuple):
        return [_as_json(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which images: a named data set, or a folder of one's own.

    Raises:
        ValueError: a value is out of range.
    """

    source: str = "fashion_mnist"
    root: str = ""  # where a folder, or a downloaded data set, is; never in a hash or a name
    images: int = 0  # to train on; 0: all
    held_out: float = 0.0  # share of the training images, to choose between settings on
    skip_broken: bool = False  # go on without images that cannot be read
    content: str = ""  # what a folder must hold; to read results, the images need not be there

    def __post_init__(self) -> None:
        require(self, "images", self.images >= 0, "must be 0 or more")
        require(self, "held_out", 0 <= self.held_out < 1, "must be at least 0 and below 1")

    def identity(self) -> dict[str, Any]:
        """The data by name and by content, whatever folder they are in."""
        content = self.content or _content(self.source, self.root or None, self.skip_broken)
        known = {"source": self.source, "images": self.images or None, "content": content}
        return known | ({"held_out": self.held_out} if self.held_out else {})

    def load(self, config: TrainingConfig) -> tuple[ImageData, ImageData]:
        """The training and the test images.

        Raises:
            DataError: they are missing or damaged, or are not those that the study names.
        """
        here = _content(self.source, self.root or None, self.skip_broken)
        if self.content not in ("", here):
            where = self.root or self.source
            raise DataError(f"data.content is {self.content!r}, but {where} holds {here!r}")
        return load_data(
            self.source,
            self.images or None,
            config=config,
            root=self.root or None,
            held_out=self.held_out,
            skip_broken=self.skip_broken,
        )


_content = cache(content_of)  # once in a process: a folder may hold many files


@dataclass(frozen=True)
class Run:
    """One training: a design, a recipe with its seed, and data.

    The names by which it is planned do not decide its result, and so are not in its hash.
    """

    study: str
    step: str
    design: Design
    config: TrainingConfig
    data: Data = Data()
    how: How = How()  # not in the hash
    uses: str = ""  # the file that `own_code` is from; not in the hash, which has its content

    @cached_property
    def hash(self) -> str:
        """What distinguishes this run from others: see `run_hash`."""
        recipe, code = vars(self.config), own_code(self.design)
        return run_hash(vars(self.design), recipe, self.data.identity(), self.seed, code)

    @property
    def seed(self) -> int:
        """The seed of everything random."""
        return self.config.seed

    @property
    def name(self) -> str:
        """Step and seed, as people read them."""
        return f"{self.step} seed {self.seed}"

    def folder(self, results: str | Path) -> Path:
        """Where the run's files live under a results folder."""
        return Path(results, self.study, self.step, f"seed-{self.seed}")

    def load_data(self) -> tuple[ImageData, ImageData]:
        """The run's training and test images."""
        return self.data.load(self.config)

    def build(self, data: ImageData) -> Network:
        """The run's network, for the channels and classes of its data."""
        return Network(
            self.design,
            in_channels=data.channels,
            num_classes=data.num_classes,
            drop_path_rate=self.config.drop_path_rate,
        )

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        """Pickle with the user's own file, which is executed before a design of it is read."""
        if not self.uses:
            return super().__reduce_ex__(protocol)
        values = [getattr(self, field.name) for field in fields(self)]
        return _read_run, (self.uses, pickle.dumps(values))


def _read_run(uses: str, values: bytes) -> Run:
    use(Path(uses))
    return Run(*pickle.loads(values))
