"""The multiply-adds of a study's networks, each counted once and remembered in the user's cache."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from tqdm import tqdm

from convnext_steps.errors import InvalidStudyError
from convnext_steps.files import write_json
from convnext_steps.measure.flops import count_on_meta
from convnext_steps.models.design import Design
from convnext_steps.models.network import Network
from convnext_steps.study.code import own_code
from convnext_steps.study.plan import Data, Run
from convnext_steps.training.config import TrainingConfig
from convnext_steps.training.downloads import user_cache


@dataclass(frozen=True)
class Shape:
    """The images that a network gets."""

    images: int  # in the training set
    channels: int
    side: int
    classes: int


KNOWN = {
    "fashion_mnist": Shape(60_000, 1, 32, 10),
    "synthetic": Shape(512, 1, 32, 4),
    "cifar10": Shape(50_000, 3, 32, 10),
    "cifar100": Shape(50_000, 3, 32, 100),
    "imagenette": Shape(9_469, 3, 224, 10),
    "imagenette_full": Shape(9_469, 3, 224, 10),
    "imagenet": Shape(1_281_167, 3, 224, 1000),
}


def counts(runs: Sequence[Run]) -> list[int]:
    """The multiply-adds of each run's network, at the size of its images.

    A network is built for it, unless this library has counted it before.

    Raises:
        InvalidStudyError: a network cannot be built, or the images are too small for it.
    """
    wanted = [(run, shape(run.data, replace(run.config, seed=0))) for run in runs]
    keys = [_key(run.design, known) for run, known in wanted]
    found = _remembered()
    missing = {key: pair for key, pair in zip(keys, wanted, strict=True) if key not in found}
    bar = tqdm(
        missing.items(), "networks counted", leave=False, delay=1, disable=None
    )  # on a terminal
    try:
        for key, (run, known) in bar:
            found[key] = _count(run, known)
    finally:
        if missing:
            _remember(found)
    return [found[key] for key in keys]


def _count(run: Run, known: Shape) -> int:
    images = {"in_channels": known.channels, "num_classes": known.classes}
    try:
        return count_on_meta(partial(Network, run.design, **images), known.channels, known.side)
    except (ValueError, RuntimeError) as error:  # PyTorch's, of sizes beyond all memory
        raise InvalidStudyError(f"{run.step} cannot be built: {error}") from None


def images_seen(run: Run) -> int:
    """How many images a training sees, counting repetitions."""
    return round(run.config.max_epochs * shape(run.data, replace(run.config, seed=0)).images)


@cache
def shape(data: Data, config: TrainingConfig) -> Shape:
    """The images of a data set as a recipe prepares them; a folder is read for it."""
    if data.source in KNOWN:
        known = KNOWN[data.source]
        images = round((data.images or known.images) * (1 - data.held_out))
        return Shape(images, known.channels, config.resolution or known.side, known.classes)
    train, _ = data.load(config)
    return Shape(len(train), train.channels, train[0][0].shape[-1], train.num_classes)


@cache
def _key(design: Design, known: Shape) -> str:
    """What distinguishes a network's count from others: its images' number does not."""
    text = f"{type(design).__name__} {design} {own_code(design)} {replace(known, images=0)}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def _version() -> str:
    """A digest of the code that networks are built by, which changes more often than versions."""
    sources = sorted(Path(Network.__init__.__code__.co_filename).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]


def _file() -> Path:
    return user_cache() / "counts.json"


def _remembered() -> dict[str, int]:
    """What was counted before; nothing where the file is another version's or damaged."""
    try:
        stored = json.loads(_file().read_bytes())
        return dict(stored["counts"]) if stored["version"] == _version() else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _remember(found: Mapping[str, int]) -> None:
    with suppress(OSError):  # a cache that cannot be written to costs time, nothing else
        _file().parent.mkdir(parents=True, exist_ok=True)
        write_json(_file(), {"version": _version(), "counts": _remembered() | dict(found)})
