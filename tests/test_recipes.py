"""Every part of the paper's recipe is wired: each test fails if its part is not."""

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from studies import small
from torchvision.transforms import v2

from convnext_steps import How, Trainer, TrainingConfig, convnext_base, convnext_tiny, roadmap
from convnext_steps.training import evaluation as evaluation_module
from convnext_steps.training import trainer as trainer_module
from convnext_steps.training.batch_transforms import Preparation, random_erasing
from convnext_steps.training.batches import loader
from convnext_steps.training.config import RECIPES
from convnext_steps.training.data import synthetic
from convnext_steps.training.label_mixing import LabelMixing
from convnext_steps.training.optimization import (
    build_optimizer,
    layer_positions,
    moving_average,
    update_average,
)

CONFIG = TrainingConfig(max_epochs=2, batch_size=32)
DATA = synthetic(True, 128), synthetic(False, 40)


def trained(config: TrainingConfig) -> Trainer:
    trainer = Trainer(small(), *DATA, config, progress=False)
    trainer.train()
    return trainer


def test_the_paper_recipe_is_table_5() -> None:
    paper = RECIPES["paper"]
    table = {
        "max_epochs": 300,
        "batch_size": 4096,
        "optimizer": "adamw",
        "learning_rate": 4e-3,
        "schedule": "cosine",
        "final_learning_rate": 1e-6,
        "weight_decay": 0.05,
        "label_smoothing": 0.1,
        "mixup": 0.8,
        "cutmix": 1.0,
        "rand_augment": 9,
        "random_erasing": 0.25,
        "ema_decay": 0.9999,
        "drop_path_rate": 0.1,
        "resolution": 224,
    }
    assert {name: getattr(paper, name) for name in table} == table
    assert paper.warmup_fraction * paper.max_epochs == pytest.approx(20)
    assert RECIPES["roadmap"] == replace(paper, ema_decay=0.0)


def test_the_finetuning_recipe_is_the_papers() -> None:
    recipe = RECIPES["finetune"]
    assert (recipe.max_epochs, recipe.batch_size, recipe.resolution) == (30, 512, 384)
    assert (recipe.learning_rate, recipe.weight_decay) == (5e-5, 1e-8)
    assert (recipe.layer_decay, recipe.mixup, recipe.cutmix) == (0.7, 0.0, 0.0)
    assert recipe.batch_size % recipe.micro_batch_size == 0


def test_the_original_recipe_is_torchvisions_first() -> None:
    recipe = RECIPES["resnet_original"]
    assert (recipe.max_epochs, recipe.batch_size, recipe.optimizer) == (90, 256, "sgd")
    assert (recipe.learning_rate, recipe.momentum, recipe.weight_decay) == (0.1, 0.9, 1e-4)
    assert (recipe.mixup, recipe.cutmix, recipe.rand_augment, recipe.ema_decay) == (0, 0, 0, 0)
    assert recipe.random_resized_crop
    assert recipe.horizontal_flip == 0.5


def official_layer(name: str) -> int:
    """As in the official repository's optim_factory.py, for the deep models."""
    part, *rest = name.split(".")
    if part == "downsample_layers":
        return {0: 0, 1: 2, 2: 3, 3: 12}[int(rest[0])]
    if part == "stages":
        stage, block = int(rest[0]), int(rest[1])
        return {0: 1, 1: 2, 2: 3 + block // 3, 3: 12}[stage]
    return 13


def test_layer_wise_rates_are_the_official_codes() -> None:
    with torch.device("meta"):
        model = convnext_base()
    names = [name for name, _ in model.named_parameters()]
    assert layer_positions(model) == {name: official_layer(name) for name in names}
    config = replace(RECIPES["finetune"], optimizer="sgd")
    rates = {}
    for group in build_optimizer(model, config).param_groups:
        for parameter in group["params"]:
            rates[id(parameter)] = group["lr"]
    for name, parameter in model.named_parameters():
        expected = 5e-5 * 0.7 ** (13 - official_layer(name))
        assert rates[id(parameter)] == pytest.approx(expected)


def test_layer_decay_groups_blocks_alike_in_both_files_of_one_network() -> None:
    with torch.device("meta"):
        ours, published = roadmap()["separate_downsampling"].build(), convnext_tiny()
    block = "stages.2.{}.{}.weight"
    for index in range(9):
        one = layer_positions(ours)[block.format(index + 2, "branch.spatial")]
        assert one == layer_positions(published)[block.format(index, "dwconv")]


def test_layer_decay_reaches_every_kind_of_model() -> None:
    with torch.device("meta"):
        models = [convnext_tiny(), small("separate_downsampling"), small("resnet")]
    for model in models:
        positions = layer_positions(model)
        assert positions[next(iter(positions))] == 0
        assert len(set(positions.values())) >= 6
        assert list(positions.values())[-1] == max(positions.values())


def test_gradients_accumulate_to_those_of_the_whole_batch() -> None:
    gradients = []
    for micro in (0, 8):
        config = replace(CONFIG, micro_batch_size=micro, max_epochs=0.25)
        trainer = trained(config)
        assert trainer.batches.micro_batches == (4 if micro else 1)
        gradients.append(torch.cat([p.grad.flatten() for p in trainer.model.parameters()]))
    assert torch.allclose(*gradients, atol=1e-6, rtol=1e-4)
    assert gradients[0].abs().max() > 1e-3


def test_an_update_that_overflows_leaves_no_momentum() -> None:
    """PyTorch's fused kernel would leave it as the memory happened to be."""
    layer, scaler = torch.nn.Linear(64, 64, bias=False), torch.amp.GradScaler("cpu")
    config = replace(CONFIG, optimizer="sgd", precision="fp16", weight_decay=0.0)
    optimizer = build_optimizer(layer, config, False)
    before = layer.weight.detach().clone()
    for gradient in (math.inf, 0.0):
        scaler.scale(layer(torch.ones(1, 64)).sum())
        layer.weight.grad = torch.full_like(layer.weight, gradient)
        scaler.step(optimizer)
        scaler.update()
        assert layer.weight.equal(before)


def test_whole_numbers_are_copied_into_the_moving_average() -> None:
    model = torch.nn.BatchNorm1d(2)
    model.register_buffer("places", torch.arange(169))
    average = moving_average(model)
    for _ in range(20):
        model.num_batches_tracked += 1
        update_average(average, model, 0.999)
    assert average.module.places.equal(model.places)
    assert average.module.num_batches_tracked == 20


def test_the_moving_average_is_the_hand_computed_one(monkeypatch) -> None:
    trainer = Trainer(small("gelu"), *DATA, replace(CONFIG, ema_decay=0.9), progress=False)
    average: dict[str, torch.Tensor] = {}
    updates = itertools.count()

    def update_both(kept, model: torch.nn.Module, decay: float) -> None:
        update_average(kept, model, decay)
        done = next(updates)
        decay = min(0.9, (1 + done) / (10 + done))
        for name, value in model.state_dict().items():
            value = value.double()
            before = average.get(name)
            average[name] = (
                value.clone() if before is None else decay * before + (1 - decay) * value
            )

    monkeypatch.setattr("convnext_steps.training.trainer.update_average", update_both)
    trainer.train()
    for name, value in trainer.ema.module.state_dict().items():
        if value.is_floating_point():
            assert torch.allclose(value.double(), average[name], atol=1e-6), name
    last = trainer.history[-1]
    assert last["ema_accuracy"] == trainer.evaluate(trainer.ema.module).accuracy
    assert last["accuracy"] == trainer.evaluate().accuracy
    assert last["loss"] != last["ema_loss"]


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_the_average_of_what_does_not_change_is_it_to_the_last_bit(kind) -> None:
    model = small("gelu").to(kind)
    average = moving_average(model)
    for _ in range(50):
        update_average(average, model, 0.99)
    for one, other in zip(average.module.parameters(), model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_in_a_short_training_the_average_forgets_the_initial_weights() -> None:
    """48 updates, and a decay that averages over 10,000."""
    config = replace(CONFIG, max_epochs=12, ema_decay=0.9999)
    trainer = trained(config)
    last = trainer.history[-1]
    assert (trainer.step, last["accuracy"] > 60) == (48, True)
    assert last["ema_accuracy"] > last["accuracy"] - 10


@pytest.mark.parametrize("share", [0.0, 0.1, 0.37, 0.5, 0.92, 1.0])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixup_and_cutmix_are_torchvisions(kind, share, monkeypatch) -> None:
    images, labels = torch.rand(8, 3, 12, 10), torch.arange(8) % 4
    mixing = LabelMixing(replace(CONFIG, **{kind: 0.8}), 4, torch.device("cpu"))
    fixed = SimpleNamespace(sample=lambda *_: torch.tensor([share]))
    monkeypatch.setattr(mixing, kind, fixed)
    reference = (v2.MixUp if kind == "mixup" else v2.CutMix)(alpha=0.8, num_classes=4)
    monkeypatch.setattr(reference, "_dist", fixed)
    centre = {12: torch.tensor([5]), 10: torch.tensor([9])}  # by the image's side
    monkeypatch.setattr("torch.randint", lambda side, *_, **__: centre[side])
    for ours, theirs in zip(mixing(images, labels), reference(images, labels), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_with_both_each_batch_is_mixed_by_one_of_the_two() -> None:
    images = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 1, 6, 6)
    mixing = LabelMixing(replace(CONFIG, mixup=0.8, cutmix=1.0), 4, torch.device("cpu"))
    torch.manual_seed(0)
    boxes = 0
    for _ in range(200):
        mixed, shares = mixing(images, torch.arange(8) % 4)
        assert shares.sum(1).tolist() == pytest.approx([1.0] * 8)
        boxes += bool(torch.isin(mixed, images).all())  # whole pixels of one image or the other
    assert 70 < boxes < 130


def test_random_erasing_fills_one_rectangle_of_some_images() -> None:
    torch.manual_seed(0)
    images = torch.full((2000, 3, 32, 32), 7.0)
    erased = random_erasing(images, 0.25) != 7
    assert torch.equal(erased[:, 0], erased[:, 2])
    touched = erased[:, 0].flatten(1).any(1)
    assert 0.2 < touched.float().mean() < 0.3
    areas = erased[touched, 0].float().mean((1, 2))
    assert areas.min() > 0.01
    assert areas.max() < 0.36
    for mask in erased[touched, 0][:50]:
        rows, columns = mask.any(1), mask.any(0)
        assert torch.equal(mask, rows[:, None] & columns)
    assert len(set(areas.tolist())) > 50
    assert random_erasing(images, 0) is images


@pytest.mark.parametrize(
    "field", ["random_shift", "horizontal_flip", "random_erasing", "mixup", "cutmix"]
)
def test_augmentation_happens_in_training_only(field) -> None:
    config = replace(CONFIG, **{field: 1})
    preparation = Preparation(small(), DATA[0], config, torch.device("cpu"))
    batch = DATA[0][list(range(32))]
    plain, labels = preparation.for_evaluation(*batch)
    augmented, mixed = preparation.for_training(*batch)
    assert not torch.equal(augmented, plain)
    assert mixed.shape == ((32, 4) if field in ("mixup", "cutmix") else (32,))
    assert torch.equal(preparation.for_evaluation(*batch)[0], plain)
    assert torch.equal(labels, batch[1])


@pytest.mark.parametrize(("precision", "kind"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_mixed_precision_trains(precision, kind) -> None:
    model, kinds = small(), set()
    model.head[-1].register_forward_hook(lambda *args: kinds.add(args[-1].dtype))
    config = replace(CONFIG, precision=precision, max_epochs=4)
    trainer = Trainer(model, *DATA, config, progress=False)
    trainer.train()
    assert kinds == {kind}
    losses = [entry["training_loss"] for entry in trainer.history if "training_loss" in entry]
    assert losses[-1] < losses[0]
    assert trainer.update.scaler.is_enabled() == (precision == "fp16")


def test_compile_is_wired(monkeypatch) -> None:
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda model: compiled.append(model) or model)
    trainer = Trainer(small(), *DATA, CONFIG, progress=False, how=How(compile=True))
    assert compiled == [trainer.model]


def test_the_recipe_goes_by_either_of_its_names() -> None:
    train, test = DATA
    assert Trainer(small(), train, test, CONFIG, progress=False).config is CONFIG
    known = Trainer(model=small(), train_dataset=train, test_dataset=test, configs=CONFIG)
    assert known.config is CONFIG
    for given in ({}, {"config": CONFIG, "configs": CONFIG}, {"configs": {"lr": 0.1}}):
        with pytest.raises(TypeError, match="give the recipe once"):
            Trainer(small(), *DATA, progress=False, **given)


@pytest.mark.parametrize("fast", [True, False])
def test_fast_layers_are_an_option(fast) -> None:
    model, kinds = small(), set()
    plain = {type(layer) for layer in model.modules()}

    def note(model, *_) -> None:
        if model.training:
            kinds.update(map(type, model.modules()))

    model.register_forward_hook(note)
    Trainer(model, *DATA, CONFIG, progress=False, how=How(fast_cpu=fast)).train()
    assert (kinds == plain) is not fast


def test_workers_prepare_the_batches_of_training_and_evaluation(monkeypatch) -> None:
    seen = []

    def watched(data, batches, workers, seed=0):
        seen.append(workers)
        return loader(data, batches)

    monkeypatch.setattr(trainer_module, "loader", watched)
    monkeypatch.setattr(evaluation_module, "loader", watched)
    config, how = replace(CONFIG, max_epochs=1), How(data_workers=3)
    Trainer(small(), *DATA, config, progress=False, how=how).train()
    assert seen == [3, 3]
