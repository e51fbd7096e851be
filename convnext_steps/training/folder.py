"""A folder of one's own images: `train/` and `val/` (or `test/`), one subfolder per class.

Sets of up to `DECODED_LIMIT` bytes are decoded once and kept in the cache, so that an epoch is
as fast as on the bundled data; larger ones are read by a loader's processes. The cache may be
deleted at any time.
"""

import hashlib
import json
import logging
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL
import torch
from torchvision.transforms import InterpolationMode, v2

from convnext_steps.errors import DataError
from convnext_steps.files import atomic_file, clear_partial, fault, write_json
from convnext_steps.text import few
from convnext_steps.training.config import TrainingConfig
from convnext_steps.training.decoding import decode
from convnext_steps.training.folder_files import Folder, read_folder
from convnext_steps.training.folder_index import VERSION, Entry, cache_folder, in_parallel, writing
from convnext_steps.training.image_transforms import WHOLE_FROM, short_side
from convnext_steps.training.images import ImageData, ImageFiles, ImageTensors

LOG = logging.getLogger("convnext_steps")

DECODED_LIMIT = 2 * 2**30  # bytes of decoded images that are kept
SAMPLE = 10_000  # training images whose mean and std are taken where all are too many
DARK = 32  # images below this are odd: of 12 bits kept in 16, values of 0 to 15 are left
FACTS = "facts.json"  # written last: without it, nothing was decoded


def load_folder(
    root: str | Path | None, config: TrainingConfig, skip_broken: bool
) -> tuple[ImageData, ImageData]:
    """The training and the test images of a folder, of one channel if all are stored as grey.

    Images that share one size keep it unless the recipe has another resolution. Others are kept
    with room for crops, their short side 256/224 of the resolution. In each half one image of each
    class follows another, in an order that depends on their content alone. The labels number the
    classes in alphabetical order, as torchvision does: 0, 1, 10, 11, 2. Mean and std are those of
    the training images.

    Args:
        root: see `read_folder`.
        config: its `resolution` decides how large the images are.
        skip_broken: go on without the images that cannot be read.

    Raises:
        DataError: as `read_folder`; or the images come in many sizes and the recipe has no
            resolution, or the cache cannot be written to.
    """
    folder, side = read_folder(root, skip_broken), config.resolution
    for note in folder.notes:
        LOG.warning("%s: %s", folder.root, note)
    images = folder.train + folder.test
    sizes = {(image.height, image.width): image for image in images}
    if len(sizes) > 1 and not side:
        some = few([f"{image.name} is {image.width}x{image.height}" for image in sizes.values()])
        raise DataError(
            f"{folder.root} has images of {len(sizes)} sizes: {some}; choose one for all, "
            "such as recipe.resolution=64"
        )
    shared = min(sizes) if len(sizes) == 1 else None
    if shared and (side == 0 or shared == (side, side)):
        size, small = shared, True
    else:
        size, small = (short_side(side), short_side(side)), side < WHOLE_FROM
    shape = (1 if all(image.grey for image in images) else 3, *size)
    small = small and len(images) * math.prod(shape) <= DECODED_LIMIT
    cache, facts = _kept(folder, shape, small)

    def half(name: str, entries: Sequence[Entry]) -> ImageData:
        values: dict[str, Any] = {
            "mean": tuple(facts["mean"]),
            "std": tuple(facts["std"]),
            "num_classes": len(folder.classes),
            "classes": folder.classes,
        }
        if not small:
            files = [(folder.root.absolute() / entry.name, entry.label) for entry in entries]
            return ImageFiles(files, size=shared, in_turn=True, **values)
        count = len(entries) * math.prod(shape)
        pixels = torch.from_file(str(cache / name), size=count, dtype=torch.uint8)
        labels = torch.tensor([entry.label for entry in entries])
        return ImageTensors(pixels.view(-1, *shape), labels, **values)

    return half("train", folder.train), half("test", folder.test)


def _kept(folder: Folder, shape: tuple[int, ...], small: bool) -> tuple[Path, dict[str, Any]]:
    """Where the images lie decoded if they are few, and their mean and std; made at first use.

    Raises:
        DataError: an image has changed since it was listed, or the cache cannot be written to.
    """
    cache = cache_folder(json.dumps([VERSION, PIL.__version__, folder.content, shape, small]))
    if not (facts := _facts(cache)):
        with writing(cache):
            if not (facts := _facts(cache)):  # another process may have decoded them meanwhile
                clear_partial(cache)
                facts = _decode(cache, folder, shape, small)
                write_json(cache / FACTS, facts)
    return cache, facts


def _facts(cache: Path) -> dict[str, Any]:
    """What is known of the images that are kept; nothing unless they are as they were written."""
    try:
        facts = json.loads((cache / FACTS).read_bytes())
        damaged = any(fault(cache / half, sha256) for half, sha256 in facts["sha256"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # missing or damaged
        return {}
    return {} if damaged else facts


def _decode(cache: Path, folder: Folder, shape: tuple[int, ...], small: bool) -> dict[str, Any]:
    """Mean and std of the training images; small sets are written, each half (N, C, H, W)."""
    halves = {"train": folder.train if small else folder.train[:SAMPLE]}
    if small:
        halves["test"] = folder.test
    counts = np.zeros((shape[0], 256), np.int64)  # of each value, by channel
    digests = {}
    for half, entries in halves.items():
        digest = hashlib.sha256()
        images = in_parallel(partial(_pixels, folder.root, shape), entries, f"decoding {half}")
        with atomic_file(cache / half) as file:
            for pixels in images:
                if half == "train":
                    counts += [np.bincount(channel.ravel(), minlength=256) for channel in pixels]
                if small:
                    file.write(pixels.data)
                    digest.update(pixels.data)
        digests[half] = digest.hexdigest()
    values, shares = np.arange(256) / 255, counts / counts.sum(1, keepdims=True)
    mean = shares @ values
    std = np.sqrt((shares * (values - mean[:, None]) ** 2).sum(1))
    _check_brightness(folder.root, int(np.flatnonzero(counts.sum(0))[-1]))
    std[std == 0] = 1  # of a channel of one value
    return {"mean": mean.tolist(), "std": std.tolist(), "sha256": digests}


def _check_brightness(root: Path, highest: int) -> None:
    """Say, or refuse, that 16-bit images may have lost what their lower bits held."""
    remedy = "if they have 16 bits and use only the lower ones, scale their values to 0 to 65535"
    if highest == 0:
        raise DataError(f"the training images in {root} are black; {remedy} first")
    if highest < DARK:
        LOG.warning("%s: the training images' values are 0 to %d; %s", root, highest, remedy)


def _pixels(root: Path, shape: tuple[int, ...], entry: Entry) -> npt.NDArray[np.uint8]:
    """One image (C, H, W).

    Raises:
        DataError: it has changed since it was listed.
    """
    channels, *size = shape
    path = root / entry.name
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != entry.digest:
        raise DataError(f"the image {path} changed while it was read; start again")
    image = decode(content).convert("L" if channels == 1 else "RGB")
    if [entry.height, entry.width] != size:
        image = v2.Resize(size[0], interpolation=InterpolationMode.BICUBIC)(image)
        image = v2.CenterCrop(size)(image)
    pixels = np.asarray(image)
    return np.ascontiguousarray(pixels[None] if channels == 1 else pixels.transpose(2, 0, 1))
