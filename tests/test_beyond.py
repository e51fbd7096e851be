"""Beyond the paper: one decision taken out, steps of one's own, and budgets."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest
import torch
from scipy import stats
from studies import plan, put, table_of, torch_macs
from timm.layers.grn import GlobalResponseNorm

from convnext_steps import (
    Network,
    count_flops,
    plot_trajectory,
    roadmap,
    run_study,
    scaled,
    step_diff,
)
from convnext_steps.course.probe_pictures import draw_budget
from convnext_steps.errors import StudyError
from convnext_steps.measure.compare import compare_counts
from convnext_steps.models.roadmap import add_step
from convnext_steps.study.probes import budget_gains, likeness, planned_results, trends

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "16_bring_your_own_step.ipynb"

# By hand from the paper's README: what each field of the finished network was before its step.
BEFORE = {
    "without_stage_ratio": {"depths": (3, 4, 6, 3)},
    "without_patchify": {"stem": "resnet"},
    "without_depthwise": {"depthwise": False},
    "without_width": {"width": 64},
    "without_inverted": {"layout": "bottleneck"},
    "without_move_up": {"layout": "inverted"},
    "without_kernel_7": {"kernel_size": 3},
    "without_gelu": {"activation": "relu"},
    "without_fewer_activations": {"activations_per_block": 3},
    "without_fewer_norms": {"norms_per_block": 3},
    "without_layer_norm": {"norm": "batch"},
    "without_separate_downsampling": {"downsampling": "in_block"},
}


def notebooks_step() -> dict:
    """The layer and the decision, as the notebook defines them."""
    names: dict = {"__name__": __name__}  # where a dataclass looks for its module
    cells = ["".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text())["cells"]]
    for text in ("from torch import nn", "class GlobalResponseNorm", "add_step("):
        (source,) = [cell for cell in cells if text in cell]
        exec("\n".join(line for line in source.splitlines() if line[:1] != "%"), names)
    return names


# --- leave one out -------------------------------------------------------------------------------


def test_each_decision_is_taken_out_of_the_finished_network_alone() -> None:
    steps = dict(roadmap("leave_one_out"))
    finished = steps.pop("separate_downsampling")
    assert finished.design == roadmap("tiny")["separate_downsampling"].design
    assert finished.parent is None
    assert list(steps) == list(BEFORE)
    for name, step in steps.items():
        assert (step.parent, step.regime) == ("separate_downsampling", "leave_one_out")
        assert asdict(step.design) == asdict(finished.design) | BEFORE[name]
        assert dict(step.changes) == BEFORE[name]
        assert set(step_diff(finished, step).fields) == set(BEFORE[name])
        assert step.paper.top1_mean is None
        assert step.claim == f"{step.title}: not in the paper"


@pytest.mark.parametrize("name", BEFORE)
def test_what_is_left_is_built_and_counted_as_torch_does(name) -> None:
    (run,) = plan("standard_quarter", "leave_one_out", [name])
    model = Network(run.design, num_classes=10, in_channels=1).eval()
    assert model(torch.zeros(1, 1, 32, 32)).shape == (1, 10)
    assert count_flops(model, 32).conv_linear == torch_macs(model, 32, 1)


def test_the_figure_of_leave_one_out_has_nothing_to_quote(tmp_path) -> None:
    for run in plan("quick", "leave_one_out", ["separate_downsampling", "without_gelu"]):
        put(run, tmp_path, 80 + len(run.step))
    (ours,) = plot_trajectory(table_of(tmp_path, "quick", "leave_one_out")).axes
    bars = [bar.get_x() + bar.get_width() for bar in ours.patches if bar.get_width()]
    assert bars == pytest.approx([101, 92])
    assert ours.get_yticklabels()[8].get_text() == "without ReLU -> GELU"
    low, high = sorted(ours.get_ylim())
    assert all(low < text.get_position()[1] < high for text in ours.texts)


# --- a step of one's own -------------------------------------------------------------------------


@pytest.mark.parametrize("channels_last", [False, True])
def test_global_response_norm_is_timms(own_steps, channels_last) -> None:
    torch.manual_seed(0)
    ours = notebooks_step()["GlobalResponseNorm"](6)
    theirs = GlobalResponseNorm(6, channels_last=channels_last)
    images = torch.randn(2, 6, 5, 4)
    assert torch.equal(ours(images), images)  # both begin as the identity
    for parameter, other in ((ours.gamma, theirs.weight), (ours.beta, theirs.bias)):
        torch.nn.init.normal_(parameter)
        other.data = parameter.data
    expected = theirs(images.movedim(1, -1)).movedim(-1, 1) if channels_last else theirs(images)
    torch.testing.assert_close(ours(images), expected)


def test_an_own_step_is_the_parents_network_with_its_layer(own_steps) -> None:
    step = notebooks_step()["step"]
    parent = roadmap()["separate_downsampling"]
    assert list(roadmap())[-1] == "response_norm"
    assert roadmap()["response_norm"] is step
    diff = step_diff("separate_downsampling", "response_norm")
    assert diff.fields == {"response_norm": (False, True)}
    assert diff.modules.count("+        (1): GlobalResponseNorm()") == 1
    assert str(step_diff(parent, step)) == str(diff)
    ours, theirs = (count_flops(Network(scaled(s.design, width=1 / 8))) for s in (step, parent))
    assert ours.conv_linear == theirs.conv_linear
    hidden = sum(4 * 12 * 2**stage * depth for stage, depth in enumerate((3, 3, 9, 3)))
    assert ours.params == theirs.params + 2 * hidden
    assert list(compare_counts([step])["printed"]) == ["-"]


def test_an_own_step_begins_with_its_parents_weights_and_output(own_steps) -> None:
    step = notebooks_step()["step"]
    logits = []
    for name in (step.parent, step.name):
        (run,) = plan("quick", steps=[name])
        torch.manual_seed(0)
        model = Network(run.design, num_classes=10, in_channels=1).eval()
        logits.append(model(torch.ones(2, 1, 32, 32)))
    assert logits[0].std() > 0
    torch.testing.assert_close(logits[1], logits[0])


def test_an_own_decision_decides_the_hash(own_steps) -> None:
    names = notebooks_step()
    (on,) = plan("quick", steps=["response_norm"])
    add_step("response_norm", "separate_downsampling", "off", names["DesignV2"])
    (off,) = plan("quick", steps=["response_norm"])
    assert (on.design.response_norm, off.design.response_norm) == (True, False)
    assert on.hash != off.hash
    assert type(add_step("wider", "response_norm", "wider", width=128).design) is names["DesignV2"]


def test_an_own_step_is_in_the_figure(own_steps, tmp_path) -> None:
    (run,) = plan("smoke", steps=[notebooks_step()["step"].name])
    put(run, tmp_path, 85.0)
    ours, paper = plot_trajectory(table_of(tmp_path, "smoke")).axes
    assert ours.get_yticklabels()[-1].get_text() == "GRN"
    (bar,) = [bar for bar in ours.patches if bar.get_width()]
    assert bar.get_x() + bar.get_width() == pytest.approx(85)
    assert len([bar for bar in paper.patches if bar.get_width()]) == 2


def test_a_study_of_several_processes_needs_the_file_of_an_own_step(own_steps, tmp_path) -> None:
    add_step("mine", "gelu", "mine", width=32)
    with pytest.raises(StudyError, match="do not know mine seed 0, mine seed 1: write `add_step`"):
        run_study("smoke", [0, 1], ["mine", "gelu"], tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "parent", "changes", "message"),
    [
        ("gelu", "kernel_7", {}, "already has a step 'gelu'; choose another name"),
        ("mine", "kernel_6", {}, "unknown step 'kernel_6'"),
        ("mine", "kernel_7", {"regime": "tinny"}, "unknown regime 'tinny'"),
        ("mine", "gelu", {"kernelsize": 5}, "unknown field 'kernelsize'; did you mean 'kernel_s"),
        ("mine", "gelu", {"kernel_size": 4}, "kernel_size is 4"),
        *(
            (path, "gelu", {"width": 32}, "it must be of letters, digits")
            for path in ("../../evil", "..", "", "/abs", "a\nb", "a b")
        ),
    ],
)
def test_a_wrong_own_step_is_refused(own_steps, name, parent, changes, message) -> None:
    before = list(roadmap())
    with pytest.raises(ValueError, match=message):
        add_step(name, parent, "mine", **changes)
    assert list(roadmap()) == before


# --- budgets -------------------------------------------------------------------------------------


SHALLOW = ("shallow_sixteenth", "shallow_quarter", "shallow")


def studies(tmp_path, slope: float, seeds=range(3)) -> list[pd.DataFrame]:
    """gelu gains about `slope` for every fourfold, fewer_activations nothing but noise."""
    noise = {"gelu": [0.1, -0.2, 0.05], "fewer_activations": [-0.1, 0.1, 0.2]}
    for fourfolds, name in enumerate(SHALLOW):
        for run in plan(name, steps=["kernel_7", "gelu", "fewer_activations"], seeds=seeds):
            gain = 0.0
            if run.step != "kernel_7":
                gain = (slope + noise[run.step][run.seed]) * fourfolds
            put(run, tmp_path, 80 + gain)
    return [planned_results(name, tmp_path, seeds) for name in SHALLOW]


def test_gains_over_budgets_have_scipys_interval_of_the_seeds_slopes(tmp_path, caplog) -> None:
    budget = budget_gains(studies(tmp_path, slope=2.0))
    assert "shallow: 9 of 51 results; make them with" in caplog.text
    gelu = budget[budget["step"] == "gelu"]
    assert set(gelu["images"]) == {7_500, 30_000, 120_000}
    assert set(gelu["depth"]) == {6}
    table = trends(budget).set_index("step")
    test = stats.ttest_1samp([2.1, 1.8, 2.05], 0)
    low, high = test.confidence_interval(0.95)
    assert table.loc["gelu", "n"] == 3
    assert table.loc["gelu", "slope"] == pytest.approx((low + high) / 2)
    assert table.loc["gelu", "p"] == pytest.approx(test.pvalue)
    assert table.loc["gelu", "margin"] == pytest.approx((high - low) / 2)
    assert table.loc["gelu", "verdict"] == "grows"
    assert table.loc["fewer_activations", "verdict"] == "within noise"
    assert table.loc["gelu", "paper_gain"] == pytest.approx(0.05)


def test_a_gain_that_falls_shrinks_and_one_budget_is_too_few(tmp_path) -> None:
    budget = budget_gains(studies(tmp_path, slope=-2.0))
    assert trends(budget).set_index("step").loc["gelu", "verdict"] == "shrinks"
    one = trends(budget[budget["images"] == 7_500])
    assert set(one["verdict"]) == {"too few seeds"}


def test_likeness_is_one_where_the_gains_are_the_papers(tmp_path) -> None:
    for sign, name in ((1, "shallow"), (-1, "standard")):
        for run in plan(name):
            put(run, tmp_path, 80 + sign * roadmap()[run.step].paper.top1_mean / 10)
    both = [planned_results(name, tmp_path) for name in ("shallow", "standard")]
    table = likeness(budget_gains(both)).set_index("depth")
    assert list(table["steps"]) == [15, 15]
    assert table.loc[6, "correlation"] == pytest.approx(1, abs=0.01)
    assert table.loc[18, "correlation"] == pytest.approx(-1, abs=0.01)


def test_the_budget_figure_shows_every_gain_and_the_papers(tmp_path) -> None:
    budget = budget_gains(studies(tmp_path, slope=1.0))
    axes = {panel.get_title(): panel for panel in draw_budget(budget).figure.axes}
    assert len(axes) == 15
    dots, means, _, paper = axes["ReLU -> GELU"].lines
    assert sorted(dots.get_ydata()) == sorted(budget[budget["step"] == "gelu"]["gain"])
    assert list(means.get_ydata()) == pytest.approx([k * (1 - 0.05 / 3) for k in range(3)])
    assert paper.get_ydata()[0] == pytest.approx(0.05)
    empty = likeness(budget_gains([table_of(tmp_path / "nowhere")]))
    assert empty.empty
    assert math.isnan(trends(budget[:2])["slope"].iloc[0])
