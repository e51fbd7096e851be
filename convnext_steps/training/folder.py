"""A folder of one's own images: `train/` and `val/` (or `test/`), one subfolder per class.

Sets of up to `DECODED_LIMIT` bytes are decoded once and kept in the cache, so that an epoch is
as fast as on the bundled data; larger ones are read by a loader's processes. The cache may be
deleted at any time.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import PIL
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision.transforms import InterpolationMode, v2

from convnext_steps.errors import DataError
from convnext_steps.files import atomic_file, write_bytes
from convnext_steps.training.config import TrainingConfig
from convnext_steps.training.decoding import read_upright
from convnext_steps.training.downloads import alone
from convnext_steps.training.folder_files import (
    Entry,
    Folder,
    folder_fingerprint,
    read_folder,
)
from convnext_steps.training.folder_index import (
    CHUNK,
    VERSION,
    cache_folder,
    cannot_write,
    in_parallel,
)
from convnext_steps.training.image_transforms import evaluation_crop, image_transform
from convnext_steps.training.images import ImageData, ImageFiles, ImageTensors

__all__ = ["DECODED_LIMIT", "FolderFiles", "folder_fingerprint", "load_folder"]

LOG = logging.getLogger("convnext_steps")

DECODED_LIMIT = 2 * 2**30  # bytes of decoded images that are kept
SAMPLE = 10_000  # training images whose mean and std are taken where all are too many
FACTS = "decoded.json"  # written last: without it, nothing was decoded

Size = tuple[int, int]  # (H, W)
Bytes = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]


def load_folder(
    root: str | Path | None = None,
    config: TrainingConfig | None = None,
    skip_broken: bool = False,
) -> tuple[ImageData, ImageData]:
    """The training and the test images of a folder, of one channel if all are stored as grey.

    Images that share one size keep it unless the recipe has a resolution. Within each half one
    image of each class follows another, in an order that depends on their content alone. Mean and
    std are those of the training images.

    Args:
        root: the folder; by default $CONVNEXT_STEPS_DATA, if that has train/.
        config: its `resolution` and `random_resized_crop` decide what is decoded.
        skip_broken: go on without the images that cannot be read.

    Raises:
        DataError: a half is missing, a class has no images, the halves' classes differ, a file
            cannot be read, or the images come in many sizes and the recipe has no resolution.
    """
    folder, config = read_folder(root, skip_broken), config or TrainingConfig()
    for note in folder.notes:
        LOG.warning(note)
    shared = _shared_size(folder, config)
    channels = 1 if all(e.facts.grey for e in (*folder.train, *folder.test)) else 3
    train = Half("train", folder.root, folder.train, *_geometry(config, shared, training=True))
    test = Half("test", folder.root, folder.test, *_geometry(config, shared, training=False))
    decoded = channels * (train.pixels + test.pixels) <= DECODED_LIMIT
    halves = (train, test) if decoded else (train._replace(entries=train.entries[:SAMPLE]),)
    facts, arrays = _kept(halves, channels, folder.fingerprint, decoded)
    values: dict[str, Any] = {
        "mean": tuple(facts["mean"]),
        "std": tuple(facts["std"]),
        "num_classes": len(folder.classes),
        "classes": folder.classes,
    }
    if not decoded:
        return (
            FolderFiles(Upright(folder.root, train.entries), size=shared, **values),
            FolderFiles(Upright(folder.root, test.entries), size=shared, **values),
        )
    images, test_images = map(torch.from_numpy, arrays)
    return (
        ImageTensors(images, train.labels, **values),
        ImageTensors(test_images, test.labels, **values),
    )


def _shared_size(folder: Folder, config: TrainingConfig) -> Size | None:
    """The size of all images, if they share one; without it the recipe has to name a resolution."""
    first, *others = (*folder.train, *folder.test)
    other = next((entry for entry in others if entry.facts.size != first.facts.size), None)
    if other is None:
        return first.facts.size
    if not config.resolution:
        sizes = [f"{e.name} is {e.facts.width}x{e.facts.height}" for e in (first, other)]
        raise DataError(
            f"{folder.root}: {', '.join(sizes)}; choose one resolution for all images, "
            "such as resolution=64 (--resolution 64)"
        )
    return None


# ---- too many to keep decoded


class Upright(Dataset[tuple[Image.Image, int]]):
    """Image files that are read when they are asked for."""

    def __init__(self, root: Path, entries: Sequence[Entry]) -> None:
        self.samples = [(root.absolute() / entry.name, entry.label) for entry in entries]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        path, label = self.samples[index]
        return read_upright(path), label


@dataclass(frozen=True, eq=False)
class FolderFiles(ImageFiles):
    """The images of a folder, read one by one in a loader's processes."""

    size: Size | None = field(default=None, kw_only=True)  # of all images, if they share it

    def first(self, count: int) -> Self:
        """The first `count` images: as many of each class."""
        self._check_count(count)
        return self._take(torch.arange(count))

    def prepared(self, config: TrainingConfig, training: bool) -> Self:
        """The same images, as they are unless the recipe crops, resizes or augments them."""
        return replace(self, transform=image_transform(config, training, self.size))


# ---- kept decoded


class Half(NamedTuple):
    """The images of one half, and how they become an array of one shape."""

    name: str
    root: Path
    entries: tuple[Entry, ...]
    size: Size
    steps: list[Any]  # transforms of a PIL image

    @property
    def pixels(self) -> int:
        """Of all images, in one channel."""
        return len(self.entries) * self.size[0] * self.size[1]

    @property
    def labels(self) -> torch.Tensor:
        """One per image, (N,)."""
        return torch.tensor([entry.label for entry in self.entries])


def _geometry(
    config: TrainingConfig, shared: Size | None, training: bool
) -> tuple[Size, list[Any]]:
    """The size that the images of one half are kept in, and the transforms that make it.

    It is what the network takes, so that nothing is left to do in an epoch. Where random crops are
    drawn it has room for them: the shorter side is 256/224 of the resolution.
    """
    side = config.resolution
    if shared is not None and (side == 0 or shared == (side, side)):
        return shared, []
    if not (training and config.random_resized_crop):
        return (side, side), evaluation_crop(side)
    room = side * 256 // 224
    if shared is not None and min(shared) <= room:
        return shared, []
    resize = v2.Resize(room, interpolation=InterpolationMode.BICUBIC)
    return (room, room), [resize, v2.CenterCrop(room)]


def _kept(
    halves: Sequence[Half], channels: int, fingerprint: str, decoded: bool
) -> tuple[dict[str, Any], list[Bytes]]:
    """Mean and std of the training images, and if `decoded` each half (N, C, H, W) from the disk.

    They are in the cache, known by what decides them. One process makes them, once.

    Raises:
        DataError: an image has changed since it was listed, or the cache cannot be written.
    """
    geometry = [(half.size, str(half.steps)) for half in halves]
    key = json.dumps([VERSION, PIL.__version__, fingerprint, channels, decoded, geometry])
    where = cache_folder() / hashlib.sha256(key.encode()).hexdigest()[:16]
    found = _load(where, halves, channels, decoded)
    if found is None:
        with alone(where, create=True):
            found = _load(where, halves, channels, decoded)
            if found is None:
                for left in where.glob(".*.partial"):  # by a process that was killed
                    left.unlink(missing_ok=True)
                try:
                    _write(where, halves, channels, decoded)
                except OSError as error:
                    raise cannot_write(where, error) from None
                found = _load(where, halves, channels, decoded)
    if found is None:
        raise DataError(f"{where} cannot be read back; delete it and try again")
    return found


def _load(
    where: Path, halves: Sequence[Half], channels: int, decoded: bool
) -> tuple[dict[str, Any], list[Bytes]] | None:
    """What is kept in a folder of the cache, if it is there and as it was written."""
    try:
        facts = json.loads((where / FACTS).read_bytes())
        arrays = []
        for half, digest in zip(halves, facts["sha256"], strict=decoded):
            # "c": changes stay in memory, and PyTorch wants what could be changed
            array = np.load(where / f"{half.name}.npy", mmap_mode="c", allow_pickle=False)
            if hashlib.sha256(array).hexdigest() != digest:
                raise ValueError(f"{half.name}.npy has changed")
            arrays.append(array.reshape(len(half.entries), channels, *half.size))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        LOG.warning("%s is damaged (%s); decoding the images again", where, error)
        with suppress(OSError):
            (where / FACTS).unlink()
        return None
    return facts, arrays


def _write(where: Path, halves: Sequence[Half], channels: int, decoded: bool) -> None:
    """Decode the halves into files, or only look at the first; what is known of them comes last."""
    digests = []
    chunks: Iterable[Bytes] = _chunks(halves[0], channels)
    if decoded:
        digests = [_write_half(where / f"{half.name}.npy", half, channels) for half in halves]
        train = np.load(where / f"{halves[0].name}.npy", mmap_mode="r")
        chunks = (train[start : start + CHUNK] for start in range(0, len(train), CHUNK))
    mean, std = _moments(chunks, channels)
    facts = {"mean": mean.tolist(), "std": std.tolist(), "sha256": digests}
    write_bytes(where / FACTS, json.dumps(facts).encode())


def _write_half(path: Path, half: Half, channels: int) -> str:
    """Decode images into one array on the disk; returns its SHA-256 sum."""
    digest = hashlib.sha256()
    shape = (len(half.entries), channels, *half.size)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with atomic_file(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for chunk in _chunks(half, channels):
            file.write(chunk.data)
            digest.update(chunk.data)
    return digest.hexdigest()


def _chunks(half: Half, channels: int) -> Iterator[Bytes]:
    """Decoded images (N, C, H, W), some at a time."""
    images = in_parallel(partial(_pixels, half, channels), half.entries, f"decoding {half.name}")
    while chunk := list(islice(images, CHUNK)):
        yield np.ascontiguousarray(np.stack(chunk))


def _pixels(half: Half, channels: int, entry: Entry) -> Bytes:
    """One image (C, H, W).

    Raises:
        DataError: it can no longer be read, or has another size than before.
    """
    image = read_upright(half.root / entry.name).convert("L" if channels == 1 else "RGB")
    for step in half.steps:
        image = step(image)
    pixels = np.asarray(image)
    if pixels.shape[:2] != half.size:
        raise DataError(
            f"the image {half.root / entry.name} changed while it was read; start again"
        )
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _moments(chunks: Iterable[Bytes], channels: int) -> tuple[Doubles, Doubles]:
    """Mean and std of each channel, in [0, 1]; the std of a channel of one value is 1."""
    counts = np.zeros((channels, 256), np.int64)  # of each value
    for chunk in chunks:
        for channel in range(channels):
            counts[channel] += np.bincount(chunk[:, channel].ravel(), minlength=256)
    values, shares = np.arange(256) / 255, counts / counts.sum(1, keepdims=True)
    mean = shares @ values
    std = np.sqrt((shares * (values - mean[:, None]) ** 2).sum(1))
    return mean, np.where(std > 0, std, 1.0)
