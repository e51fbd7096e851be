"""The data sets that torchvision reads, with archives and trees made here, and no network."""

import io
import os
import pickle
import shutil
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torchvision.datasets import CIFAR10, CIFAR100, Imagenette
from torchvision.datasets.imagenet import ARCHIVE_META
from torchvision.datasets.utils import calculate_md5
from torchvision.models import ConvNeXt_Tiny_Weights
from torchvision.transforms import v2

from convnext_steps.errors import DataError
from convnext_steps.training import downloads
from convnext_steps.training.config import PAPER, TrainingConfig
from convnext_steps.training.data import data_root, load_data, synthetic
from convnext_steps.training.image_transforms import evaluation_crop, image_transform
from convnext_steps.training.images import ImageFiles

WNIDS = sorted(Imagenette._WNID_TO_CLASS)


@pytest.fixture(autouse=True)
def network(monkeypatch, tmp_path):
    """What the network has, by the name of the file: at first there is no network at all."""
    served: dict[str, bytes] = {}

    class Response(io.BytesIO):
        def __init__(self, url: str) -> None:
            super().__init__(served[Path(url).name])
            self.url, self.length = url, len(self.getvalue())

    def urlopen(request):
        if Path(request.full_url).name not in served:
            raise URLError("Name or service not known")
        return Response(request.full_url)

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    monkeypatch.setenv("CONVNEXT_STEPS_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return served


def refused(name: str, **options) -> str:
    """The one line that says why a data set cannot be loaded."""
    with pytest.raises(DataError) as error:
        load_data(name, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def save_image(path: Path, size=(40, 30), color=(200, 100, 50)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


def pack(folder: Path, archive: Path, mode: str = "w:gz") -> str:
    """Pack a folder into an archive, remove the folder, and return the archive's MD5 sum."""
    with tarfile.open(archive, mode) as tar:
        tar.add(folder, folder.name)
    shutil.rmtree(folder)
    return calculate_md5(archive)


# ---- CIFAR


def cifar_content(kind, seed: int) -> dict:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 10 if kind is CIFAR10 else 100, 6).tolist()
    data = generator.integers(0, 256, (6, 3072), dtype=np.uint8)
    return {"data": data, "labels" if kind is CIFAR10 else "fine_labels": labels}


@pytest.fixture(params=[CIFAR10, CIFAR100])
def cifar(request, monkeypatch, tmp_path):
    """A tiny CIFAR: its name, class and archive, which is on no disk but may be served."""
    kind = request.param
    base = tmp_path / "made" / kind.base_folder
    base.mkdir(parents=True)
    classes = [f"class {index}" for index in range(10 if kind is CIFAR10 else 100)]
    contents = {name: cifar_content(kind, seed) for seed, (name, _) in enumerate(kind.train_list)}
    contents |= {name: cifar_content(kind, 99) for name, _ in kind.test_list}
    contents[kind.meta["filename"]] = {kind.meta["key"]: classes}
    sums = {}
    for name, content in contents.items():
        (base / name).write_bytes(pickle.dumps(content))
        sums[name] = calculate_md5(base / name)
    for field in ("train_list", "test_list"):
        files = [[name, sums[name]] for name, _ in getattr(kind, field)]
        monkeypatch.setattr(kind, field, files)
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": sums[kind.meta["filename"]]})
    archive = tmp_path / "made" / kind.filename
    monkeypatch.setattr(kind, "tgz_md5", pack(base, archive))
    return kind.__name__.lower(), kind, archive.read_bytes()


def test_cifar_is_downloaded_once_and_read_as_published(cifar, network) -> None:
    name, kind, archive = cifar
    network[kind.filename] = archive
    load_data(name)
    network.clear()
    train, test = load_data(name)
    expected = cifar_content(kind, 0)
    pixels = torch.from_numpy(expected["data"]).view(6, 3, 32, 32)  # as published: planes of rows
    assert torch.equal(train.images[:6], pixels)
    labels = expected["labels" if kind is CIFAR10 else "fine_labels"]
    assert train.labels[:6].tolist() == labels
    assert (len(train), len(test)) == (6 * len(kind.train_list), 6)
    assert train.num_classes == (10 if kind is CIFAR10 else 100)
    assert train.channels == len(train.mean) == len(train.std) == 3
    assert torch.equal(train[[3, 1]][0], train.images[[3, 1]])


def test_cifar_without_a_network_says_which_file_to_put_where(cifar, tmp_path) -> None:
    name, kind, archive = cifar
    target = tmp_path / "data" / name / kind.filename
    message = refused(name)
    assert message.startswith(f"{target} is missing")
    assert kind.url in message
    target.write_bytes(archive)
    assert load_data(name)[0].num_classes in (10, 100)


def test_half_an_archive_of_cifar_is_named_and_downloaded_again(cifar, network, tmp_path) -> None:
    name, kind, archive = cifar
    target = tmp_path / "elsewhere" / kind.filename
    target.parent.mkdir()
    target.write_bytes(archive[: len(archive) // 2])
    message = refused(name, root=target.parent)
    assert message.startswith(f"{target} is damaged or incomplete")
    network[kind.filename] = archive
    load_data(name, root=target.parent)
    assert target.read_bytes() == archive


def test_a_wrong_download_of_cifar_is_refused(cifar, network) -> None:
    name, kind, archive = cifar
    network[kind.filename] = archive + b"\0"
    assert "is damaged or incomplete" in refused(name)


@pytest.mark.parametrize("damage", ["meta", "batch"])
def test_cifar_unpacked_half_way_is_unpacked_again(cifar, tmp_path, damage) -> None:
    name, kind, archive = cifar
    (tmp_path / kind.filename).write_bytes(archive)
    before, _ = load_data(name, root=tmp_path)
    if damage == "meta":
        (tmp_path / kind.base_folder / kind.meta["filename"]).unlink()
    else:
        os.truncate(tmp_path / kind.base_folder / kind.train_list[0][0], 100)
    after, _ = load_data(name, root=tmp_path)
    assert torch.equal(before.images, after.images)


# ---- Imagenette


@pytest.fixture
def imagenette(monkeypatch, tmp_path) -> Path:
    """The archive of a tiny Imagenette: per class two images to train and one to test."""
    tree = tmp_path / "made" / "imagenette2-320"
    for label, wnid in enumerate(WNIDS):
        for half, count in (("train", 2), ("val", 1)):
            for index in range(count):
                save_image(tree / half / wnid / f"{index}.JPEG", (50, 40), (20 * label, 0, 0))
    archive = tmp_path / "made" / "imagenette2-320.tgz"
    monkeypatch.setitem(downloads.IMAGENETTE, "320px", (archive.name, pack(tree, archive)))
    monkeypatch.setattr(downloads, "IMAGENETTE_IMAGES", {"train": 20, "val": 10})
    return archive


def test_imagenette_is_named_as_in_torchvision() -> None:
    for size, (name, md5) in downloads.IMAGENETTE.items():
        assert Imagenette._ARCHIVES[size] == (downloads.IMAGENETTE_URL + name, md5)


def test_imagenette_is_downloaded_once_and_read(imagenette, network) -> None:
    network[imagenette.name] = imagenette.read_bytes()
    load_data("imagenette")
    network.clear()
    train, test = load_data("imagenette", config=TrainingConfig(resolution=32))
    assert (len(train), len(test), train.num_classes, train.channels) == (20, 10, 10, 3)
    image, label = test[7]
    assert (image.shape, image.dtype, label) == ((3, 32, 32), torch.uint8, 7)
    assert abs(int(image[0, 16, 16]) - 140) < 4  # JPEG's loss
    assert load_data("imagenette")[0][0][0].shape == (3, 224, 224)


def test_imagenette_without_a_network_says_which_file_to_put_where(imagenette, tmp_path) -> None:
    message = refused("imagenette")
    assert message.startswith(f"{tmp_path}/data/imagenette/imagenette2-320.tgz is missing")
    assert downloads.IMAGENETTE_URL + "imagenette2-320.tgz" in message
    assert "imagenette_full/imagenette2.tgz is missing" in refused("imagenette_full")


def test_imagenette_unpacked_half_way_is_not_taken_as_whole(
    imagenette, monkeypatch, tmp_path
) -> None:
    shutil.copy(imagenette, tmp_path)

    safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Python 3.11.4

    def interrupted(archive: str, target: str) -> None:
        with tarfile.open(archive) as tar:
            tar.extractall(target, tar.getmembers()[:12], **safely)
        save_image(Path(target, "imagenette2-320", "train", WNIDS[0], "of an older archive.JPEG"))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(downloads, "extract_archive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load_data("imagenette", root=tmp_path)
    assert not (tmp_path / "imagenette2-320").exists()
    assert len(load_data("imagenette", root=tmp_path)[0]) == 20
    left = {path.name for path in tmp_path.glob("imagenette*")}
    assert left == {"imagenette2-320", "imagenette2-320.tgz"}


@pytest.mark.parametrize("lost", [f"train/{WNIDS[3]}/1.JPEG", f"train/{WNIDS[3]}", "train", "."])
def test_an_imagenette_that_others_unpacked_half_way_is_refused(imagenette, tmp_path, lost) -> None:
    shutil.copy(imagenette, tmp_path)
    load_data("imagenette", root=tmp_path)
    lost = tmp_path / "imagenette2-320" / lost
    lost.unlink() if lost.is_file() else shutil.rmtree(lost)
    lost.parent.mkdir(exist_ok=True)
    if lost.name == "imagenette2-320":
        lost.mkdir()
    message = refused("imagenette", root=tmp_path)
    assert f"{tmp_path}/imagenette2-320/train has " in message
    assert "of 20 images; delete" in message


def test_a_full_disk_while_unpacking_is_one_line(imagenette, monkeypatch, tmp_path) -> None:
    def full(archive: str, target: str) -> None:
        raise OSError(28, "No space left on device")

    shutil.copy(imagenette, tmp_path)
    monkeypatch.setattr(downloads, "extract_archive", full)
    assert "No space left on device" in refused("imagenette", root=tmp_path)


def test_processes_that_come_at_once_unpack_once(imagenette, monkeypatch, tmp_path, caplog) -> None:
    shutil.copy(imagenette, tmp_path)
    unpacked, extract = [], downloads.extract_archive

    def slow(archive: str, target: str) -> None:
        unpacked.append(archive)
        time.sleep(0.5)
        extract(archive, target)

    monkeypatch.setattr(downloads, "extract_archive", slow)
    monkeypatch.setattr(downloads, "PATIENCE", 0.1)
    with ThreadPoolExecutor(4) as pool:  # of one process; a lock is of whoever opened its file
        loads = [pool.submit(load_data, "imagenette", root=tmp_path) for _ in range(4)]
        assert [len(load.result()[0]) for load in loads] == [20] * 4
    assert len(unpacked) == 1
    assert caplog.messages[0].startswith("waiting for another process")


def test_a_shared_folder_that_cannot_be_written_is_read(imagenette, monkeypatch, tmp_path) -> None:
    shutil.copy(imagenette, tmp_path)
    load_data("imagenette", root=tmp_path)
    (tmp_path / ".lock").unlink()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the superuser may write anywhere
    assert len(load_data("imagenette", root=tmp_path)[0]) == 20
    assert not (tmp_path / ".lock").exists()


# ---- ImageNet


@pytest.fixture
def imagenet(monkeypatch, tmp_path) -> Path:
    """The archives of a tiny ImageNet of two classes, and what the devkit says about it."""
    root = tmp_path / "imagenet"
    (root / "train").mkdir(parents=True)
    for wnid in WNIDS[:2]:
        for index in range(2):
            save_image(tmp_path / "train" / wnid / f"{wnid}_{index}.JPEG")
        with tarfile.open(root / "train" / f"{wnid}.tar", "w") as tar:
            for path in (tmp_path / "train" / wnid).iterdir():
                tar.add(path, path.name)
    for index, color in enumerate([(250, 0, 0), (0, 0, 250)]):
        save_image(root / "val" / f"ILSVRC2012_val_{index}.JPEG", color=color)
    for half in ("train", "val"):
        archive = root / ARCHIVE_META[half][0]
        with tarfile.open(archive, "w") as tar:
            for path in sorted((root / half).iterdir()):
                tar.add(path, path.name)
        shutil.rmtree(root / half)
        monkeypatch.setitem(ARCHIVE_META, half, (archive.name, calculate_md5(archive)))
    names = {WNIDS[0]: ("tench",), WNIDS[1]: ("English springer",)}
    torch.save((names, [WNIDS[1], WNIDS[0]]), root / "meta.bin")
    monkeypatch.setattr(downloads, "IMAGENET_IMAGES", {"train": 4, "val": 2})
    return root


def test_imagenet_is_unpacked_and_read(imagenet) -> None:
    train, test = load_data("imagenet", root=imagenet)
    assert (len(train), len(test), train.num_classes) == (4, 2, 2)
    assert [label for _, label in train] == [0, 0, 1, 1]
    image, label = test[1]  # the first of the archive, whose class is the second
    assert (image.shape, label, int(image[0].min()) > 240) == ((3, 224, 224), 1, True)
    published = ConvNeXt_Tiny_Weights.IMAGENET1K_V1.transforms()
    assert [list(train.mean), list(train.std)] == [published.mean, published.std]


def test_imagenet_is_read_from_the_devkit(imagenet, monkeypatch, tmp_path) -> None:
    from scipy.io import savemat

    (imagenet / "meta.bin").unlink()
    kit = tmp_path / "ILSVRC2012_devkit_t12"
    (kit / "data").mkdir(parents=True)
    fields = [("ID", "i4"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("children", "i4")]
    synsets = np.array([(1, WNIDS[0], "a", "", 0), (2, WNIDS[1], "b", "", 0)], dtype=fields)
    savemat(kit / "data" / "meta.mat", {"synsets": synsets})
    (kit / "data" / "ILSVRC2012_validation_ground_truth.txt").write_text("2\n1\n")
    archive = imagenet / ARCHIVE_META["devkit"][0]
    monkeypatch.setitem(ARCHIVE_META, "devkit", (archive.name, pack(kit, archive)))
    _, test = load_data("imagenet", root=imagenet)
    assert [int(image[0].min()) > 240 for image, _ in test] == [False, True]


def test_imagenet_names_the_archives_that_are_missing(tmp_path) -> None:
    message = refused("imagenet")
    assert message.startswith(f"{tmp_path}/data/imagenet lacks ILSVRC2012_devkit_t12.tar.gz")
    assert "and ILSVRC2012_img_train.tar; download from https://image-net.org" in message


def test_imagenet_names_a_damaged_archive(imagenet) -> None:
    os.truncate(imagenet / "ILSVRC2012_img_val.tar", 1000)
    message = refused("imagenet", root=imagenet)
    assert "ILSVRC2012_img_val.tar" in message
    assert "corrupted" in message


def test_imagenet_names_a_damaged_devkit(imagenet) -> None:
    (imagenet / ARCHIVE_META["devkit"][0]).write_bytes(b"half")
    os.truncate(imagenet / "meta.bin", 50)
    assert "meta.bin is damaged; delete it" in refused("imagenet", root=imagenet)
    (imagenet / "meta.bin").unlink()
    message = refused("imagenet", root=imagenet)
    assert "ILSVRC2012_devkit_t12.tar.gz" in message
    assert "corrupted" in message


@pytest.mark.parametrize("left", ["nothing", "an archive", "one image less"])
def test_imagenet_unpacked_half_way_is_not_taken_as_whole(imagenet, left) -> None:
    load_data("imagenet", root=imagenet)
    one = imagenet / "train" / WNIDS[1]
    if left == "one image less":
        (one / f"{WNIDS[1]}_1.JPEG").unlink()
    else:
        shutil.rmtree(one)
        if left == "nothing":
            shutil.rmtree(imagenet / "train" / WNIDS[0])
    message = refused("imagenet", root=imagenet)
    assert f"{imagenet}/train has " in message
    assert f"of 4 images; delete {imagenet}/train to unpack" in message
    shutil.rmtree(imagenet / "train")
    assert len(load_data("imagenet", root=imagenet)[0]) == 4


def test_grey_images_of_any_torchvision_data_set_get_three_channels() -> None:
    grey = Image.new("L", (20, 20), 7)
    image, label = ImageFiles([(grey, 1)], num_classes=2)[0]
    assert torch.equal(image, torch.full((3, 20, 20), 7, dtype=torch.uint8))
    assert label == 1


def test_where_data_sets_are_kept(monkeypatch, tmp_path) -> None:
    assert data_root() == tmp_path / "data"
    monkeypatch.delenv("CONVNEXT_STEPS_DATA")
    assert data_root() == tmp_path / "cache" / "convnext_steps"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_root() == tmp_path / ".cache" / "convnext_steps"


# ---- crops and augmentation


@pytest.mark.parametrize(
    ("side", "mode", "share"),
    [(112, "center", 0.875), (224, "center", 0.875), (383, "center", 0.875), (384, "squash", 1.0)],
)
def test_the_crop_for_evaluation_is_timms(side, mode, share) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (500, 768, 3), np.uint8)
    crop = {"crop_pct": share, "crop_mode": mode, "interpolation": "bicubic"}
    theirs = create_transform(side, use_prefetcher=True, **crop)(Image.fromarray(pixels))
    ours = v2.Compose(evaluation_crop(side))(Image.fromarray(pixels))
    assert (np.asarray(ours).transpose(2, 0, 1) == np.asarray(theirs)).all()
    step = image_transform(PAPER, training=True).transforms[0]
    assert step.interpolation == v2.InterpolationMode.BICUBIC


def test_images_in_memory_are_left_alone_unless_the_recipe_says_otherwise() -> None:
    plain, _ = load_data("synthetic", config=TrainingConfig(resolution=32))
    assert plain.transform is None
    assert torch.equal(plain.images, synthetic(True).images)
    train, test = load_data("synthetic", config=TrainingConfig(resolution=56))
    assert train[[0, 1, 2]][0].shape == (3, 1, 56, 56)
    assert test[0][0].shape == (1, 56, 56)
    assert torch.equal(test[[4, 9]][0][1], test[9][0])  # a batch is what its images are


def test_rand_augment_is_the_papers() -> None:
    TrainingConfig(rand_augment=10)  # the highest
    train, test = load_data("synthetic", config=TrainingConfig(rand_augment=9))
    for step in train.transform.transforms:
        (one,) = step.transforms
        assert isinstance(one, v2.RandAugment)
        assert (step.p, one.num_ops, one.magnitude, one.num_magnitude_bins) == (0.5, 1, 9, 11)
    assert len(train.transform.transforms) == 2
    assert test.transform is None
