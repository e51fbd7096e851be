"""What people bring to a Trainer: it trains, or one line says what to do before any training."""

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from test_checkpoint import interrupt
from torch import Tensor, nn
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    random_split,
)
from torchvision import models
from torchvision.transforms.v2.functional import to_pil_image

from convnext_steps import How, Trainer, TrainingConfig
from convnext_steps.errors import TrainingError
from convnext_steps.models.design import Design
from convnext_steps.models.network import Network
from convnext_steps.training.data import synthetic
from convnext_steps.training.distributed import join
from convnext_steps.training.images import ImageFiles
from convnext_steps.training.items import class_names
from convnext_steps.training.trainer import seed_everything

CONFIG = TrainingConfig(max_epochs=2, batch_size=8, learning_rate=1e-3)
IMAGES, LABELS = torch.randn(16, 3, 32, 32), torch.arange(16) % 4


class Plain(nn.Sequential):
    """A small network of PyTorch's own layers."""

    def __init__(self, channels: int = 3) -> None:
        layers = [nn.Conv2d(channels, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


def trainer(model: nn.Module, data: Any = None, config: TrainingConfig = CONFIG, **keywords: Any):
    data = TensorDataset(IMAGES, LABELS) if data is None else data
    return Trainer(model, data, data, config, progress=False, **keywords)


def refused(message: str, *arguments: Any, **keywords: Any) -> None:
    with pytest.raises(TrainingError, match=message) as caught:
        trainer(*arguments, **keywords)
    assert "\n" not in str(caught.value)


# --- the data ------------------------------------------------------------------------------------


class Items(Dataset[Any]):
    """A data set of any items."""

    def __init__(self, *items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter([(IMAGES[0], 0)] * 16)


DATA = TensorDataset(IMAGES, LABELS)
PAIRS = [(image, int(label)) for image, label in zip(IMAGES, LABELS, strict=True)]
BAD_DATA: dict[str, tuple[Any, str]] = {
    "dictionaries": (
        Items(*[{"image": image, "label": label} for image, label in PAIRS]),
        r"item 0 of the training set is a dictionary with image, label; it must be \(image, label",
    ),
    "triples": (Items(*[(*pair, 0) for pair in PAIRS]), "item 0 .* has 3 parts; it must be"),
    "PIL images": (
        Items(*[(to_pil_image(image), label) for image, label in PAIRS]),
        "item 0 .* has an image of type Image; it must be a tensor .*pil_to_tensor",
    ),
    "no batch of channels": (
        Items(*[(image[0], label) for image, label in PAIRS]),
        r"image of shape \(32, 32\); it must be \(C, H, W\)",
    ),
    "sizes": (
        Items(*PAIRS[:15], (torch.randn(3, 20, 24), 0)),
        r"item 15 of the training set is an image of \(3, 20, 24\), item 0 of \(3, 32, 32\); resi",
    ),
    "float labels": (
        Items(*[(image, float(label)) for image, label in PAIRS]),
        "item 0 of the training set has a label 0.0; it must be one whole number",
    ),
    "float tensors": (TensorDataset(IMAGES, LABELS.float()), "item 0 .* has a label 0.0"),
    "one-hot labels": (
        TensorDataset(IMAGES, torch.eye(4)[LABELS]),
        r"has a label of shape \(4,\); it must be one whole number",
    ),
    "one label too high": (
        TensorDataset(IMAGES, LABELS.index_fill(0, torch.tensor(7), 4)),
        "a label is 4, but the network has 4 classes, 0 to 3",
    ),
    "names as labels": (
        Items(*[(image, "cat") for image, _ in PAIRS]),
        "item 0 of the training set has a label 'cat'; it must be one whole number",
    ),
    "labels from -1": (Items(*PAIRS[:15], (IMAGES[0], -1)), "a label is -1, but the network"),
    "a stream": (Stream(), "the training set is a Stream, which has no item by index"),
    "a loader": (DataLoader(DATA), "is a DataLoader, which has no item by index; give a data set"),
    "nothing": (Items(), "the training set has no images"),
    "channels last": (
        Items(*[(image.permute(1, 2, 0), label) for image, label in PAIRS]),
        r"the images are \(32, 32, 3\), height, width, channels; .* image.permute\(2, 0, 1\)",
    ),
    "one channel": (
        Items(*[(image[:1], label) for image, label in PAIRS]),
        "the images have 1 channels, but the network takes 3; build it with in_channels=1",
    ),
}


@pytest.mark.parametrize("kind", BAD_DATA)
def test_data_that_cannot_be_trained_on_are_one_line_before_training(kind: str) -> None:
    data, message = BAD_DATA[kind]
    refused(message, Plain(), data)


@pytest.mark.parametrize("kind", ["float labels", "nothing", "one label too high", "one channel"])
def test_the_test_set_is_checked_before_training_too(kind: str) -> None:
    data, message = BAD_DATA[kind]
    with pytest.raises(TrainingError, match=message.replace("training set", "test set")):
        Trainer(Plain(), DATA, data, CONFIG)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_odd_size_that_was_not_among_the_first_is_one_line(workers: int) -> None:
    odd = [*PAIRS]
    odd[3] = (torch.randn(3, 20, 24), 0)
    run = trainer(Plain(), Items(*odd), how=How(data_workers=workers))
    with pytest.raises(TrainingError, match=r"such as \(3, 20, 24\) and \(3, 32, 32\)") as caught:
        run.train()
    assert "\n" not in str(caught.value)


LATE = {  # items that are not among the few that are looked at before training
    r"an item has a label 2\.7; it must be one whole number": (IMAGES[0], 2.7),
    "an item has a label nan": (IMAGES[0], math.nan),
    "an item is of type NoneType": None,
    "an item has 3 parts": (IMAGES[0], 0, 0),
    "are float32 and uint8; make them alike": (IMAGES[0].to(torch.uint8), 0),
}


@pytest.mark.parametrize("message", LATE)
def test_an_odd_item_that_was_not_among_the_first_is_one_line(message: str) -> None:
    items: list[Any] = [*PAIRS] * 4
    items[3] = LATE[message]
    with pytest.raises(TrainingError, match=message) as caught:
        trainer(Plain(), Items(*items)).train()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "how", "message"),
    [
        (Plain, How(), "model is a type; it must be a Module"),
        ("resnet", How(), "model is a str; it must be a Module"),
        (Plain(), None, "how is a NoneType; it must be a How"),
        (Plain(), {"workers": 1}, "how is a dict; it must be a How"),
    ],
)
def test_arguments_of_other_types_are_one_line(model: Any, how: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        trainer(model, how=how)


def test_classes_that_differ_between_the_halves_are_refused() -> None:
    train, test = (replace(SYNTHETIC, classes=tuple(names)) for names in ("abcd", "bcde"))
    with pytest.raises(TrainingError, match="the test set's classes differ"):
        Trainer(Plain(1), train, test, CONFIG, progress=False)
    trainer(Plain(1), train)


@pytest.mark.parametrize("kind", [torch.int32, torch.uint8, torch.bool])
def test_labels_of_any_kind_of_integer_train(kind: torch.dtype) -> None:
    images = torch.randn(8, 3, 32, 32)
    data = TensorDataset(images, (torch.arange(8) % 2).to(kind))
    plain = TensorDataset(images, torch.arange(8) % 2)
    losses = []
    for each in (data, plain):
        seed_everything(0)
        losses.append(Trainer(Plain(), each, each, CONFIG, progress=False).train().loss)
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    "attributes",
    [
        {"classes": 10},
        {"classes": torch.arange(4)},
        {"datasets": {"one": 1}},
        {"num_classes": torch.tensor(4)},
    ],
    ids=lambda attributes: " ".join(attributes),
)
def test_attributes_of_a_data_set_that_mean_something_else_do_no_harm(
    attributes: dict[str, Any], tmp_path: Path
) -> None:
    data = Items(*PAIRS)
    vars(data).update(attributes)
    run = trainer(Plain(), data, output_dir=tmp_path)
    assert run.train().classes == ()


class Folder(Items):
    """PIL images with names of classes, as torchvision's ImageFolder has them."""

    classes = ("0", "1", "10", "2")


SYNTHETIC = synthetic(True, 32)
FILES = ImageFiles(
    Folder(*[(to_pil_image(i), int(y)) for i, y in zip(*SYNTHETIC[list(range(32))], strict=True)]),
    num_classes=4,
)
OURS: dict[str, Callable[[], Any]] = {
    "random_split": lambda: random_split(SYNTHETIC, [0.5, 0.5])[0],
    "a subset of a subset": lambda: Subset(Subset(SYNTHETIC, range(20)), range(16)),
    "put together": lambda: ConcatDataset([Subset(SYNTHETIC, range(8)), SYNTHETIC]),
    "files": lambda: Subset(FILES, range(16)),
}


@pytest.mark.parametrize("kind", OURS)
def test_parts_of_a_data_set_are_normalised_as_the_whole(kind: str) -> None:
    data = OURS[kind]()
    whole = FILES if kind == "files" else SYNTHETIC
    images = torch.stack([data[i][0] for i in range(4)])
    run = trainer(Plain(whole.channels), data)
    seen, _ = run.preparation.for_evaluation(images, torch.zeros(4, dtype=torch.long))
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (whole.mean, whole.std))
    assert torch.allclose(seen, (images / 255 - mean) / std, atol=1e-6)
    run.train()


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize(
    "fields", [{"rand_augment": 9}, {"random_resized_crop": True}, {"resolution": 16}], ids=str
)
def test_a_field_of_the_recipe_that_does_nothing_is_named(
    fields: dict[str, Any], applied: bool, caplog: pytest.LogCaptureFixture
) -> None:
    config = replace(CONFIG, **fields)
    data = SYNTHETIC.prepared(config, training=True) if applied else SYNTHETIC
    Trainer(Plain(1), data, SYNTHETIC, config, progress=False)
    (field,) = fields
    assert [f"without the recipe's {field};" in text for text in caplog.messages] == (
        [] if applied else [True]
    )


def test_more_classes_than_outputs_are_refused() -> None:
    labelled = replace(SYNTHETIC, num_classes=5)
    refused("5 classes, but the network has 4; build it with num_classes=5", Plain(1), labelled)


def test_a_subset_of_few_classes_trains_a_network_of_as_many() -> None:
    few = Subset(SYNTHETIC, (SYNTHETIC.labels < 2).nonzero().flatten().tolist())
    trainer(nn.Sequential(*list(Plain(1))[:-1], nn.Linear(8, 2)), few).train()


def test_labels_and_images_of_several_kinds_train_together() -> None:
    images = [IMAGES[0], IMAGES[1].numpy(), IMAGES[2], IMAGES[3].numpy()]
    labels = [0, torch.tensor(1), np.int64(2), torch.tensor(3, dtype=torch.int32)]
    trainer(Plain(), Items(*2 * list(zip(images, labels, strict=True)))).train()


def test_an_image_that_numpy_has_flipped_is_one_line() -> None:
    flipped = (IMAGES[0].numpy()[:, ::-1], 0)
    refused(
        "item 0 of the training set has an image that NumPy has flipped", Plain(), Items(flipped)
    )


def test_one_value_per_channel_is_one_line() -> None:
    config = replace(CONFIG, micro_batch_size=1)
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 4))
    with pytest.raises(TrainingError, match="BatchNorm cannot train on one value per channel"):
        trainer(model, config=config).train()


def test_images_of_which_only_one_half_would_be_normalised_are_refused() -> None:
    floats = TensorDataset(SYNTHETIC.images.float() / 255, SYNTHETIC.labels)
    for train, test in ((floats, SYNTHETIC), (SYNTHETIC, floats)):
        with pytest.raises(TrainingError, match="only uint8 are scaled and normalised here"):
            Trainer(Plain(1), train, test, CONFIG, progress=False)


def test_a_network_that_changes_its_images_leaves_the_data_as_they_are() -> None:
    class Centred(Plain):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images.sub_(0.5))

    images = torch.rand(16, 1, 8, 8)
    before = images.clone()
    trainer(Centred(1), TensorDataset(images, LABELS))
    assert images.equal(before)


def test_parts_that_are_normalised_differently_are_refused() -> None:
    other = replace(SYNTHETIC, mean=(0.9,))
    refused("different means and stds", Plain(1), ConcatDataset([SYNTHETIC, other]))
    plain = TensorDataset(SYNTHETIC.images, SYNTHETIC.labels)
    refused("different means and stds", Plain(1), ConcatDataset([SYNTHETIC, plain]))


def test_the_names_of_classes_are_with_the_weights_and_the_evaluation(tmp_path: Path) -> None:
    from safetensors import safe_open

    evaluation = trainer(Plain(), OURS["files"](), output_dir=tmp_path).train()
    assert evaluation.classes == ("0", "1", "10", "2")
    with safe_open(tmp_path / "final.safetensors", "pt") as file:
        assert '"classes": ["0", "1", "10", "2"]' in file.metadata()["convnext_steps"]


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        ({"dog": 1, "cat": 0}, ("cat", "dog")),
        ({1: "dog", 0: "cat"}, ("cat", "dog")),
        ({np.int64(1): "dog", np.int64(0): "cat"}, ("cat", "dog")),
        ({"cat": ["a"], "dog": None}, ("cat", "dog")),
        ([7, 8], ("7", "8")),
        ([("cat", "kitten"), ("dog",)], ("cat, kitten", "dog")),
    ],
    ids=str,
)
def test_names_of_classes_are_in_the_order_of_the_labels(
    classes: Any, names: tuple[str, ...]
) -> None:
    data = Items(*PAIRS)
    data.classes = classes
    assert class_names(Subset(data, [0])) == names


def test_a_data_set_with_labels_of_its_own_has_not_the_names_of_the_one_inside() -> None:
    other = Items(*PAIRS)
    inside = other.dataset = Items(*PAIRS)
    inside.classes = ["T-shirt/top", "Trouser"]
    assert class_names(other) == ()
    assert class_names(inside) == ("T-shirt/top", "Trouser")


# --- the network ---------------------------------------------------------------------------------


class Repeating(nn.Module):
    """One channel becomes three; the stem is registered after the body."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Plain(5)
        self.stem = nn.Conv2d(3, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.stem(x.expand(-1, 3, -1, -1)))


class Gated(nn.Module):
    """The last registered linear layer has one output and is not the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.gate = Plain(), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.body(x)
        return logits * self.gate(logits).sigmoid()


class Caching(Plain):
    """It keeps a tensor of its first batch, as rotary embeddings do."""

    cache: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.cache is None:
            self.cache = torch.linspace(0.9, 1.1, x.shape[-1])
        return super().forward(x * self.cache)


def shared() -> nn.Module:
    """A network with one module under two names."""
    one = nn.Conv2d(3, 3, 3, padding=1)
    return nn.Sequential(one, one, Plain())


class Halved(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.float()


def masked() -> nn.Module:
    """A network with a buffer that is meant to be infinite."""
    network = Plain()
    network.register_buffer("mask", torch.full((4,), -math.inf))
    return network


def deep() -> nn.Module:
    """A network with a parameter of five dimensions."""
    network = Plain()
    network.extra = nn.Parameter(torch.zeros(1, 1, 1, 1, 4))
    return network


class Tuple(Plain):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(x), x


HALF = TensorDataset(IMAGES.to(torch.bfloat16), LABELS)
GREY = TensorDataset(IMAGES[:, :1], LABELS)
LARGE = TensorDataset(torch.randn(8, 3, 64, 64), torch.arange(8) % 4)
GOOD_NETWORKS: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "repeats a channel": (Repeating, GREY),
    "five dimensions": (deep, DATA),
    "a gate is the last linear layer": (Gated, DATA),
    "shared tensors": (shared, DATA),
    "GoogLeNet": (lambda: models.googlenet(num_classes=4, init_weights=False), LARGE),
    "SqueezeNet": (lambda: models.squeezenet1_1(num_classes=4), LARGE),
    "half precision": (lambda: nn.Sequential(Halved(), Plain()), HALF),
    "a mask of infinities": (masked, DATA),
    "lazy": (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(4)), DATA),
}


@pytest.mark.parametrize("kind", GOOD_NETWORKS)
def test_networks_of_all_kinds_train_with_mixup_and_are_saved(kind: str, tmp_path: Path) -> None:
    build, data = GOOD_NETWORKS[kind]
    config = replace(CONFIG, mixup=0.8, ema_decay=0.9, max_epochs=1)
    run = trainer(build(), data, config, output_dir=tmp_path)
    run.train()
    again = build()
    if kind == "lazy":
        again(data[0][0][None])
    again.load_state_dict(load_file(tmp_path / "final.safetensors"))
    for name, value in run.model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    assert not any(value.isnan().any() for value in run.ema.state_dict().values())


@pytest.mark.parametrize(
    "name", ["convnext_atto", "levit_128s", "vit_tiny_patch16_224", "resnet18", "edgenext_xx_small"]
)
def test_timms_networks_train_and_layer_decay_is_one_line(name: str) -> None:
    keywords = {"img_size": 64} if "vit" in name and "levit" not in name else {}
    side = 224 if "levit" in name else 64
    data = TensorDataset(torch.randn(4, 3, side, side), torch.arange(4))
    model = timm.create_model(name, num_classes=4, **keywords)
    config = replace(CONFIG, batch_size=4, max_epochs=1)
    assert trainer(model, data, config).train().count == 4
    refused(
        "layer_decay needs the layers' order, which the name .* does not tell; set layer_decay=1",
        model,
        data,
        replace(config, layer_decay=0.7),
    )


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: Plain().requires_grad_(False), "no parameter of the network trains"),
        (Tuple, r"the network returns a tuple; it must return logits \(N, classes\)"),
        (lambda: nn.Conv2d(3, 4, 1), r"returns a Tensor of shape \(1, 4, 32, 32\); it must return"),
        (
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(7, 4)),
            r"the network cannot take an image of shape \(3, 32, 32\): RuntimeError: ",
        ),
    ],
)
def test_a_network_that_cannot_train_is_one_line(model: Any, message: str) -> None:
    refused(message, model())


def test_a_network_may_be_evaluated_before_it_is_trained() -> None:
    run = trainer(Caching())
    run.evaluate()
    run.train()


def statistics_move(model: nn.Module) -> bool:
    before = model[1].running_mean.clone()
    run = trainer(model)
    run.evaluate()
    run.train()
    return not torch.equal(before, model[1].running_mean)


def test_a_batchnorm_that_a_user_set_to_eval_stays_in_eval() -> None:
    assert statistics_move(Plain())
    assert statistics_move(Plain().eval())  # the whole network: it was only used before
    model = Plain()
    model[1].eval()
    assert not statistics_move(model)
    model = Plain().eval()
    model[1].requires_grad_(False)
    assert not statistics_move(model)


def test_weights_that_are_no_longer_finite_are_an_error_and_nothing_is_saved(
    tmp_path: Path,
) -> None:
    run = trainer(Plain(), config=replace(CONFIG, max_epochs=1), output_dir=tmp_path)
    step = run.optimizer.step

    def last(*arguments: Any, **keywords: Any) -> Any:
        result = step(*arguments, **keywords)
        if run.step == run.total_steps - 1:
            run.model[0].weight.data.fill_(math.nan)
        return result

    run.optimizer.step = last
    with pytest.raises(TrainingError, match=r"0\.weight is no longer finite after step 2; lower"):
        run.train()
    assert not list(tmp_path.glob("*.safetensors"))
    assert not list(tmp_path.glob("checkpoint-*"))
    assert "NaN" not in (tmp_path / "history.jsonl").read_text()


def test_a_network_that_has_diverged_is_not_trained_on(tmp_path: Path) -> None:
    model = Plain()
    model[0].weight.data.fill_(math.nan)
    with pytest.raises(TrainingError, match=r"0\.weight is not finite before training; build"):
        trainer(model, output_dir=tmp_path).train()


def test_numbers_of_numpy_are_kept_as_pythons_and_one_as_whole_or_not_is_the_same_recipe(
    tmp_path: Path,
) -> None:
    config = TrainingConfig(seed=np.int64(1), max_epochs=np.float32(1), batch_size=np.int64(8))
    assert [type(value) for value in (config.seed, config.max_epochs)] == [int, float]
    trainer(seeded(), config=config, output_dir=tmp_path).train()
    again = replace(config, max_epochs=1)
    trainer(seeded(), config=again, output_dir=tmp_path).train(resume=True)
    with pytest.raises(TrainingError, match=r"another recipe \(max_epochs: 1.0, now 2\)"):
        trainer(seeded(), config=replace(config, max_epochs=2), output_dir=tmp_path).train(True)


def test_designs_and_modules_of_ones_own_are_saved_whatever_they_hold(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Mine(Design):
        act: type = nn.SiLU

    network = Network(Mine((1, 1, 1, 1), 4), in_channels=3, num_classes=4)
    network.get_extra_state = lambda: {"mine": 1}
    network.set_extra_state = lambda _: None
    trainer(network, output_dir=tmp_path / "one").train()
    trainer(network, output_dir=tmp_path / "one").train(resume=True)
    model = Plain()
    model.design = "v2"
    trainer(model, output_dir=tmp_path / "two").train()


# --- interrupted, and its folder -----------------------------------------------------------------


def seeded() -> nn.Module:
    seed_everything(0)
    return Plain()


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("at", [1, 3, 4])
def test_interrupted_and_called_again_a_trainer_ends_as_if_it_had_not_been(
    at: int, folder: bool, tmp_path: Path
) -> None:
    config = replace(CONFIG, max_epochs=3, ema_decay=0.9)
    whole = trainer(seeded(), config=config)
    expected = whole.train()
    run = trainer(seeded(), config=config, output_dir=tmp_path if folder else None)
    interrupt(run, at)
    assert run.train() == expected
    assert (run.step, run.history) == (6, whole.history)
    for one, other in ((run.model, whole.model), (run.ema, whole.ema)):
        for name, value in other.state_dict().items():
            assert torch.equal(one.state_dict()[name], value), name


def test_two_trainings_cannot_use_one_folder_at_once(tmp_path: Path) -> None:
    one, other = (trainer(Plain(), output_dir=tmp_path) for _ in range(2))

    def second(_: Any) -> None:
        with pytest.raises(TrainingError, match="another training is working in "):
            other.train()

    one.log = second
    one.train()
    with pytest.raises(TrainingError, match="of an earlier training"):
        other.train()  # nobody holds it any more


def test_a_folder_that_cannot_be_written_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/dev/null/out")):
        refused("cannot write to the folder", Plain(), output_dir=folder)


def test_a_tilde_is_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    trainer(Plain(), output_dir="~/out").train()
    assert (tmp_path / "out" / "final.safetensors").exists()
    assert not (tmp_path / "~").exists()


class Jittered(Items):
    """Its items are random, from PyTorch's generator or from one of its own."""

    own = np.random.default_rng(0)

    def __getitem__(self, index: int) -> Any:
        image, label = self.items[index]
        return image + torch.rand(()) + self.noise(), label

    def noise(self) -> float:
        return 0.0


class OwnJitter(Jittered):
    def noise(self) -> float:
        return self.own.random()


@pytest.mark.parametrize("kind", [Items, Jittered, OwnJitter])
def test_other_data_of_the_same_length_are_noticed_unless_they_are_random(
    kind: type[Items], tmp_path: Path
) -> None:
    trainer(Plain(), kind(*PAIRS), output_dir=tmp_path).train()
    trainer(Plain(), kind(*PAIRS), output_dir=tmp_path).train(resume=True)
    changed = [(PAIRS[0][0], 1), *PAIRS[1:]]
    other = trainer(Plain(), kind(*changed), output_dir=tmp_path)
    if kind is OwnJitter:
        other.train(resume=True)
        return
    with pytest.raises(TrainingError, match="of another data set; choose another output folder"):
        other.train(resume=True)


# --- machines ------------------------------------------------------------------------------------


class Dying(Items):
    """A data set that fails as where /dev/shm is too small."""

    def __getitem__(self, index: int) -> Any:
        if torch.utils.data.get_worker_info():
            os.kill(os.getpid(), signal.SIGBUS)
        return self.items[index]


def test_workers_without_shared_memory_are_one_line() -> None:
    run = trainer(Plain(), Dying(*PAIRS), how=How(data_workers=1))
    with pytest.raises(TrainingError, match="out of shared memory; use fewer data_workers"):
        run.train()


COMPILE = """
from torch import nn
import torch
from convnext_steps import How, Trainer, TrainingConfig
data = torch.utils.data.TensorDataset(torch.randn(8, 3, 8, 8), torch.arange(8) % 4)
model = nn.Sequential(nn.Conv2d(3, 4, 8), nn.GELU(), nn.Flatten(), nn.LayerNorm(4))
config = TrainingConfig(max_epochs=1, batch_size=4)
Trainer(model, data, data, config, progress=False, how=How(compile=True)).train()
"""


@pytest.mark.slow
def test_no_compiler_is_one_line(tmp_path: Path) -> None:
    nowhere = {"CXX": "/nowhere/g++", "CC": "/nowhere/gcc", "PATH": "/nowhere"}
    nowhere["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], env=os.environ | nowhere, text=True, capture_output=True
    )
    last = done.stderr.strip().splitlines()[-1]
    assert "needs a C++ compiler, and none works here; install one, such as g++" in last


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but RANK, MASTER_ADDR, MASTER_PORT are not set"),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "1"}, "SLURM_NTASKS is 4, but RANK, WORLD_SIZE"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "OMPI_COMM_WORLD_SIZE is 2, .* torchrun"),
        ({"PMI_SIZE": "2"}, "PMI_SIZE is 2, .* torchrun"),
        ({"WORLD_SIZE": "1", "RANK": "0", "SLURM_NTASKS": "1"}, ""),
    ],
)
def test_processes_that_would_train_alone_are_refused(
    environment: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if not message:
        assert join().count == 1
        return
    with pytest.raises(TrainingError, match=message):
        trainer(Plain())


TWO = """
import sys
import torch
from torch import nn
from convnext_steps import Trainer, TrainingConfig

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
        if sys.argv[1] == "unused":
            self.extra = nn.Linear(3, 3)

    def forward(self, x):
        return self.body(x)

torch.manual_seed(0)
data = torch.utils.data.TensorDataset(torch.randn(16, 3, 2, 2), torch.arange(16) % 4)
config = TrainingConfig(max_epochs=1, batch_size=8)
run = Trainer(Net(), data, data, config, progress=False)
print(run.processes.count, run.train().count)
"""


def launched(kind: str, port: int) -> list[tuple[int, str, str]]:
    """Two processes as srun, mpirun or Accelerate would start them."""
    variables = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWO, kind],
            env=os.environ | variables | {"RANK": str(rank), "SLURM_LOCALID": str(rank)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    ended = [process.communicate(timeout=200) for process in processes]
    return [(p.returncode, *texts) for p, texts in zip(processes, ended, strict=True)]


@pytest.mark.slow
def test_processes_of_any_launcher_train_together() -> None:
    for code, out, err in launched("used", 29611):
        assert (code, out.strip()) == (0, "2 16"), err


@pytest.mark.slow
def test_an_unused_layer_is_named_where_several_processes_train() -> None:
    for code, _, err in launched("unused", 29612):
        assert code != 0
        assert "the network does not use extra.weight, extra.bias; several processes" in err
