"""The recipe and the first Trainer."""

import itertools
import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from studies import small
from torch import nn

from convnext_steps import How, Trainer, TrainingConfig
from convnext_steps.training.config import original_recipe
from convnext_steps.training.data import synthetic
from convnext_steps.training.optimization import (
    build_optimizer,
    moving_average,
    parameter_groups,
    schedule_factor,
    set_learning_rates,
)

CONFIG = TrainingConfig(max_epochs=2, batch_size=32, random_shift=1)


def train(config: TrainingConfig, output_dir=None) -> Trainer:
    data = synthetic(True, 128), synthetic(False, 100)
    trainer = Trainer(small(), *data, config, output_dir=output_dir, progress=False)
    trainer.train()
    return trainer


@pytest.mark.parametrize(
    ("kind", "field", "value", "rule"),
    [
        (TrainingConfig, "learning_rate", "0.1", "a number$"),
        (TrainingConfig, "max_epochs", None, "a number$"),
        (TrainingConfig, "batch_size", 16.5, "a whole number$"),
        (TrainingConfig, "batch_size", True, "a whole number$"),
        (TrainingConfig, "random_resized_crop", "yes", "true or false$"),
        (TrainingConfig, "optimizer", None, "one of 'adamw', 'sgd'$"),
        (TrainingConfig, "weight_decay", math.inf, "a number$"),
        (TrainingConfig, "rand_augment", 11, "at most 10$"),
        (How, "data_workers", "2", "a whole number$"),
        (How, "compile", 1, "true or false$"),
        (TrainingConfig, "max_epochs", 0, ""),
        (TrainingConfig, "batch_size", -1, ""),
        (TrainingConfig, "learning_rate", math.nan, ""),
        (TrainingConfig, "weight_decay", -0.1, ""),
        (TrainingConfig, "warmup_fraction", 1.5, ""),
        (TrainingConfig, "label_smoothing", -1, ""),
        (TrainingConfig, "optimizer", "adam", ""),
        (TrainingConfig, "schedule", "linear", ""),
        (TrainingConfig, "precision", "fp8", ""),
        (TrainingConfig, "seed", -1, ""),
        (How, "processes", 0, ""),
        (How, "workers", 0, ""),
        (How, "keep_checkpoints", 0, ""),
        (How, "checkpoint_every", -1, ""),
        (How, "data_workers", -1, ""),
    ],
)
def test_a_wrong_value_of_a_field_is_named(kind, field, value, rule) -> None:
    with pytest.raises(ValueError, match=f"^{field} is {value!r}; it must be {rule}"):
        kind(**{field: value})


def test_norms_biases_and_scales_do_not_decay() -> None:
    model = small()
    decaying, kept = parameter_groups(model, CONFIG)
    assert (decaying["weight_decay"], kept["weight_decay"]) == (0.05, 0.0)
    decays = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, (nn.Conv2d, nn.Linear))
    }
    assert {id(parameter) for parameter in decaying["params"]} == decays
    assert len(decaying["params"]) + len(kept["params"]) == len(list(model.parameters()))
    (everything,) = parameter_groups(model, original_recipe(CONFIG))
    assert everything["weight_decay"] == 1e-4
    assert len(everything["params"]) == len(list(model.parameters()))


def learning_rates(config: TrainingConfig, total_steps: int) -> list[float]:
    optimizer = build_optimizer(nn.Linear(2, 2), config)
    rates = []
    for step in range(total_steps):
        set_learning_rates(optimizer, schedule_factor(step, config, total_steps))
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def test_warmup_is_linear_and_the_cosine_ends_at_the_final_rate() -> None:
    config = replace(CONFIG, learning_rate=1.0, warmup_fraction=0.1, final_learning_rate=0.01)
    rates = learning_rates(config, 100)
    assert rates[:11] == pytest.approx([(step + 1) / 11 for step in range(11)])
    for step in (10, 30, 55, 99):
        cosine = 0.01 + 0.99 * (1 + math.cos(math.pi * (step - 10) / 90)) / 2
        assert rates[step] == pytest.approx(cosine)


@pytest.mark.parametrize("batch_size", [32, 64, 256, 4096])
def test_the_original_recipe_divides_by_ten_after_each_third(batch_size) -> None:
    config = original_recipe(replace(CONFIG, batch_size=batch_size, max_epochs=4))
    assert config.max_epochs == pytest.approx(1.2)
    assert (config.optimizer, config.momentum, config.label_smoothing) == ("sgd", 0.9, 0.0)
    assert config.batch_size == min(batch_size, 256)
    peak = 0.1 * config.batch_size / 256
    assert learning_rates(config, 90) == pytest.approx(
        [peak] * 30 + [peak / 10] * 30 + [peak / 100] * 30
    )


@pytest.mark.parametrize("max_epochs", [0.3, 1.0, 1.2, 2.5])
def test_the_last_epoch_may_be_a_part_of_one(max_epochs) -> None:
    trainer = train(replace(CONFIG, max_epochs=max_epochs))
    assert trainer.step == round(max_epochs * 4)
    assert trainer.history[-1]["epoch"] == math.ceil(max_epochs)


def test_evaluation_is_at_an_interval_and_at_the_end_and_seconds_add_up(monkeypatch) -> None:
    clock = SimpleNamespace(perf_counter=itertools.count().__next__)
    monkeypatch.setattr("convnext_steps.training.trainer.time", clock)
    trainer = train(replace(CONFIG, max_epochs=5, evaluate_every=2))
    epochs = [entry["epoch"] for entry in trainer.history if "accuracy" in entry]
    assert epochs == [2, 4, 5]
    assert trainer.seconds == {"training": 5, "evaluation": len(epochs)}


def test_history_is_written_as_json_lines(tmp_path) -> None:
    trainer = train(CONFIG, tmp_path / "a" / "folder")
    lines = (tmp_path / "a" / "folder" / "history.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == trainer.history


def test_evaluation_is_of_every_image_once_in_eval_mode() -> None:
    class Probe(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert not self.training
            assert not torch.is_grad_enabled()
            return super().forward(x.flatten(1))

    probe, test = Probe(1024, 4), synthetic(False, 1234)  # batches of 500, 500 and 234
    evaluation = Trainer(probe, synthetic(True, 64), test, CONFIG, progress=False).evaluate()
    images = (test.images.flatten(1).float() / 255 - test.mean[0]) / test.std[0]
    logits = nn.functional.linear(images, probe.weight, probe.bias)
    assert evaluation.count == 1234
    assert evaluation.correct == int((logits.argmax(1) == test.labels).sum())
    assert evaluation.accuracy == 100 * evaluation.correct / 1234
    assert evaluation.loss == pytest.approx(nn.functional.cross_entropy(logits, test.labels).item())


def test_label_smoothing_is_wired() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(1024, 4))
    nn.init.zeros_(model[1].weight)
    with torch.no_grad():
        model[1].bias.copy_(torch.tensor([10.0, 0.0, 0.0, 0.0]))
    images, labels = torch.zeros(8, 1, 32, 32), torch.zeros(8, dtype=torch.long)
    losses = {}
    for smoothing in (0.0, 0.4):
        config = replace(CONFIG, label_smoothing=smoothing, learning_rate=1e-12)
        trainer = Trainer(model, synthetic(True, 64), synthetic(False), config, progress=False)
        losses[smoothing] = trainer.update._loss(images, labels).item()
    assert losses[0.0] == pytest.approx(0, abs=1e-3)
    assert losses[0.4] == pytest.approx(0.4 * 3 / 4 * 10, abs=1e-2)


def test_the_model_is_trained_with_channels_last() -> None:
    trainer = Trainer(small(), synthetic(True, 64), synthetic(False), CONFIG, progress=False)
    expand = trainer.model.stages[0][0].branch.expand.weight
    assert expand.is_contiguous(memory_format=torch.channels_last)
    images, _ = trainer.preparation.for_training(*synthetic(True, 8)[list(range(8))])
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_greyscale_images_stay_channels_last_in_every_convolution() -> None:
    """Their own strides, and those of a kernel of one channel, leave it open."""
    trainer = Trainer(small("resnet"), synthetic(True, 64), synthetic(False), CONFIG)
    found = []
    for layer in trainer.model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda *given: found.append(given[-1]))
    images, _ = trainer.preparation.for_training(*synthetic(True, 8)[list(range(8))])
    trainer.model(images)
    assert len(found) > 10
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in found)


READS = ("item", "tolist", "cpu", "__float__", "__int__", "__bool__", "__index__")


@pytest.mark.parametrize("recipe", [{}, {"mixup": 0.8, "cutmix": 1.0, "random_erasing": 0.25}])
def test_ten_steps_read_nothing_from_the_device(monkeypatch, recipe) -> None:
    """On a GPU each read would wait for it; here the CPU's tensors stand for the GPU's."""
    recipe = recipe | {"random_shift": 2, "horizontal_flip": 0.5, "drop_path_rate": 0.1}
    config = replace(CONFIG, max_epochs=100, **recipe)
    trainer = Trainer(small(), synthetic(True, 512), synthetic(False, 64), config, progress=False)
    steps, reads = trainer.steps(), []
    next(steps)
    for name in READS:
        known = getattr(torch.Tensor, name)

        def counted(tensor, *arguments, name=name, known=known):
            reads.append(name)
            return known(tensor, *arguments)

        monkeypatch.setattr(torch.Tensor, name, counted)
    for _ in range(10):
        next(steps)
    assert reads == []
    assert trainer.step == 11
    assert float(torch.ones(())) == int(torch.ones(())) == 1
    assert reads == ["__float__", "__int__"]


def test_the_averages_count_is_read_without_waiting_for_a_gpu() -> None:
    average = moving_average(small().to("meta"))
    assert average.n_averaged.device.type == "cpu"
