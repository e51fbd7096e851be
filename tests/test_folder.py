"""Folders of one's own images: files made here, decoded pixels compared with the arrays saved."""

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from convnext_steps.errors import DataError, TrainingError
from convnext_steps.training import downloads, folder, folder_index
from convnext_steps.training.batches import TrainingBatches
from convnext_steps.training.config import TrainingConfig
from convnext_steps.training.data import ImageFiles, load_data
from convnext_steps.training.distributed import Processes
from convnext_steps.training.folder import folder_fingerprint
from convnext_steps.training.image_transforms import evaluation_crop

HALVES = [f"{half}/{name}" for half in ("train", "val") for name in ("cat", "dog")]


def pixels(seed: int, *shape: int, top: int = 256, dtype=np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, top, shape or (6, 5, 3), dtype=dtype)


GREY, RGB, INDICES, PALETTE = pixels(1, 6, 5), pixels(2), pixels(3, 6, 5, top=4), pixels(4, 4, 3)
SIXTEEN = pixels(5, 6, 5, top=65536, dtype=np.uint16)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("CONVNEXT_STEPS_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache" / "folder"


def save(path: Path, image: np.ndarray | Image.Image, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)


def tree(root: Path, count: int = 3, folders=HALVES, shape=(6, 5, 3)) -> Path:
    """Random images 0.png, 1.png, ... in each folder, no two alike."""
    for number, name in enumerate(folders):
        for index in range(count):
            save(root / name / f"{index}.png", pixels(1000 * number + index, *shape))
    return root


def refused(root: Path | None, **options) -> str:
    with pytest.raises(DataError) as error:
        load_data("folder", root=root, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def multiset(images) -> list[bytes]:
    return sorted(np.ascontiguousarray(image).tobytes() for image in images)


# ---- what cameras, scanners and habits make


def palette(colours: np.ndarray) -> Image.Image:
    image = Image.fromarray(INDICES)
    image.putpalette(colours.tobytes())
    return image


def on_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = np.atleast_3d(alpha / 255)
    return (share * np.atleast_3d(colour) + (1 - share) * 255).round()


def turned(orientation: int) -> dict[str, Image.Exif]:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return {"exif": exif}


BLACK, TWO_OF_16_BITS = GREY > 127, GREY.astype(np.uint16) * 257
FRAMES = {"save_all": True, "append_images": [Image.fromarray(255 - GREY)]}
HOLE = np.where(INDICES[..., None] == 2, 255, PALETTE[INDICES])
INKS = np.dstack([RGB, GREY])
PRINTED = ((255.0 - RGB) * (255.0 - GREY[..., None]) / 255).round()
UPRIGHT = {  # EXIF orientation -> what the file's rows and columns are to become
    1: RGB,
    2: RGB[:, ::-1],
    3: RGB[::-1, ::-1],
    4: RGB[::-1],
    5: RGB.swapaxes(0, 1),
    6: np.rot90(RGB, -1),
    7: np.rot90(RGB, 2).swapaxes(0, 1),
    8: np.rot90(RGB),
}
MADE = {  # the suffix, what is saved, how, and what is to be seen: (H, W) or (H, W, C)
    "grey": ("png", GREY, {}, GREY),
    "black and white": ("png", BLACK, {}, BLACK * 255),
    "GIF of two frames": ("gif", GREY, FRAMES, GREY),
    "GIF in colour": ("gif", palette(PALETTE), {}, PALETTE[INDICES]),
    "BMP": ("bmp", RGB, {}, RGB),
    "WebP": ("webp", RGB, {"lossless": True}, RGB),
    "TIFF": ("TIF", RGB, {}, RGB),
    "palette": ("png", palette(PALETTE), {}, PALETTE[INDICES]),
    "grey palette": ("png", palette(PALETTE[:, [0] * 3]), {}, PALETTE[INDICES, 0]),
    "transparent colour": ("png", palette(PALETTE), {"transparency": 2}, HOLE),
    "colour and alpha": ("png", np.dstack([RGB, GREY]), {}, on_white(RGB, GREY)),
    "grey and alpha": ("png", np.dstack([GREY, RGB[..., 0]]), {}, on_white(GREY, RGB[..., 0])),
    "CMYK": ("tiff", Image.frombytes("CMYK", (5, 6), INKS.tobytes()), {}, PRINTED),
    "16-bit PNG": ("png", SIXTEEN, {}, SIXTEEN // 256),
    "16-bit PNG of 8-bit values": ("png", TWO_OF_16_BITS, {}, GREY),
    "16-bit TIFF": ("tiff", SIXTEEN, {}, SIXTEEN // 256),
    "16-bit TIFF, big-endian": ("tiff", SIXTEEN.astype(">u2"), {}, SIXTEEN // 256),
    "16-bit PGM": ("pgm", SIXTEEN, {}, SIXTEEN // 256),
    "16 bits on its side": ("png", SIXTEEN, turned(6), np.rot90(SIXTEEN, -1) // 256),
    **{f"orientation {n}": ("png", RGB, turned(n), seen) for n, seen in UPRIGHT.items()},
}


@pytest.mark.parametrize("limit", [2**31, 0], ids=["decoded", "files"])
@pytest.mark.parametrize("kind", MADE)
def test_every_kind_of_image_is_seen_as_it_was_saved(tmp_path, monkeypatch, kind, limit) -> None:
    monkeypatch.setattr(folder, "DECODED_LIMIT", limit)
    suffix, image, options, seen = MADE[kind]
    for half in HALVES:
        save(tmp_path / half / f"a.{suffix}", image, **options)
    expected = torch.tensor(np.atleast_3d(seen).transpose(2, 0, 1).astype(int))
    rounding = 1 if kind == "CMYK" or "alpha" in kind else 0
    for half in load_data("folder", root=tmp_path):
        shown, label = half[1]
        assert (shown.shape, shown.dtype, int(label)) == (expected.shape, torch.uint8, 1)
        assert (shown.int() - expected).abs().max() <= rounding
        assert half.channels == len(expected)


def test_one_image_in_colour_makes_all_of_three_channels(tmp_path) -> None:
    tree(tmp_path, shape=(6, 5))
    assert load_data("folder", root=tmp_path)[0].channels == 1
    save(tmp_path / "val" / "dog" / "colour.png", RGB)
    train, test = load_data("folder", root=tmp_path)
    assert train.channels == test.channels == 3
    saved = [np.stack([pixels(index, 6, 5)] * 3) for index in (0, 1, 2, 1000, 1001, 1002)]
    assert multiset(train.images) == multiset(saved)


JUNK = """train/.ipynb_checkpoints/a.png val/cat/.ipynb_checkpoints/a.png train/__MACOSX/cat/a.png
train/cat/._0.png train/Thumbs.db val/dog/Thumbs.db train/cat/.DS_Store val/dog/desktop.ini"""


def test_what_systems_and_notebooks_leave_is_passed_over(tmp_path, caplog) -> None:
    before = folder_fingerprint(tree(tmp_path))
    for path in map(tmp_path.joinpath, JUNK.split()):
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(b"\0")
    train, _ = load_data("folder", root=tmp_path)
    assert (len(train), train.classes, caplog.messages) == (6, ("cat", "dog"), [])
    assert folder_fingerprint(tmp_path) == before


def test_what_is_left_out_is_counted_and_said(tmp_path, caplog) -> None:
    tree(tmp_path)
    for index in range(40):
        (tmp_path / "train" / "cat" / f"{index}.HEIC").touch()
    (tmp_path / "val" / "dog" / "README").touch()
    save(tmp_path / "train" / "stray.png", RGB)
    assert len(load_data("folder", root=tmp_path)[0]) == 6
    (message,) = caplog.messages
    assert "left out 40 .heic, 1 in no class folder, 1 without a suffix: only BMP" in message


BROKEN = {  # what the line says -> how the file is made
    "empty": lambda path: path.write_bytes(b""),
    "image file is truncated": lambda path: os.truncate(path, 1000),
    "damaged, or not an image": lambda path: path.write_text("<html>404"),
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
        assert message.endswith("or go on without them: skip_broken=True (--skip-broken)")
    train, _ = load_data("folder", root=tmp_path, skip_broken=True)
    assert train.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert caplog.messages[-1].endswith("; going on without them")
    skipping = folder_fingerprint(tmp_path, skip_broken=True)
    victim.unlink()
    assert folder_fingerprint(tmp_path) == skipping


def test_of_many_broken_images_a_few_are_named(tmp_path) -> None:
    for path in tree(tmp_path).glob("train/*/*"):
        path.write_bytes(b"")
    message = refused(tmp_path)
    assert "6 of 12 images cannot be read: train/cat/0.png (empty), " in message
    assert "train/cat/2.png (empty) and 3 more; repair" in message
    assert f"{tmp_path}/train/cat has no images" in refused(tmp_path, skip_broken=True)


# ---- what is asked of a folder


def rename(*names: str):
    """A change of a folder: each pair of names is an old one and a new one."""

    def change(root: Path) -> None:
        for old, new in zip(names[::2], names[1::2], strict=True):
            (root / old).rename(root / new)

    return change


def heic(root: Path) -> None:
    rename(*(n for i in range(3) for n in (f"val/dog/{i}.png", f"val/dog/{i}.heic")))(root)


CAFES = rename("train/cat", "train/caf\u00e9", "val/cat", "val/cafe\u0301")
WRONG = {
    "there is no folder {0}/train": rename("train", "training"),
    "looked for in {0}/train/CLASS/IMAGE and {0}/val/CLASS/IMAGE (or test)": rename("val", "valid"),
    "{0}/train has no class folder": rename("train/cat", "cat", "train/dog", "dog"),
    "{0}/train has only one class folder, dog": rename("train/cat", "cat"),
    "{0}/train lacks cow; {0}/val lacks dog; both": rename("val/dog", "val/cow"),
    "{0}/val lacks mouse; both": lambda root: save(root / "train/mouse/0.png", RGB),
    "{0}/val/dog has no images; add": rename("val/dog", "dogs", "train/dog/0.png", "0.png"),
    "{0}/val/dog has no images ({0}: left out 3 .heic: only": heic,
    "Unicode form NFC in {0}/train, NFD in {0}/val; rename": CAFES,
    "train/cat/2.png is 20x30": lambda root: save(root / "train/cat/2.png", pixels(0, 30, 20)),
}


@pytest.mark.parametrize("message", WRONG)
def test_a_folder_that_is_not_right_is_one_clear_line(tmp_path, message) -> None:
    WRONG[message](tree(tmp_path))
    if (tmp_path / "dogs").exists():
        (tmp_path / "val" / "dog").mkdir()
    assert message.format(tmp_path) in refused(tmp_path)


def test_other_clear_lines(tmp_path, monkeypatch) -> None:
    assert "needs a root" in refused(None)
    monkeypatch.setenv("CONVNEXT_STEPS_DATA", str(tree(tmp_path)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    train, _ = load_data("folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "train", "val"]
    with pytest.raises(TrainingError, match="6 images do not fill a batch of 128; lower batch_"):
        TrainingBatches(len(train), TrainingConfig(), Processes())
    assert "held_out is 1.5; it must be" in refused(tmp_path, held_out=1.5)
    assert "cannot take 7 images from a data set of 6" in refused(tmp_path, train_images=7)
    (tmp_path / "file").touch()
    monkeypatch.setenv("CONVNEXT_STEPS_DATA", str(tmp_path / "file"))
    assert f"cannot write to {tmp_path}/file/folder" in refused(tmp_path)


@pytest.mark.parametrize("order", ["0 1 2 3 4 5 6 7 8 9 10 11", "1 10 2 x", "B a b"])
def test_classes_are_numbered_naturally(tmp_path, order) -> None:
    names = order.split()
    tree(tmp_path, 1, [f"{half}/{name}" for half in ("train", "test") for name in sorted(names)])
    train, test = load_data("folder", root=tmp_path)
    assert train.classes == test.classes == tuple(names)
    for image, label in zip(train.images, train.labels, strict=True):
        with Image.open(tmp_path / "train" / names[label] / "0.png") as saved:
            assert np.array_equal(image.permute(1, 2, 0), saved)


# ---- identity


SAME = {
    "moved": rename(".", "../elsewhere"),
    "a file renamed": rename("train/cat/0.png", "train/cat/first.PNG"),
    "test for val": rename("val", "test"),
    "another date": lambda root: os.utime(root / "val/dog/2.png", (1, 1)),
}
OTHER = {
    "a pixel": lambda root: save(
        root / "val/dog/2.png", pixels(3002) ^ (np.arange(90) == 7).reshape(6, 5, 3)
    ),
    "another class": rename("val/dog/2.png", "val/cat/3.png"),
    "another half": rename("val/dog/2.png", "train/dog/3.png"),
    "one less": rename("train/cat/1.png", "1.png"),
    "a class renamed": rename("train/cat", "train/cow", "val/cat", "val/cow"),
}


@pytest.mark.parametrize("change", [*SAME, *OTHER])
def test_a_folder_is_known_by_its_content(tmp_path, change) -> None:
    root = tree(tmp_path / "photos")
    before, (train, _) = folder_fingerprint(root), load_data("folder", root=root)
    (SAME | OTHER)[change](root)
    root = root if root.exists() else tmp_path / "elsewhere"
    assert (folder_fingerprint(root) == before) == (change in SAME)
    if change in SAME:
        assert torch.equal(load_data("folder", root=root)[0].images, train.images)


@pytest.fixture
def read(monkeypatch) -> list[bytes]:
    """The content of every file that was read for the index, in turn; a None interrupts."""
    contents: list[bytes | None] = []
    decode = folder_index.decode

    def reading(content: bytes):
        if len(contents) == 7 and None in contents:
            raise KeyboardInterrupt
        contents.append(content)
        return decode(content)

    monkeypatch.setattr(folder_index, "decode", reading)
    return contents


def test_a_file_is_read_again_only_if_it_changed(tmp_path, read, cache) -> None:
    before = folder_fingerprint(tree(tmp_path))
    assert (folder_fingerprint(tmp_path), len(read)) == (before, 12)
    save(tmp_path / "train" / "cat" / "new.png", RGB)
    assert (folder_fingerprint(tmp_path) != before, len(read)) == (True, 13)
    (index,) = cache.glob("*/index.json")
    os.truncate(index, index.stat().st_size - 50)
    folder_fingerprint(tmp_path)
    assert len(read) == 26


def test_an_interrupted_reading_goes_on_where_it_stopped(tmp_path, monkeypatch, read) -> None:
    monkeypatch.setattr(folder_index, "CHUNK", 1)
    read.append(None)
    with pytest.raises(KeyboardInterrupt):
        folder_fingerprint(tree(tmp_path))
    read.remove(None)
    folder_fingerprint(tmp_path)
    assert len(read) == len(set(read)) == 12


# ---- what is kept decoded


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The names of the images that were decoded to be kept; a None interrupts in the test half."""
    names: list[str | None] = []
    make = folder._pixels

    def slowly(half, channels, entry):
        if None in names and half.name == "test":
            raise KeyboardInterrupt
        names.append(entry.name)
        time.sleep(0.02)
        return make(half, channels, entry)

    monkeypatch.setattr(folder, "_pixels", slowly)
    monkeypatch.setattr(downloads, "PATIENCE", 0.1)
    return names


def test_images_are_decoded_once_also_by_several_processes(tmp_path, decoded) -> None:
    root = tree(tmp_path)
    with ThreadPoolExecutor(3) as pool:  # of one process; a lock is of whoever opened its file
        loads = [pool.submit(load_data, "folder", root=root) for _ in range(3)]
        assert [len(load.result()[0]) for load in loads] == [6] * 3
    load_data("folder", root=shutil.copytree(root, tmp_path / "copy"))
    assert len(decoded) == 12


DAMAGE = {
    "altered": lambda array: array.write_bytes(array.read_bytes()[:-1] + b"\0"),
    "cut off": lambda array: os.truncate(array, 200),
    "facts": lambda array: (array.parent / "decoded.json").write_text('{"mean": [0.5]}'),
    "gone": lambda array: array.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_is_not_trusted(tmp_path, cache, caplog, damage) -> None:
    before = load_data("folder", root=tree(tmp_path))[0].images.clone()
    DAMAGE[damage](*cache.glob("*/train.npy"))
    for _ in range(2):
        assert torch.equal(load_data("folder", root=tmp_path)[0].images, before)
    assert len(caplog.messages) == (damage != "gone")


def test_interrupted_decoding_leaves_nothing_that_looks_done(tmp_path, decoded, cache) -> None:
    decoded.append(None)
    with pytest.raises(KeyboardInterrupt):
        load_data("folder", root=tree(tmp_path))
    assert not [*cache.rglob("*.partial"), *cache.rglob("decoded.json")]
    decoded.remove(None)
    assert len(load_data("folder", root=tmp_path)[1]) == 6


@pytest.mark.parametrize("crops", [False, True])
def test_images_of_many_sizes_are_kept_as_the_recipe_needs_them(tmp_path, crops) -> None:
    image = pixels(7, 70, 50, 3)
    save(tree(tmp_path, 1, shape=(40, 60, 3)) / "val" / "cat" / "0.png", image)
    config = TrainingConfig(resolution=28, random_resized_crop=crops)
    train, test = load_data("folder", root=tmp_path, config=config)
    seen = v2.functional.pil_to_tensor(v2.Compose(evaluation_crop(28))(Image.fromarray(image)))
    assert torch.equal(test[0][0], seen)
    assert train.images.shape[2:] == ((32, 32) if crops else (28, 28))
    assert train[[0, 1]][0].shape == (2, 3, 28, 28)
    assert (train.transform is not None, test.transform) == (crops, None)


def test_too_many_images_are_read_one_by_one_and_are_the_same(tmp_path, monkeypatch) -> None:
    options = {"root": tree(tmp_path, shape=(40, 60, 3)), "config": TrainingConfig(resolution=28)}
    kept = load_data("folder", 5, held_out=0.5, **options)
    monkeypatch.setattr(folder, "DECODED_LIMIT", 0)
    files = load_data("folder", 5, held_out=0.5, **options)
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
    train, test = load_data("folder", root=tree(tmp_path))
    values = train.images.double() / 255
    std = values.std((0, 2, 3), correction=0).tolist()
    assert train.mean == test.mean == pytest.approx(values.mean((0, 2, 3)).tolist(), abs=1e-12)
    assert train.std == test.std == pytest.approx(std, abs=1e-12)
    for path in tmp_path.glob("*/*/*.png"):
        save(path, np.full((6, 5), 51, np.uint8))
    train, _ = load_data("folder", root=tmp_path)
    assert (train.mean, train.std) == (pytest.approx((0.2,)), (1.0,))  # nothing to divide by


# ---- parts


@pytest.mark.parametrize(("count", "counts"), [(4, [2, 2]), (5, [3, 2]), (9, [6, 3])])
def test_a_part_has_as_many_of_each_class(tmp_path, count, counts) -> None:
    tree(tmp_path)
    for index in range(3, 10):
        save(tmp_path / "train" / "cat" / f"{index}.png", pixels(50 + index))
    train, again = (load_data("folder", count, root=tmp_path)[0] for _ in range(2))
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
