"""Folders of one's own images: files made here, what is loaded compared with the arrays saved."""

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from unittest.mock import DEFAULT, Mock

import numpy as np
import PIL
import pytest
import torch
from packaging.version import Version
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from convnext_steps.errors import DataError
from convnext_steps.training import downloads, folder, folder_index
from convnext_steps.training.config import TrainingConfig
from convnext_steps.training.data import content_of, load_data
from convnext_steps.training.decoding import decode, suffixes
from convnext_steps.training.image_transforms import evaluation_crop
from convnext_steps.training.images import ImageFiles

HALVES = [f"{half}/{name}" for half in ("train", "val") for name in ("cat", "dog")]


def pixels(seed: int, *shape: int, top: int = 256, dtype=np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, top, shape or (6, 5, 3), dtype=dtype)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path) -> Path:
    monkeypatch.delenv("CONVNEXT_STEPS_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "convnext_steps" / "folder"


def save(path: Path, image: np.ndarray | Image.Image, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)


def tree(root: Path, count: int = 3, folders=HALVES, shape=(6, 5, 3)) -> Path:
    """Random images 0.png, 1.png, ... in each folder, no two alike."""
    for number, name in enumerate(folders):
        for index in range(count):
            save(root / name / f"{index}.png", pixels(1000 * number + index, *shape))
    return root


load = partial(load_data, "folder")


def refused(root: Path | None, **options) -> str:
    with pytest.raises(DataError) as error:
        load(root=root, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def multiset(images) -> list[bytes]:
    return sorted(np.ascontiguousarray(image).tobytes() for image in images)


# ---- what cameras, scanners and habits make

GREY, RGB, INDICES, PALETTE = pixels(1, 6, 5), pixels(2), pixels(3, 6, 5, top=4), pixels(4, 4, 3)
SIXTEEN = pixels(5, 6, 5, top=65536, dtype=np.uint16)
HIGH = SIXTEEN // 256
SMOOTH = np.add.outer(np.arange(6) * 20, np.arange(5) * 9).astype(np.uint8)


def palette(colours: np.ndarray, mode: str = "P") -> Image.Image:
    image = Image.fromarray(INDICES)
    image.putpalette(colours.tobytes())
    return image.convert(mode)


def on_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = np.atleast_3d(alpha / 255)
    return (share * np.atleast_3d(colour) + (1 - share) * 255).round()


def exif(orientation: int) -> dict[str, bytes]:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return {"exif": tags.tobytes()}


DAMAGED = b"Exif\0\0garbage and garbage"
ODD = (  # orientation 6, and a resolution that is not a number
    b"Exif\0\0MM\0*\0\0\0\x08\0\2\x01\x12\0\3\0\0\0\1\0\6\0\0\x01\x1a\0\2\0\0\0\4abc\0\0\0\0\0"
)


def again() -> dict[str, object]:
    """A second frame: an image of its own, since Pillow leaves one format's options in it."""
    return {"save_all": True, "append_images": [Image.fromarray(255 - RGB)]}


HOLE = np.where(INDICES[..., None] == 2, 255, PALETTE[INDICES])
HALF_GREY = Image.fromarray(np.dstack([GREY, RGB[..., 0]]))
INKS = Image.frombytes("CMYK", (5, 6), np.dstack([RGB, GREY]).tobytes())
PRINTED = ((255.0 - RGB) * (255.0 - GREY[..., None]) / 255).round()
SIDES = np.rot90(RGB, -1)
UPRIGHT = {  # EXIF orientation -> what the file's rows and columns are to become
    **{1: RGB, 2: RGB[:, ::-1], 3: RGB[::-1, ::-1], 4: RGB[::-1], 5: RGB.swapaxes(0, 1)},
    **{6: SIDES, 7: np.rot90(RGB, 2).swapaxes(0, 1), 8: np.rot90(RGB)},
}
MADE = {  # the suffix, what is saved, how, and what is to be seen: (H, W) or (H, W, C)
    "grey": ("png", GREY, {}, GREY),
    "black and white": ("png", GREY > 127, {}, (GREY > 127) * 255),
    "black and white TIFF": ("tiff", GREY > 127, {}, (GREY > 127) * 255),
    "grey JPEG": ("JPG", SMOOTH, {"quality": 100}, SMOOTH),
    "GIF": ("gif", Image.fromarray(GREY), {}, GREY),
    "GIF in colour": ("gif", palette(PALETTE), {}, PALETTE[INDICES]),
    "BMP": ("bmp", RGB, {}, RGB),
    "WebP": ("webp", RGB, {"lossless": True}, RGB),
    "TIFF": ("TIF", RGB, {}, RGB),
    "JPEG 2000": ("jp2", RGB, {}, RGB),
    "first frame of a GIF": ("gif", palette(PALETTE), again(), PALETTE[INDICES]),
    "first frame of a WebP": ("webp", RGB, {"lossless": True, **again()}, RGB),
    "first frame of a PNG": ("png", RGB, again(), RGB),
    "first page of a TIFF": ("tiff", RGB, again(), RGB),
    "first picture of an MPO": ("mpo", SMOOTH, {"quality": 100, **again()}, SMOOTH),
    "palette": ("png", palette(PALETTE), {}, PALETTE[INDICES]),
    "grey palette": ("png", palette(PALETTE[:, [0] * 3]), {}, PALETTE[INDICES, 0]),
    "palette and alpha": ("tiff", palette(PALETTE, "PA"), {}, PALETTE[INDICES]),
    "transparent colour": ("png", palette(PALETTE), {"transparency": 2}, HOLE),
    "colour and alpha": ("png", np.dstack([RGB, GREY]), {}, on_white(RGB, GREY)),
    "grey and alpha": ("png", HALF_GREY, {}, on_white(GREY, RGB[..., 0])),
    "CMYK": ("tiff", INKS, {}, PRINTED),
    "16-bit PNG": ("png", SIXTEEN, {}, HIGH),
    "16-bit PNG of 8-bit values": ("png", GREY.astype(np.uint16) * 257, {}, GREY),
    "16-bit TIFF": ("tiff", SIXTEEN, {}, HIGH),
    "16-bit TIFF, big-endian": ("tiff", SIXTEEN.astype(">u2"), {}, HIGH),
    "16-bit TIFF, white is zero": ("tiff", SIXTEEN, {"tiffinfo": {262: 0}}, 255 - HIGH),
    "16-bit PGM": ("pgm", SIXTEEN, {}, HIGH),
    "16-bit JPEG 2000": ("jp2", SIXTEEN, {}, HIGH),
    "16 bits on its side": ("png", SIXTEEN, exif(6), np.rot90(HIGH, -1)),
    "damaged EXIF": ("png", RGB, {"exif": DAMAGED}, RGB),
    "odd EXIF": ("png", RGB, {"exif": ODD}, SIDES),
    "WebP on its side": ("webp", RGB, {"lossless": True, **exif(6)}, SIDES),
    "TIFF on its side": ("tiff", RGB, exif(6), SIDES),
    "JPEG on its side": ("jfif", SMOOTH, {"quality": 100, **exif(6)}, np.rot90(SMOOTH, -1)),
    **{f"orientation {n}": ("png", RGB, exif(n), seen) for n, seen in UPRIGHT.items()},
}


@pytest.mark.parametrize(
    ("kind", "limit"), [*((kind, 2**31) for kind in MADE), ("grey", 0), ("WebP on its side", 0)]
)
def test_every_kind_of_image_is_seen_as_it_was_saved(tmp_path, monkeypatch, kind, limit) -> None:
    monkeypatch.setattr(folder, "DECODED_LIMIT", limit)
    suffix, image, options, seen = MADE[kind]
    for half in HALVES:
        save(tmp_path / half / f"a.{suffix}", image, **options)
    expected = torch.tensor(np.atleast_3d(seen).transpose(2, 0, 1).astype(int))
    rounding = 1 if any(word in kind for word in ("CMYK", "alpha", "JPEG", "MPO")) else 0
    for half in load(root=tmp_path):
        shown, label = half[1]
        assert (shown.shape, shown.dtype, int(label)) == (expected.shape, torch.uint8, 1)
        assert (shown.int() - expected).abs().max() <= rounding
        assert half.channels == len(expected)


@pytest.mark.skipif(
    Version(PIL.__version__) < Version("13"), reason="an older Pillow refuses such files"
)
def test_premultiplied_alpha_shows_on_white_too(tmp_path) -> None:
    alpha = RGB[..., 0]
    save(tmp_path / "a.tiff", np.dstack([np.minimum(GREY, alpha), alpha]))
    stored, tag = (tmp_path / "a.tiff").read_bytes(), b"\x52\x01\x03\0\1\0\0\0"  # ExtraSamples
    seen = np.asarray(decode(stored.replace(tag + b"\2", tag + b"\1"))).astype(int)
    assert np.abs(seen - (np.minimum(GREY, alpha) + 255.0 - alpha)).max() <= 2


def test_one_image_in_colour_makes_all_of_three_channels(tmp_path) -> None:
    save(tree(tmp_path, shape=(6, 5)) / "val" / "dog" / "colour.png", RGB)
    train, test = load(root=tmp_path)
    assert train.channels == test.channels == 3
    saved = [np.stack([pixels(index, 6, 5)] * 3) for index in (0, 1, 2, 1000, 1001, 1002)]
    assert multiset(train.images) == multiset(saved)


JUNK = """train/.ipynb_checkpoints/a.png val/cat/.ipynb_checkpoints/a.png train/__MACOSX/cat/a.png
train/cat/._0.png train/Thumbs.db val/dog/Thumbs.db train/cat/.DS_Store val/dog/desktop.ini
train/cat/@eaDir/0.png/a.png train/.git/a.png"""


def test_what_systems_and_notebooks_leave_is_passed_over(tmp_path, caplog) -> None:
    before = content_of("folder", tree(tmp_path))
    for path in map(tmp_path.joinpath, JUNK.split()):
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(b"\0")
    (tmp_path / "train" / "cat" / "round").symlink_to(tmp_path / "train")
    (tmp_path / "train" / "cat" / "3.png").mkdir()
    train, _ = load(root=tmp_path)
    assert (len(train), train.classes, caplog.messages) == (6, ("cat", "dog"), [])
    assert content_of("folder", tmp_path) == before


def test_what_is_passed_over_is_counted_and_said(tmp_path, caplog) -> None:
    tree(tmp_path)
    for index in range(40):
        (tmp_path / "train" / "cat" / f"{index}.HEIC").touch()
    for name in ("val/dog/README", "val/dog/notes.txt", "train/stray.png"):
        (tmp_path / name).touch()
    load(root=tmp_path)
    (note,) = caplog.messages
    assert note.startswith(f"{tmp_path}: passed over 40 .heic, 1 ")
    assert "1 in no class folder" in note
    assert "1 .txt" in note
    assert ": only AVIF, BMP, GIF, JPEG, JPEG2000, PNG, PPM, TIFF, WEBP in class folders" in note


@pytest.mark.parametrize(("top", "line"), [(100, "are black"), (4096, "0 to 15"), (65536, "")])
def test_images_that_use_only_the_lowest_of_16_bits_are_named(tmp_path, top, line, caplog) -> None:
    for number, name in enumerate(HALVES):
        save(tmp_path / name / "0.png", pixels(number, 6, 5, top=top, dtype=np.uint16))
    said = refused(tmp_path) if top == 100 else load(root=tmp_path) and caplog.text
    assert (f"{line}; if they have 16 bits and use only the lower ones" in said) == bool(line)


def test_test_images_that_were_trained_on_are_counted(tmp_path, caplog) -> None:
    shutil.copy(tree(tmp_path) / "train/cat/0.png", tmp_path / "val/cat/0.png")
    load(root=tmp_path)
    assert caplog.messages == [f"{tmp_path}: 1 of 6 test images are training images too"]


BROKEN = {  # what the line says -> how the file is made
    "empty": lambda path: path.write_bytes(b""),
    "image file is truncated": lambda path: os.truncate(path, 1000),
    "damaged, or not an image": lambda path: path.write_text("<html>404"),
    "damaged, or not an image of a kind": lambda path: save(path, RGB, format="ICO"),
    "No such file or directory": lambda path: (path.unlink(), path.symlink_to("gone")),
    "more than 20,000 pixels": lambda path: save(path, np.zeros((200, 200), bool)),
    "the range of its values is unknown; save it": lambda path: save(path, GREY / np.float32(9)),
    "the range of its values is unknown": lambda path: save(path, GREY.astype(np.int32)),
}


@pytest.mark.parametrize("reason", BROKEN)
def test_a_broken_image_is_named_before_training_or_skipped(
    tmp_path, monkeypatch, caplog, reason
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    victim = tree(tmp_path) / "train" / "dog" / "1.tiff"
    save(victim, pixels(9, 20, 20, 3))
    BROKEN[reason](victim)
    for _ in range(2):  # the index does not forget it
        message = refused(tmp_path)
        assert f"1 of 13 images cannot be read: train/dog/1.tiff ({reason}" in message
        assert message.endswith("go on without them by --set data.skip_broken=true")
    train, _ = load(root=tmp_path, skip_broken=True)
    assert train.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert "1 of 13 images cannot be read and are left out: train/dog/1" in caplog.messages[-1]
    skipping = content_of("folder", tmp_path, skip_broken=True)
    victim.unlink()
    assert content_of("folder", tmp_path) == skipping


CUT = {".avif", ".bmp", ".gif", ".jpg", ".jp2", ".png", ".ppm", ".tiff", ".webp"} & suffixes()


@pytest.mark.parametrize("suffix", sorted(CUT))
def test_a_file_that_is_cut_off_anywhere_is_broken(tmp_path, suffix) -> None:
    for tenths in range(1, 10):
        path = tmp_path / "train" / "cat" / f"cut {tenths}{suffix}"
        save(path, pixels(tenths, 40, 40, 3))
        os.truncate(path, path.stat().st_size * tenths // 10)
    assert "9 of 21 images cannot be read" in refused(tree(tmp_path))


# ---- what is asked of a folder


def rename(*names: str):
    """A change of a folder: each pair of names is an old one and a new one."""

    def change(root: Path) -> None:
        for old, new in zip(names[::2], names[1::2], strict=True):
            (root / old).rename(root / new)

    return change


def move(files: str, target: str):
    """A change of a folder: the files go elsewhere, {} is their number."""

    def change(root: Path) -> None:
        for number, path in enumerate(sorted(root.glob(files))):
            path.rename(root / target.format(number))

    return change


E, E_AND_ACUTE = "caf\u00e9", "cafe\u0301"
TWINS = [f"{half}/{name}" for half in ("train", "val") for name in ("cat", E, "dog", E_AND_ACUTE)]
WRONG = {
    "there is no folder {0}/train": rename("train", "training"),
    "must be in {0}/train/CLASS/IMAGE and {0}/val/CLASS/IMAGE (or test)": rename("val", "valid"),
    "{0}/train has no class folder": rename("train/cat", "cat", "train/dog", "dog"),
    "{0}/train has only one class folder, dog": rename("train/cat", "cat"),
    "{0}/train lacks cow; train/ and val/": rename("val/dog", "val/cow"),
    "{0}/val lacks mouse; train/ and val/": lambda root: save(root / "train/mouse/0.png", RGB),
    "{0}/val/dog has no images; add": move("val/dog/*", "{}.png"),
    "{0}/val/dog has no images (passed over 3 .heic: only": move("val/dog/*", "val/dog/{}.heic"),
    "in Unicode form NFC in {0}/train, in NFD in {0}/val; rename": rename(
        "train/cat", f"train/{E}", "val/cat", f"val/{E_AND_ACUTE}"
    ),
    "in {0}/train; rename one": rename(*TWINS),
    "{0} has images of 2 sizes: ": lambda root: save(root / "train/cat/2.png", pixels(0, 30, 20)),
}


@pytest.mark.parametrize("message", WRONG)
def test_a_folder_that_is_not_right_is_one_clear_line(tmp_path, message) -> None:
    WRONG[message](tree(tmp_path))
    assert message.format(tmp_path) in refused(tmp_path)


def test_other_clear_lines(tmp_path, monkeypatch) -> None:
    assert "--set data.root=FOLDER, or the environment variable CONV" in refused(None)
    monkeypatch.setenv("CONVNEXT_STEPS_DATA", str(tree(tmp_path)))
    load()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "train", "val"]
    assert "held_out is 1.5; it must be" in refused(tmp_path, held_out=1.5)
    assert (
        "cannot take 7 images from a data set of 6; without a number, in a study data.images = 0"
        in refused(tmp_path, train_images=7)
    )
    for path in tmp_path.glob("train/*/*"):
        path.write_bytes(b"")
    assert "train/cat has no images (6 of 12 images" in refused(tmp_path, skip_broken=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "val/cat/0.png"))
    assert f"cannot write to {tmp_path}/val/cat/0.png/conv" in refused(tmp_path)


@pytest.mark.parametrize("names", ["0 1 2 3 4 5 6 7 8 9 10 11", "B a C b", "x 1 10 2"])
def test_classes_are_numbered_as_torchvision_does(tmp_path, names) -> None:
    tree(tmp_path, 2, [f"{half}/{name}" for half in ("train", "test") for name in names.split()])
    train, test = load(root=tmp_path)
    theirs = ImageFolder(tmp_path / "train")
    assert train.classes == test.classes == tuple(theirs.classes)
    pairs = [(v2.functional.pil_to_tensor(image), label) for image, label in theirs]
    ours = [(image.numpy().tobytes(), int(label)) for image, label in train]
    assert sorted(ours) == sorted((image.numpy().tobytes(), label) for image, label in pairs)


# ---- identity

SEVENTH = (np.arange(90) == 7).reshape(6, 5, 3)
CHANGES = {  # whether the content is still the same, and what is done to the folder
    "moved": (True, rename(".", "../elsewhere")),
    "a file renamed": (True, rename("train/cat/0.png", "train/cat/first.PNG")),
    "test for val": (True, rename("val", "test")),
    "another date": (True, lambda root: os.utime(root / "val/dog/2.png", (1, 1))),
    "a pixel": (False, lambda root: save(root / "val/dog/2.png", pixels(3002) ^ SEVENTH)),
    "another class": (False, rename("val/dog/2.png", "val/cat/3.png")),
    "another half": (False, rename("val/dog/2.png", "train/dog/3.png")),
    "one less": (False, rename("train/cat/1.png", "1.png")),
    "a class renamed": (False, rename("train/cat", "train/cow", "val/cat", "val/cow")),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_folder_is_known_by_its_content(tmp_path, what, cache) -> None:
    root, (same, change) = tree(tmp_path / "photos"), CHANGES[what]
    before, (train, _) = content_of("folder", root), load(root=root)
    saved = train.images.clone()
    shutil.rmtree(cache)
    change(root)
    root = root if root.exists() else tmp_path / "elsewhere"
    assert (content_of("folder", root) == before) == same
    assert torch.equal(load(root=root)[0].images, saved) or not same


def test_published_data_sets_are_known_by_their_archives() -> None:
    assert content_of("synthetic") == "version 1"
    assert content_of("fashion_mnist").startswith("sha256 b0564c3eedabfbf835052cff8503ea42")
    assert content_of("cifar10") == "md5 c58f30108f718f92721af3b95e74349a"


def test_a_file_is_read_again_only_if_it_changed(tmp_path, monkeypatch, cache) -> None:
    read = Mock(wraps=decode, side_effect=[*[DEFAULT] * 7, KeyboardInterrupt, *[DEFAULT] * 99])
    monkeypatch.setattr(folder_index, "decode", read)
    monkeypatch.setattr(folder_index, "CHUNK", 1)
    monkeypatch.setattr(folder_index, "FEW", 1)
    with pytest.raises(KeyboardInterrupt):
        content_of("folder", tree(tmp_path))
    before = content_of("folder", tmp_path)
    assert (content_of("folder", tmp_path), read.call_count) == (before, 13)
    save(tmp_path / "train" / "cat" / "new.png", RGB)
    assert (content_of("folder", tmp_path) != before, read.call_count) == (True, 14)
    (index,) = cache.glob("*/index.json")
    os.truncate(index, index.stat().st_size - 50)
    content_of("folder", tmp_path)
    assert read.call_count == 27


# ---- what is kept decoded


def test_images_are_decoded_once_also_by_several_processes(tmp_path, monkeypatch) -> None:
    make = Mock(wraps=folder._pixels, side_effect=lambda *_: time.sleep(0.02) or DEFAULT)
    read = Mock(wraps=decode)
    monkeypatch.setattr(folder, "_pixels", make)
    monkeypatch.setattr(folder_index, "decode", read)
    monkeypatch.setattr(downloads, "PATIENCE", 0.1)
    root = tree(tmp_path)
    with ThreadPoolExecutor(3) as pool:  # of one process; a lock is of whoever opened its file
        loads = [pool.submit(load, root=root) for _ in range(3)]
        assert [len(each.result()[0]) for each in loads] == [6] * 3
    load(root=shutil.copytree(root, tmp_path / "copy"))
    assert (read.call_count, make.call_count) == (24, 12)


def test_an_image_that_changes_while_it_is_read_is_refused(tmp_path) -> None:
    content_of("folder", tree(tmp_path))
    path = tmp_path / "train" / "cat" / "0.png"
    before = path.stat()
    path.write_bytes(b"\0" * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert f"the image {path} changed while it was read; start again" in refused(tmp_path)


def test_interrupted_decoding_leaves_nothing_that_looks_done(tmp_path, monkeypatch, cache) -> None:
    stopped = Mock(wraps=folder._pixels, side_effect=[*[DEFAULT] * 8, KeyboardInterrupt] * 3)
    monkeypatch.setattr(folder, "_pixels", stopped)
    with pytest.raises(KeyboardInterrupt):
        load(root=tree(tmp_path))
    assert not [*cache.rglob("*.partial"), *cache.rglob("facts.json")]
    stopped.side_effect = None
    assert len(load(root=tmp_path)[1]) == 6


DAMAGE = {
    "altered": lambda array: array.write_bytes(array.read_bytes()[:-1] + b"\0"),
    "cut off": lambda array: os.truncate(array, 200),
    "facts": lambda array: (array.parent / "facts.json").write_text('{"mean": [0.5]}'),
    "gone": lambda array: array.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_is_not_trusted(tmp_path, cache, damage) -> None:
    before = load(root=tree(tmp_path))[0].images.clone()
    DAMAGE[damage](*cache.glob("*/train"))
    assert torch.equal(load(root=tmp_path)[0].images, before)


@pytest.mark.parametrize("crops", [False, True])
def test_images_of_many_sizes_are_kept_with_room_for_crops(tmp_path, crops, cache) -> None:
    image = pixels(7, 70, 50, 3)
    save(tree(tmp_path, 1, shape=(40, 60, 3)) / "val" / "cat" / "0.png", image)
    config = TrainingConfig(resolution=28, random_resized_crop=crops)
    train, test = load(root=tmp_path, config=config)
    seen = v2.functional.pil_to_tensor(v2.Compose(evaluation_crop(28))(Image.fromarray(image)))
    assert seen.numpy().tobytes() in multiset(test.images)
    assert train.images.shape[2:] == ((32, 32) if crops else (28, 28))  # 32 = 28 * 256 / 224
    assert train[[0, 1]][0].shape == (2, 3, 28, 28)
    assert (train.transform is not None, test.transform) == (crops, None)
    _, held = load(root=tree(tmp_path, 2, shape=(40, 60, 3)), config=config, held_out=0.5)
    assert (held.transform, held.images.shape) == (None, (2, 3, 28, 28))


def test_too_many_images_are_read_one_by_one_and_are_the_same(tmp_path, monkeypatch) -> None:
    options = {"root": tree(tmp_path, shape=(40, 60, 3)), "config": TrainingConfig(resolution=28)}
    kept = load(5, held_out=0.5, **options)
    monkeypatch.setattr(folder, "DECODED_LIMIT", 0)
    files = load(5, held_out=0.5, **options)
    for one, other in zip(kept, files, strict=True):
        assert isinstance(other, ImageFiles)
        assert (one.mean, one.std, one.classes) == (other.mean, other.std, other.classes)
        assert all(torch.equal(a, b) for (a, _), (b, _) in zip(one, other, strict=True))
    for path in tmp_path.glob("train/*/*"):
        path.write_bytes(b"")
    batches = iter(DataLoader(files[0], batch_size=3, num_workers=1))
    with pytest.raises(DataError) as error:
        next(batches)
    batches._shutdown_workers()  # else the error keeps them alive
    assert str(error.value).startswith(f"cannot read the image {tmp_path}/train/")
    assert "\n" not in str(error.value)


def test_mean_and_std_are_the_training_images_own(tmp_path) -> None:
    train, test = load(root=tree(tmp_path))
    values = train.images.double() / 255
    std = values.std((0, 2, 3), correction=0).tolist()
    assert train.mean == test.mean == pytest.approx(values.mean((0, 2, 3)).tolist(), abs=1e-12)
    assert train.std == test.std == pytest.approx(std, abs=1e-12)
    for path in tmp_path.glob("*/*/*.png"):
        save(path, np.full((6, 5), 51, np.uint8))
    train, _ = load(root=tmp_path)
    assert (train.mean, train.std) == (pytest.approx((0.2,)), (1.0,))  # nothing to divide by


# ---- parts


@pytest.mark.parametrize(("count", "counts"), [(4, [2, 2]), (5, [3, 2]), (9, [6, 3])])
def test_a_part_has_as_many_of_each_class(tmp_path, count, counts) -> None:
    tree(tmp_path)
    for index in range(3, 10):
        save(tmp_path / "train" / "cat" / f"{index}.png", pixels(50 + index))
    train, again = (load(count, root=tmp_path)[0] for _ in range(2))
    assert torch.bincount(train.labels).tolist() == counts
    assert torch.equal(train.images, again.images)


@pytest.mark.parametrize("name", ["synthetic", "folder"])
def test_a_share_of_each_class_is_held_out(tmp_path, name) -> None:
    save(tree(tmp_path, 10) / "train" / "cat" / "11.png", RGB)
    whole, test = load_data(name, root=tmp_path)
    (train, held), (again, _) = (load_data(name, root=tmp_path, held_out=0.2) for _ in range(2))
    counts = torch.bincount(whole.labels)
    assert torch.bincount(held.labels).tolist() == (0.2 * counts).round().tolist()
    assert multiset([*train.images, *held.images]) == multiset(whole.images)
    assert torch.equal(train.images, again.images)
    assert not {*multiset(held.images)} & {*multiset(test.images)}
    parts = load_data(name, root=tmp_path, held_out=0.999)  # each class stays in both
    assert all(len(part.labels.unique()) == len(counts) for part in parts)
    _, few = load_data(name, root=tmp_path, held_out=0.001)
    assert torch.bincount(few.labels).tolist() == [1] * len(counts)
