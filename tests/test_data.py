"""The bundled data, and augmentation that draws for each image."""

import gzip
import hashlib
import shutil

import pytest
import torch

from convnext_steps.errors import DataError
from convnext_steps.training import data
from convnext_steps.training.batch_transforms import random_horizontal_flip, random_shift
from convnext_steps.training.data import fashion_mnist, load_data, synthetic


def test_fashion_mnist_is_the_original_data_set() -> None:
    train, test = load_data("fashion_mnist")
    assert train.images.shape == (60_000, 1, 32, 32)
    assert test.images.shape == (10_000, 1, 32, 32)
    assert train.images.dtype == torch.uint8
    assert torch.bincount(train.labels).tolist() == [6_000] * 10
    assert torch.bincount(test.labels).tolist() == [1_000] * 10
    assert train.labels[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]  # as published
    pixels = train.images[:, :, 2:-2, 2:-2].float() / 255
    assert pixels.mean().item() == pytest.approx(train.mean[0], abs=1e-4)
    assert pixels.std().item() == pytest.approx(train.std[0], abs=1e-4)
    assert train.images[:, :, [0, 1, 30, 31]].max() == 0


def test_subset_is_fixed() -> None:
    whole = fashion_mnist(train=True)
    train, test = load_data("fashion_mnist", train_images=10_000)
    assert torch.equal(train.images, whole.images[:10_000])
    assert len(test) == 10_000
    with pytest.raises(DataError, match="cannot take 60001"):
        whole.first(60_001)


@pytest.fixture
def archives(tmp_path, monkeypatch):
    copy = shutil.copytree(data.ARCHIVES, tmp_path / "archives")
    monkeypatch.setattr(data, "ARCHIVES", copy)
    return copy


def test_a_well_formed_archive_of_other_content_is_refused(archives) -> None:
    archive = archives / "train-labels-idx1-ubyte.gz"
    archive.write_bytes(gzip.compress(gzip.decompress(archive.read_bytes())[:-1] + b"\0"))
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte.gz is damaged.*git checkout"):
        fashion_mnist(train=True)


def test_a_missing_archive_is_named(archives) -> None:
    (archives / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.gz is missing"):
        fashion_mnist(train=True)


def test_synthetic_is_deterministic_and_balanced() -> None:
    first, again, test = synthetic(True), synthetic(True), synthetic(False)
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, test.images)
    assert torch.bincount(first.labels).tolist() == [128] * 4
    for half, digest in ((first, "09cdba9f8e934817"), (test, "d9ff264a24e9aa99")):
        content = half.images.numpy().tobytes() + half.labels.numpy().tobytes()
        assert hashlib.sha256(content).hexdigest().startswith(digest), "another version then"


def test_each_image_is_shifted_by_its_own_amount_and_filled_with_zeros() -> None:
    torch.manual_seed(0)
    image, shifts = torch.arange(1, 17).view(4, 4), set()
    for shifted in random_shift(image.expand(400, 1, 4, 4), 1)[:, 0]:
        row, column = divmod(int((shifted == 6).flatten().int().argmax()), 4)
        expected = torch.zeros(6, 6, dtype=torch.long)
        expected[row : row + 4, column : column + 4] = image
        assert torch.equal(shifted, expected[1:5, 1:5])
        shifts.add((row, column))
    assert len(shifts) == 9


def test_flip_mirrors_some_images_only() -> None:
    torch.manual_seed(0)
    images = torch.rand(1000, 2, 3, 5)
    flipped = random_horizontal_flip(images, 0.3)
    mirrored = (flipped == images.flip(-1)).flatten(1).all(1)
    kept = (flipped == images).flatten(1).all(1)
    assert (mirrored | kept).all()
    assert 230 < int(mirrored.sum()) < 370


@pytest.mark.parametrize("augment", [random_shift, random_horizontal_flip])
def test_augmentation_by_nothing_changes_nothing(augment) -> None:
    images = torch.rand(8, 3, 6, 6)
    assert augment(images, 0) is images
