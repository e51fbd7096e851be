"""Timing: what is counted and paired; no test asserts a time."""

import json

import pytest
import torch
from studies import plan
from torch import nn

from convnext_steps import cli
from convnext_steps.cli.bench import work_asked_for
from convnext_steps.measure import speed
from convnext_steps.measure.roofline import layers, measure_layers, memory_rate
from convnext_steps.measure.speed import Speed, Work, _rate, measure_speeds, ratio, spare_threads
from convnext_steps.study.cost import measure_costs, plot_costs, plot_roofline


class Logged(nn.Module):
    """Notes each of its calls: name, mode, whether gradients are on, and the type it computes."""

    def __init__(self, name: str, log: list) -> None:
        super().__init__()
        self.convolution, self.linear = nn.Conv2d(1, 4, 16), nn.Linear(4, 4)
        self.name, self.log = name, log

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.linear(self.convolution(x).flatten(1))
        if len(x) == 2:  # not the one image that is counted
            self.log.append((self.name, self.training, torch.is_grad_enabled(), x.dtype))
        return x


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_networks_take_turns_at_the_same_work(training, precision) -> None:
    log: list = []
    models = {name: Logged(name, log) for name in "ab"}
    before = models["a"].linear.weight.clone()
    work = Work(16, 2, training, precision, 1, 4)
    speeds = measure_speeds(models, work, rounds=3, warmup=2)
    assert "".join(entry[0] for entry in log[-8:]) == 2 * "aabb"
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    assert {entry[1:] for entry in log} == {(training, training, kind)}
    assert all(len(speed.seconds) == 3 for speed in speeds.values())
    assert torch.equal(models["a"].linear.weight, before) == (not training)


def test_the_share_of_the_peak_counts_three_passes_of_a_training_step() -> None:
    work = Work(16, 2, in_channels=1, num_classes=4)
    (speed,) = measure_speeds({"a": Logged("a", [])}, work, rounds=3).values()
    macs = 2 * (4 * 256 + 16)
    operations_per_second = 3 * 2 * macs / (speed.milliseconds / 1000)
    rate = operations_per_second / speed.share_of_peak
    assert rate == pytest.approx(_rate("fp32", torch.get_num_threads(), "cpu"))
    assert speed.images_per_second == pytest.approx(2000 / speed.milliseconds)


def test_the_ratio_is_paired_by_round() -> None:
    one, other = Speed((1.0, 2.0, 4.0), 1, None, 1), Speed((2.0, 6.0, 4.0), 1, None, 1)
    paired = ratio(one, other)
    assert paired == {"low": 1, "median": 2, "high": 3}


@pytest.mark.parametrize(
    ("seconds", "spare"),
    [
        ({4: 1.0, 2: 2.0, 1: 4.0}, 4),  # nothing else is running
        ({4: 1.9, 2: 2.0, 1: 4.0}, 2),
        ({4: 5.0, 2: 4.2, 1: 4.0}, 1),  # one core is left
    ],
)
def test_threads_that_do_not_pay_off_are_left_to_others(monkeypatch, seconds, spare) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(speed, "time_once", lambda step: seconds[torch.get_num_threads()])
    assert spare_threads(4) == spare
    assert torch.get_num_threads() == before


def test_layers_are_counted_by_hand() -> None:
    points = {point.name: point for point in measure_layers(8, side=6, batch_size=2, rounds=1)}
    assert list(points) == list(layers(8))
    pixels, batch = 36, 2
    assert points["depthwise 7x7"].operations == 2 * 49 * 8 * pixels * batch
    assert points["dense 3x3"].operations == 2 * 9 * 64 * pixels * batch
    assert points["1x1 to 4x channels"].bytes == 4 * (5 * 8 * pixels * batch + 8 * 32 + 32)
    assert points["LayerNorm"].operations == 5 * 8 * pixels * batch
    assert memory_rate(1) > 0


def test_costs_of_a_study_and_their_figures() -> None:
    costs = measure_costs(plan("smoke"), rounds=1)
    assert list(costs["step"]) == ["resnet", "separate_downsampling"]
    assert (costs["milliseconds"] > 0).all()
    accuracy = costs.set_index("step")["share_of_peak"] * 0 + 80
    left, right = plot_costs(costs, accuracy).axes
    assert "multiply-adds" in left.get_xlabel()
    assert "milliseconds" in right.get_xlabel()
    (roof,) = plot_roofline(measure_layers(8, 6, 2, 1), 1e11, 1e10).axes
    assert "per byte" in roof.get_xlabel()


def test_bench_prints_a_ratio_and_writes_it_down(told, tmp_path) -> None:
    output = tmp_path / "bench.json"
    arguments = ["bench", "resnet", "--study", "smoke", "--against", "pytorch", "--rounds", "2"]
    out = told(*arguments, "--output", output).out
    assert "resnet, training, fp32, batch 32, 32x32" in out
    assert "x as fast" in out
    written = json.loads(output.read_text())
    assert written["figures"]["ratio"]["low"] <= written["figures"]["ratio"]["high"]
    assert written["environment"]["packages"]["torch"]


@pytest.mark.parametrize("against", ["torchvision", "timm"])
def test_bench_against_a_public_peer(told, against) -> None:
    words = ["bench", "convnext_tiny", "--resolution", "32", "--batch-size", "2", "--inference"]
    assert against in told(*words, "--rounds", "2", "--against", against).out


@pytest.mark.parametrize(("given", "precision"), [([], "bf16"), (["--precision", "fp32"], "fp32")])
def test_a_study_is_timed_in_its_own_precision(given, precision) -> None:
    words = ["bench", "gelu", "--study", "smoke", "--set", "recipe.precision=bf16", *given]
    assert work_asked_for(cli.parse(words)).precision == precision
