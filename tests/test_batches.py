"""How batches are made and shared."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import Subset, TensorDataset

from convnext_steps import TrainingConfig
from convnext_steps.errors import TrainingError
from convnext_steps.training import batches as batches_module
from convnext_steps.training.batches import TrainingBatches, evaluation_batches, loader
from convnext_steps.training.data import synthetic
from convnext_steps.training.distributed import Processes
from convnext_steps.training.images import ImageTensors
from convnext_steps.training.items import to_device

CONFIG = TrainingConfig(max_epochs=1, batch_size=4)


def test_too_few_images_for_a_batch() -> None:
    with pytest.raises(TrainingError, match="3 images do not fill a batch of 4; lower batch_size"):
        TrainingBatches(3, CONFIG, Processes())


def indices(size: int, config: TrainingConfig, count: int = 1) -> list[list[int]]:
    """The images of every update, over all processes together."""
    updates: list[list[int]] = []
    for rank in range(count):
        batches = TrainingBatches(size, config, Processes(rank, count))
        micro = list(batches)
        assert len(micro) == batches.steps * batches.micro_batches
        for update in range(batches.steps):
            own = micro[update * batches.micro_batches : (update + 1) * batches.micro_batches]
            if rank == 0:
                updates.append([])
            updates[update] += [index for batch in own for index in batch]
    return updates


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("micro", [0, 2, 4])
def test_an_update_has_the_same_images_however_many_processes(count, micro) -> None:
    config = replace(CONFIG, batch_size=16)
    alone = indices(100, config)
    shared = indices(100, replace(config, micro_batch_size=micro), count=count)
    assert [sorted(update) for update in shared] == [sorted(update) for update in alone]


def test_evaluation_takes_no_more_images_at_once_than_training_can() -> None:
    assert max(map(len, evaluation_batches(1000, Processes()))) == 500
    assert max(map(len, evaluation_batches(1000, Processes(), micro_batch_size=8))) == 32


def test_a_batch_that_does_not_divide() -> None:
    with pytest.raises(TrainingError, match="times 8 processes"):
        TrainingBatches(100, CONFIG, Processes(0, 8))
    with pytest.raises(TrainingError, match="batch_size 16 is not a multiple"):
        TrainingBatches(100, replace(CONFIG, batch_size=16, micro_batch_size=5), Processes())
    with pytest.raises(TrainingError, match="times 3 processes"):
        TrainingBatches(100, replace(CONFIG, batch_size=16), Processes(0, 3))


@pytest.mark.parametrize("size", [1, 7, 1001])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_evaluation_shares_each_image_once(size, count) -> None:
    shares = [evaluation_batches(size, Processes(rank, count)) for rank in range(count)]
    seen = [index for share in shares for batch in share for index in batch]
    assert sorted(seen) == list(range(size))


def test_a_data_set_in_memory_gives_the_same_batches_as_one_by_one() -> None:
    data, batches = synthetic(True, 20), [[3, 1, 2], [7, 9]]
    pairs = [(data.images[i], int(data.labels[i])) for i in range(20)]
    for fast, slow in zip(loader(data, batches), loader(pairs, batches), strict=True):
        assert torch.equal(fast[0], slow[0])
        assert torch.equal(fast[1], slow[1])


def test_batches_on_a_device_are_those_of_the_data_loader(monkeypatch) -> None:
    data = synthetic(True, 100)
    batches = TrainingBatches(
        len(data), replace(CONFIG, batch_size=32, micro_batch_size=8), Processes()
    )
    expected = list(loader(data, batches))
    monkeypatch.setattr("convnext_steps.training.batches.on_device", lambda dataset: True)
    for each in (data, TensorDataset(data.images, data.labels)):
        found = list(loader(each, batches))
        assert len(found) == len(expected) == 12
        for ours, theirs in zip(found, expected, strict=True):
            assert all(map(torch.equal, ours, theirs))
    uneven = evaluation_batches(1100, Processes())
    many = synthetic(False, 1100)
    labels = [labels for _, labels in loader(many, uneven)]
    assert torch.equal(torch.cat(labels), many.labels)


def test_only_batches_of_the_cpu_are_pinned(monkeypatch) -> None:
    """Those on a GPU could not be; a device without memory stands for it."""
    cuda = SimpleNamespace(is_initialized=lambda: True)
    stub = SimpleNamespace(cuda=cuda, as_tensor=torch.as_tensor)
    monkeypatch.setattr(batches_module, "torch", stub)
    asked = []
    monkeypatch.setattr(batches_module, "DataLoader", lambda *_, **options: asked.append(options))
    for device in ("cpu", "meta"):
        data = TensorDataset(torch.zeros(4, 1, 2, 2, device=device), torch.zeros(4))
        list(loader(Subset(data, [0, 1]), [[0, 1]]) or ())
    assert [options["pin_memory"] for options in asked] == [True, False]


def test_data_in_memory_are_copied_to_a_device_with_what_is_known_of_them() -> None:
    device, data = torch.device("meta"), synthetic(True, 8)
    copy = to_device(data, device)
    assert isinstance(copy, ImageTensors)
    assert (copy.images.device, copy.images.shape) == (device, data.images.shape)
    assert (copy.labels.device, copy.labels.shape) == (device, data.labels.shape)
    assert (copy.mean, copy.std, copy.num_classes) == (data.mean, data.std, data.num_classes)
    pair = TensorDataset(torch.zeros(4, 1, 2, 2), torch.zeros(4))
    assert [len(each.shape) for each in to_device(pair, device).tensors] == [4, 1]
    single = replace(data, transform=lambda image: image)
    assert to_device(single, device) is single
