"""convnext-steps train."""

from dataclasses import fields
from typing import Literal, get_args, get_origin

import pytest
import torch
from safetensors.torch import load_file

from convnext_steps import How, TrainingConfig, cli, convnext_tiny
from convnext_steps.cli.train import HOW, build, config_from, given
from convnext_steps.training.config import RECIPES
from convnext_steps.training.data import load_data

SMALL = ["--data", "synthetic", "--train-images", "64", "--batch-size", "32", "--max-epochs", "1"]


def parse(*arguments: str):
    return cli.parse(["train", "gelu", "--output", "out", *arguments])


def test_every_field_of_the_recipe_and_of_how_is_an_option() -> None:
    for option in (*fields(TrainingConfig), *HOW):
        flag = "--" + option.name.replace("_", "-")
        if option.type is bool:
            value = not option.default
            words = [flag if value else flag.replace("--", "--no-")]
        elif get_origin(option.type) is Literal:
            value = get_args(option.type)[-1]
            words = [flag, value]
        else:
            value = option.type(1)
            words = [flag, str(value)]
        options = parse(*words)
        read = How(**given(options, HOW)) if option in HOW else config_from(options)
        assert getattr(read, option.name) == value
    assert (config_from(parse()), How(**given(parse(), HOW))) == (TrainingConfig(), How())


def test_a_recipe_by_name_with_some_fields_changed() -> None:
    config = config_from(parse("--recipe", "paper", "--batch-size", "512"))
    assert config.batch_size == 512
    assert config.mixup == RECIPES["paper"].mixup


@pytest.mark.parametrize(
    ("model", "rate"),
    [
        ("convnext_small", 0.4),
        ("convnext_isotropic_base", 0.2),
        ("gelu", 0.1),
        ("convnext_xlarge", 0),  # which the paper trains on ImageNet-22K first
    ],
)
def test_the_family_has_its_own_stochastic_depth(model, rate) -> None:
    parsed = cli.parse(["train", model, "--output", "o", "--recipe", "paper"])
    assert config_from(parsed).drop_path_rate == rate


def test_a_model_of_the_family_has_its_layer_scale() -> None:
    data, _ = load_data("synthetic")
    for name, blocks in (("convnext_tiny", 18), ("convnext_isotropic_small", 0)):
        options = cli.parse(["train", name, "--output", "out"])
        with torch.device("meta"):
            model = build(options, data, TrainingConfig())
        gammas = [key for key in model.state_dict() if key.endswith("gamma")]
        assert len(gammas) == blocks


def test_a_step_trains_and_resumes(tmp_path, told) -> None:
    words = ["train", "resnet", *SMALL, "--output", tmp_path, "--tensorboard"]
    out = told(*words).out
    assert "% of 512 test images" in out
    assert f"weights: {tmp_path / 'final.safetensors'}" in out
    assert list((tmp_path / "tensorboard").glob("events.*"))
    weights = (tmp_path / "final.safetensors").read_bytes()
    checkpoints = {path: path.read_bytes() for path in tmp_path.glob("*.pt")}
    assert "(--resume)" in told(*words, code=2).err  # it would begin anew
    told(*words, "--resume")
    assert (tmp_path / "final.safetensors").read_bytes() == weights
    error = told(*words, "--resume", "--batch-size", "16", code=2).err
    assert "of another recipe (batch_size: 32, now 16); choose another output folder, or" in error
    assert error.count("\n") == 1
    assert (tmp_path / "final.safetensors").read_bytes() == weights
    assert checkpoints == {path: path.read_bytes() for path in tmp_path.glob("*.pt")}


@pytest.mark.slow
def test_finetuning_begins_with_given_weights_and_a_small_head(tmp_path, told) -> None:
    torch.manual_seed(0)
    model = convnext_tiny(num_classes=7, in_channels=1)
    torch.save({"model": model.state_dict()}, tmp_path / "official.pth")
    arguments = ["train", "convnext_tiny", *SMALL, "--recipe", "finetune", "--resolution", "32"]
    arguments += ["--micro-batch-size", "0", "--learning-rate", "1e-12"]
    arguments += ["--pretrained", str(tmp_path / "official.pth"), "--output", str(tmp_path / "out")]
    assert "no head for 4 classes: it starts afresh\n" in told(*arguments).err
    weights = load_file(tmp_path / "out" / "final.safetensors")
    name = "stages.2.4.pwconv1.weight"
    assert torch.allclose(weights[name], model.state_dict()[name], atol=1e-6)
    assert weights["head.weight"].shape == (4, 768)
    assert weights["head.weight"].std() < 1e-4
