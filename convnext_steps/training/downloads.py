"""The data sets that torchvision downloads or unpacks: CIFAR, Imagenette and ImageNet.

torchvision checks the MD5 sum of an archive before it unpacks it, so an interrupted download is
repeated. It takes a half-unpacked archive for a whole one; this module does not.
"""

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torchvision.datasets import CIFAR10, ImageNet, Imagenette
from torchvision.datasets.imagenet import ARCHIVE_META, META_FILE, load_meta_file
from torchvision.datasets.utils import download_url, extract_archive

from convnext_steps.errors import DataError
from convnext_steps.training.decoding import read_image
from convnext_steps.training.images import ImageFiles, ImageTensors

LOG = logging.getLogger("convnext_steps")

Triple = tuple[float, float, float]

IMAGENETTE_URL = "https://s3.amazonaws.com/fast-ai-imageclas/"
IMAGENETTE = {  # size -> archive and MD5 sum, as in torchvision
    "full": ("imagenette2.tgz", "fe2fc210e6bb7c5664d602c3cd71e612"),
    "320px": ("imagenette2-320.tgz", "3df6f0d01a2c9592104656642f5e78a3"),
}
IMAGENETTE_IMAGES = {"train": 9_469, "val": 3_925}
IMAGENET_IMAGES = {"train": 1_281_167, "val": 50_000}
read_as_stored = partial(read_image, as_stored=True)
PATIENCE = 1.0  # seconds before a process that waits for another says so


def user_cache() -> Path:
    """The folder `convnext_steps` in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "convnext_steps")


def cifar(kind: type[CIFAR10], mean: Triple, std: Triple, train: bool, root: Path) -> ImageTensors:
    """CIFAR-10 or CIFAR-100 (Krizhevsky, 2009), 32x32, downloaded to `root` if needed.

    Raises:
        DataError: the archive is missing or damaged and cannot be downloaded.
    """
    with alone(root, create=True):
        try:
            files = kind(root, train)
        except RuntimeError:  # a file is missing, or its MD5 sum is another
            _unpack(_fetch(kind.url, kind.tgz_md5, root), root)
            files = kind(root, train)
    images = torch.from_numpy(files.data).permute(0, 3, 1, 2).contiguous()  # (N, 3, 32, 32)
    labels, names = torch.tensor(files.targets), tuple(files.classes)
    return ImageTensors(images, labels, mean=mean, std=std, num_classes=len(names), classes=names)


def imagenette(train: bool, root: Path, size: str = "320px") -> ImageFiles:
    """Ten easy classes of ImageNet (Howard, 2019), downloaded to `root` if needed.

    Args:
        train: which half.
        root: the folder for the archive and for what is unpacked from it.
        size: "320px", the short side of every image, or "full".

    Raises:
        DataError: the data are missing, damaged or incomplete.
    """
    name, md5 = IMAGENETTE[size]
    unpacked = root / Path(name).stem
    with alone(root, create=True):
        if not unpacked.exists():
            _unpack_whole(_fetch(IMAGENETTE_URL + name, md5, root), unpacked)
    half = "train" if train else "val"
    return _counted(
        lambda: Imagenette(root, half, size, loader=read_as_stored),
        unpacked / half,
        IMAGENETTE_IMAGES[half],
        f"delete {unpacked} to unpack {name} again",
    )


def imagenet(train: bool, root: Path) -> ImageFiles:
    """ImageNet-1K (Russakovsky et al., 2015), unpacked by torchvision from its archives in `root`.

    Raises:
        DataError: an archive is missing or damaged, or was not unpacked whole.
    """
    half = "train" if train else "val"
    with alone(root):
        _check_imagenet_archives(half, root)
        return _counted(
            lambda: ImageNet(root, half, loader=read_as_stored),
            root / half,
            IMAGENET_IMAGES[half],
            f"delete {root / half} to unpack {ARCHIVE_META[half][0]} again, "
            "or load a part of ImageNet as 'folder'",
        )


@contextmanager
def alone(root: Path, create: bool = False) -> Iterator[None]:
    """Let one process at a time check, download and unpack the data in a folder.

    A folder that cannot be written to, such as one that a cluster shares, needs no lock.
    """
    if create:
        with suppress(OSError):  # whoever writes to it says what is wrong
            root.mkdir(parents=True, exist_ok=True)
    if not os.access(root, os.W_OK):
        yield
        return
    lock = FileLock(root / ".lock")
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        LOG.warning("waiting for another process that is preparing the data in %s", root)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fetch(url: str, md5: str, root: Path) -> Path:
    """The path of an archive in `root`, downloaded unless it is whole."""
    archive = root / Path(url).name
    try:
        download_url(url, str(root), md5=md5)
    except (OSError, RuntimeError, HTTPException) as error:  # URLError is an OSError
        state = "damaged or incomplete" if archive.exists() else "missing"
        raise DataError(
            f"{archive} is {state} and cannot be downloaded ({error}); "
            f"get {url} by other means and put it there"
        ) from None
    return archive


def _unpack(archive: Path, target: Path) -> None:
    try:
        extract_archive(str(archive), str(target))
    except OSError as error:
        raise DataError(f"cannot unpack {archive} to {target}: {error}") from None


def _unpack_whole(archive: Path, target: Path) -> None:
    """Unpack the folder `target` so that at any moment it is either whole or not there."""
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # from an interrupted attempt
    _unpack(archive, partial)
    (partial / target.name).rename(target)
    shutil.rmtree(partial)


def _counted(build: Callable[[], Any], where: Path, images: int, remedy: str) -> ImageFiles:
    """The files of a published data set, if all of them are there."""
    try:
        files = build()
        found = len(files)
    except FileNotFoundError:  # a class has no folder or no images
        found = 0
    except (OSError, RuntimeError, ImportError) as error:  # ImageNet's devkit needs SciPy
        raise DataError(f"cannot read {where}: {error}") from None
    if found != images:
        number = f"{found:,}" if found else "not all"
        raise DataError(f"{where} has {number} of {images:,} images; {remedy}")
    return ImageFiles(files, num_classes=len(files.classes))


def _check_imagenet_archives(half: str, root: Path) -> None:
    """Name all missing archives: torchvision would name the first only."""
    meta, devkit = root / META_FILE, ARCHIVE_META["devkit"][0]
    needed = [] if meta.is_file() else [devkit]
    needed += [] if (root / half).is_dir() else [ARCHIVE_META[half][0]]
    missing = [name for name in needed if not (root / name).is_file()]
    if missing:
        raise DataError(
            f"{root} lacks {' and '.join(missing)}; download from https://image-net.org and "
            "put it there, or load a tree of train/CLASS and val/CLASS as 'folder'"
        )
    if meta.is_file():
        try:
            load_meta_file(root)
        except Exception:  # PyTorch has many kinds of error for damaged files
            raise DataError(f"{meta} is damaged; delete it and put {devkit} beside it") from None
