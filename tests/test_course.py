"""What the notebooks of the course share: counted, drawn, checked and stripped of solutions."""

import json
import warnings
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import torch
from studies import plan, the_study
from torch import nn

from convnext_steps import ConvNeXt, Design, Network, count_flops, roadmap, scaled
from convnext_steps.course import (
    blocks,
    drawing,
    exercises,
    family,
    illustrations,
    lesson,
    predict,
    receptive_field,
    recipes,
    seeds,
    stems,
    student,
    trial,
    whole,
)
from convnext_steps.course import quiz as quizzes
from convnext_steps.course.executed import all_notebooks
from convnext_steps.course.exercises import check
from convnext_steps.course.sections import PARTS, SECTIONS, find_section
from convnext_steps.execution.notebook import NOTEBOOKS
from convnext_steps.models.layers import LayerNorm2d
from convnext_steps.models.paper import published_roadmap
from convnext_steps.study import loading
from convnext_steps.training.config import RECIPES
from convnext_steps.training.data import load_data

STEPS = roadmap("tiny")


@pytest.mark.parametrize("regime", ["tiny", "base"])
def test_the_formula_gives_the_authors_counts(regime) -> None:
    for step in roadmap(regime).values():
        assert predict.multiply_adds(step.design) == step.paper.macs, step.name


@pytest.mark.parametrize("name", ["resnet", "inverted", "separate_downsampling"])
def test_the_formula_holds_for_small_networks(name) -> None:
    small = scaled(STEPS[name].design, width=1 / 8, stem_stride=2)
    counted = count_flops(Network(small, num_classes=10), resolution=64).conv_linear
    assert predict.multiply_adds(small, resolution=64, num_classes=10) == counted


def test_a_prediction_stands_beside_formula_count_and_paper() -> None:
    table = predict.predict_then_measure({"width": 5.0, "layer_norm": 0.0})
    assert list(table.loc["increase width"]) == ["5.00", "5.268", "5.268", "5.27"]
    assert list(table.loc["BN -> LN"]) == ["-", "4.146", "4.146", "4.46*"]


def test_the_drawn_blocks_are_those_of_the_papers_figure_4() -> None:
    resnet = blocks.block_of(STEPS["resnet"].design)
    assert [layer.label for layer in resnet.branch if layer.kind == "dense"] == [
        "1×1, 256 → 64",
        "3×3, 64 → 64",
        "1×1, 64 → 256",
    ]
    convnext = blocks.block_of(STEPS["separate_downsampling"].design)
    assert str(convnext) == (
        "96 channels; 7×7 depthwise, 96; LayerNorm; 1×1, 96 → 384; GELU; 1×1, 384 → 96; "
        "added to the shortcut"
    )
    assert convnext.weights == 49 * 96 + 2 * 96 * 384


def test_the_block_that_halves_the_resolution_is_drawn_with_what_stands_before_it() -> None:
    before = blocks.block_of(STEPS["layer_norm"].design, stage=1, index=0)
    assert "1×1, 96 → 192, stride 2 and LayerNorm" in str(before)
    after = blocks.block_of(STEPS["separate_downsampling"].design, stage=1, index=0)
    assert [layer.label for layer in after.leading] == ["LayerNorm", "2×2, 96 → 192, stride 2"]
    assert after.shortcut == []
    assert blocks.block_of(Design(depths=(1, 1, 1, 1)), stage=2).shortcut


def test_a_drawing_has_a_text_that_stands_for_it() -> None:
    picture = drawing.draw_blocks({"one <step>": STEPS["resnet"].design})
    element = ET.fromstring(picture.svg())
    assert element.get("role") == "img"
    assert element.get("aria-label") == picture.alternative
    assert "3×3, 64 → 64; BatchNorm; ReLU" in picture.alternative
    assert 'alt="one &lt;step&gt;: 256 channels' in picture._repr_html_()
    assert ET.fromstring(drawing.draw_blocks({"": STEPS["gelu"].design}).svg()).tag.endswith("svg")


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_groups_connect_the_blocks_of_a_block_diagonal_matrix(groups) -> None:
    layer = nn.Conv2d(8, 8, 3, padding=1, groups=groups)
    expected = torch.block_diag(*[torch.ones(8 // groups, 8 // groups)] * groups)
    assert torch.equal(illustrations.connections(layer, 8).float(), expected)


def labelled(picture) -> bool:
    """Whether every axis that is drawn says what it is."""
    drawn = [each for each in picture.figure.axes if each.axison or each.name == "3d"]
    axes = [each for each in drawn if each.get_label() != "<colorbar>"]
    assert all(each.get_ylabel() for each in drawn if each not in axes)
    return all(each.get_xlabel() for each in axes) and bool(axes[0].get_ylabel())


def test_connections_are_drawn_with_labels() -> None:
    layers = {"dense": nn.Conv2d(4, 4, 1), "depthwise": nn.Conv2d(4, 4, 1, groups=4)}
    picture = illustrations.draw_connections(layers, channels=4)
    assert "dense: 16 of 16 paths; depthwise: 4 of 16 paths" in picture.alternative
    assert labelled(picture)


def test_activations_are_drawn_with_their_slopes() -> None:
    picture = illustrations.draw_activations({"ReLU": nn.ReLU(), "GELU": nn.GELU()})
    assert "ReLU: from 0.00 to 4.00; GELU: from -0.17 to 4.00" in picture.alternative
    relu, gelu = (line.get_ydata() for line in picture.figure.axes[1].lines)
    assert {float(slope) for slope in relu} == {0, 1}
    assert max(gelu) > 1
    assert labelled(picture)


def test_convnext_stands_beside_swin() -> None:
    """Table 1: 81.3 and 83.5 for Swin, 82.1 and 83.8 for ConvNeXt."""
    table = family.beside_swin()
    assert list(table.index) == ["Swin-T", "ConvNeXt-T", "Swin-B", "ConvNeXt-B"]
    assert list(table["top-1 accuracy %"]) == [81.3, 82.1, 83.5, 83.8]
    assert list(table["G multiply-adds"]) == [4.5, 4.46, 15.43, 15.35]


def add(a: int, b: int) -> object:
    return a + b


def unanswered(*_: int) -> object:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("answer", "expected", "points", "words"),
    [
        (add, 3, 1, "Right"),
        (add, 3.001, 1, "Right"),  # rounded
        (add, 3.01, 0, "your answer gives `3`. Add them."),
        (add, 4, 0, "For `1, 2`: your answer gives `3`. Add them."),
        (add, torch.tensor(3), 0, "Add them."),
        (lambda a, b: torch.tensor([a, b]), torch.tensor([1, 2]), 1, "Right"),
        (lambda a, b: torch.tensor([a]), torch.tensor([1, 1]), 0, "gives `a tensor of (1,)`"),
        (lambda a, b: torch.ones(3), torch.ones(2), 0, "gives `a tensor of (3,)`"),
        (lambda a, b: torch.ones(2).double(), torch.ones(2), 1, "Right"),
        (lambda a, b: torch.tensor([1.0, 2.01]), torch.tensor([1.0, 2.0]), 0, "Add them."),
        (lambda a, b: (a, b / 3), (1, 0.6667), 1, "Right"),
        (lambda a, b: (a,), (1, 2), 0, "Add them."),
        (lambda a: a, 3, 0, "TypeError"),
        (lambda a, b: 1 / 0, 3, 0, "ZeroDivisionError: division by zero"),
        (unanswered, 3, 0, "Not answered yet"),
        (lambda a, b: ..., 3, 0, "Not answered yet"),
        (lambda a, b: None, 3, 0, "Not answered yet"),
    ],
)
def test_a_check_says_right_or_what_to_look_at(
    answer, expected, points, words, monkeypatch
) -> None:
    monkeypatch.setattr(exercises, "TRIED", {})
    verdict = check(answer, {(1, 2): expected}, "Add them.")
    assert words in verdict._repr_markdown_()
    assert float(repr(verdict)) == verdict.points == points  # what nbgrader reads


def test_a_check_shows_what_it_expects_from_the_second_different_try_on(monkeypatch) -> None:
    monkeypatch.setattr(exercises, "TRIED", {})
    cases = {(1, 2): 3, (5, 5): 10}
    for _ in range(2):  # running the cell again is no new try
        assert "is expected" not in check(lambda a, b: 7, cases, "Add them.").message
    assert "is expected" not in check(lambda a, b: 7, cases, "Another exercise.").message
    second = check(lambda a, b: 3, cases, "Add them.").message
    assert (
        second == "**Not yet.** For `5, 5`: your answer gives `3`, but `10` is expected. Add them."
    )
    assert check(add, cases, "Add them.").points == 1


SOLVED = """def double(x):
    ### BEGIN SOLUTION
    y = 2 * x
    return y
    ### END SOLUTION

"""


def test_a_student_version_has_nbgraders_stub_for_each_solution(tmp_path) -> None:
    meta = {"nbgrader": {"solution": True}}
    cells = [
        nbformat.v4.new_code_cell(SOLVED, metadata=meta),
        nbformat.v4.new_markdown_cell("It is wider.", metadata=meta),
        nbformat.v4.new_code_cell("double(2)"),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "mine.ipynb")
    (written,) = student.write_student_versions(
        str(tmp_path / "mine.ipynb"), tmp_path / "theirs.ipynb"
    )
    stub = "def double(x):\n    # YOUR CODE HERE\n    raise NotImplementedError()\n\n"
    sources = [cell.source for cell in nbformat.read(written, as_version=4).cells]
    assert sources == [stub, "YOUR ANSWER HERE", "double(2)"]


@pytest.mark.parametrize("lost", ["    ### BEGIN SOLUTION\n", "    ### END SOLUTION\n"])
def test_a_solution_without_its_markers_is_refused(lost) -> None:
    with pytest.raises(ValueError, match="BEGIN SOLUTION"):
        student.without_solution(SOLVED.replace(lost, ""))


def test_the_command_writes_student_versions(tmp_path, told) -> None:
    target = tmp_path / "mine.ipynb"
    told("student", "03_resnextify", target)
    text = target.read_text()
    assert json.loads(text)["nbformat"] == 4
    assert "SOLUTION" not in text
    assert text.count("raise NotImplementedError()") == 3
    assert "choose another place" in told("student", "03_resnextify", target, code=2).err
    assert target.read_text() == text
    told("student", "nothing", tmp_path / "new.ipynb", code=2)
    told("student", "course", tmp_path / "course")
    unsolved = Path("13_another_data_set.ipynb")  # which has no exercise
    assert (tmp_path / "course" / unsolved).read_bytes() == (NOTEBOOKS / unsolved).read_bytes()
    handed_out = {path.name for path in (tmp_path / "course").iterdir()}
    assert handed_out == {f"{name}.ipynb" for name in all_notebooks()} | {"glossary.md"}


def test_the_course_is_copied_and_nothing_is_overwritten(tmp_path, told) -> None:
    folder = tmp_path / "course"
    told("notebooks", folder)
    copied = {path.name for path in folder.iterdir()}
    assert copied == {f"{name}.ipynb" for name in all_notebooks()} | {"README.md", "glossary.md"}
    (folder / "README.md").unlink()
    (folder / "00_overview.ipynb").write_text("mine", encoding="utf-8")
    line = f"convnext-steps: {folder / '00_overview.ipynb'} exists; choose another place\n"
    assert told("notebooks", folder, code=2).err == line
    assert (folder / "00_overview.ipynb").read_text(encoding="utf-8") == "mine"
    assert not (folder / "README.md").exists()


def test_sections_follow_the_roadmap_and_link_to_their_neighbours() -> None:
    taught = [step.name for section in SECTIONS for step in section.steps()]
    assert taught == list(STEPS)
    assert [int(section.notebook[:2]) for section in SECTIONS] == list(range(len(SECTIONS)))
    assert list(dict.fromkeys(section.part for section in SECTIONS)) == list(PARTS)
    assert find_section("2.3").names() == ["patchify", "depthwise", "width"]
    assert find_section("2.1").names() == ["resnet_original", "resnet"]
    with pytest.raises(ValueError, match="choose from 2"):
        find_section("2.7")


def results_of(runs: list, accuracy: float = 80.0) -> pd.DataFrame:
    """A table as `load_results` makes it."""
    rows = []
    for run in runs:
        macs = predict.multiply_adds(run.design, 32, 10)
        row = {"study": run.study, "step": run.step, "seed": run.seed}
        row |= {"accuracy": accuracy, "correct": round(100 * accuracy)}
        rows.append({**row, "macs": macs, "hash": run.hash})
    table = pd.DataFrame(rows)
    table.attrs["study"] = the_study()
    return table


def test_stored_results_are_the_readers_own_then_the_published(tmp_path, monkeypatch) -> None:
    found: dict = {}
    empty = pd.DataFrame(columns=["study", "step", "seed", "hash"])
    monkeypatch.setattr(loading, "all_results", lambda folder: found.get(folder, empty))

    def accuracies(**options) -> set[float]:
        return set(loading.stored_results("quick", tmp_path, **options).get("accuracy", ()))

    assert accuracies() == set()
    found[loading.PROJECT_RESULTS] = results_of(plan("quick"), 1)
    assert accuracies() == {1}
    found[tmp_path] = results_of(plan("standard"), 2)
    assert accuracies() == {2}
    own = results_of(plan("quick", steps=["gelu"]), 3)
    found[tmp_path] = pd.concat([found[tmp_path], own])
    assert accuracies() == {3}
    assert accuracies(steps=["width"]) == {2}


def test_a_section_is_read_from_its_results() -> None:
    better = {"patchify": 80.0, "depthwise": 79.0, "width": 82.0}
    runs = plan("quick", steps=list(better), seeds=range(10))
    results = results_of(runs)
    noise = 0.01 * results["seed"]
    results = with_accuracy(results, results["step"].map(better) + noise)
    assert lesson.section_accuracies(results, "2.3").loc["increase width", "ours"] == "82.05 ± 0.03"
    gains = lesson.section_gains(results, "2.3")
    assert gains.loc["depthwise conv", "paper"] == "-1.23 ± 0.38"
    base = results_of(plan("quick", "base", ["depthwise"]))
    base.attrs["study"] = the_study("quick", "base")
    paper = published_roadmap("base")["depthwise"].top1_mean
    assert lesson.section_accuracies(base, "2.3").loc["depthwise conv", "paper"] == f"{paper:.2f}"
    assert list(gains["ours"].str[:5]) == ["-1.00", "+3.00"]
    text = lesson.reading(results, "2.3")
    assert "Results of the study quick, seeds 0, 1, 2" in text
    assert "in the paper -1.23 ± 0.38, down. Ours: down, as in the paper." in text
    few = lesson.reading(results[results["seed"] < 1], "2.3")
    assert "-1.00 points over 1 seed; in the paper" in few
    assert "No verdict here: too few seeds (1 of 10)." in few
    assert "no result here; in the paper +2.22" in lesson.reading(results.iloc[:0], "2.3")


def test_the_trajectory_so_far_leaves_the_sections_own_bars_open() -> None:
    results = results_of(plan("quick"))
    asked = lesson.trajectory(results, until="2.3", ask=True)
    answered = lesson.trajectory(results, until="2.3")
    assert "depthwise conv: left open" in asked.alternative
    assert "depthwise conv 80.0 % (78.3 %)" in answered.alternative
    assert "inverting" not in answered.alternative
    texts = [[text.get_text() for text in axes.texts] for axes in asked.figure.axes]
    assert [text.count("?") for text in texts] == [2, 2]
    assert not any("79.2" in each or "80.5" in each for text in texts for each in text)
    assert all(axes.get_xlabel() for axes in answered.figure.axes)
    nothing = lesson.trajectory(results.iloc[:0], until="2.1", ask=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "left open" in nothing.svg()
    missing = lesson.trajectory(results[results["step"] != "gelu"])
    assert "ReLU -> GELU no result (80.6 %)" in missing.alternative


def with_accuracy(results: pd.DataFrame, accuracy: "pd.Series[float]") -> pd.DataFrame:
    return results.assign(accuracy=accuracy, correct=(100 * accuracy).round())


def as_in_the_paper(seeds: int, factor: float = 1) -> pd.DataFrame:
    """Results whose gains are the paper's, or a multiple of them, with every seed."""
    results = results_of(plan("quick", seeds=range(seeds)))
    paper = pd.Series({name: step.paper.top1_mean for name, step in STEPS.items()})
    return with_accuracy(results, 50 + factor * (results["step"].map(paper) - 70))


def test_the_whole_trajectory_is_held_against_the_papers() -> None:
    same = whole.agreement(as_in_the_paper(10))
    assert set(same["direction"]) == {"same"}
    assert dict(same["finding"].value_counts()) == {"holds": 12, "only here": 4}
    opposite = whole.agreement(as_in_the_paper(10, -1))
    assert set(opposite["direction"]) == {"opposite"}
    assert dict(opposite["finding"].value_counts()) == {"reversed": 12, "only here": 4}
    flat = whole.agreement(as_in_the_paper(10, 0))
    assert set(flat["direction"]) == {"none"}
    assert dict(flat["finding"].value_counts()) == {"not found here": 12, "noise in both": 4}
    assert set(whole.agreement(as_in_the_paper(9))["finding"]) == {"undecided"}
    beyond = whole.agreement(loading.load_results("standard_quarter_leave_one_out", "nowhere"))
    assert set(beyond["direction"]) == set(beyond["finding"]) == {"-"}
    counted = whole.predict_agreement(as_in_the_paper(2), guess=9)
    assert list(counted["same direction"]) == ["9", "8", "15", "16"]  # 15: all but GELU


def test_the_whole_trajectory_is_read_in_words_and_figures() -> None:
    text = whole.reading(as_in_the_paper(10, -1))
    assert "0 of 16 mean gains have the paper's sign" in text
    assert '**Only here:** "patchify" stem, ReLU -> GELU, fewer norms, BN -> LN.' in text
    few = whole.reading(as_in_the_paper(2))
    assert "fall below 0.5, and 16 comparisons need 10 seeds" in few
    assert "No results are stored" in whole.reading(as_in_the_paper(2).iloc[:0])
    gains = whole.draw_gains(as_in_the_paper(2))
    assert "depthwise conv -1.23 (-1.23)" in gains.alternative
    assert (
        "stage ratio no result (+0.54)" in whole.draw_gains(as_in_the_paper(1).iloc[:0]).alternative
    )
    drawn = seeds.draw_seeds(16)
    assert "needs 10 seeds" in drawn.alternative
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in drawn.figure.axes)


def test_gains_of_several_studies_stand_side_by_side() -> None:
    table = whole.elsewhere(["standard_quarter", "smoke"])
    lines = (loading.PROJECT_RESULTS / "standard_quarter" / "runs.jsonl").read_text().splitlines()
    stored = [json.loads(line) for line in lines]

    def accuracy(step: str) -> float:
        found = [result["accuracy"] for result in stored if result["step"] == step]
        return sum(found) / len(found)

    gain = table.loc["kernel size -> 9"]
    assert gain["standard_quarter"] == pytest.approx(accuracy("kernel_9") - accuracy("move_up"))
    assert gain["paper"] == pytest.approx(80.57 - 79.92)
    assert table["smoke"].isna().all()  # nothing is stored, and nothing is made up


def test_all_steps_or_those_of_a_section_are_trained_when_asked_to(tmp_path, monkeypatch) -> None:
    asked: list = []
    monkeypatch.setattr(lesson, "run_study", lambda study, steps, results: asked.append(steps))
    lesson.results_of("smoke", tmp_path)
    assert not asked
    lesson.results_of("smoke", tmp_path, train=True)
    lesson.results_of("smoke", tmp_path, train=True, section="2.1")
    assert asked == [list(the_study("smoke").steps()), ["resnet_original", "resnet"]]
    with pytest.raises(ValueError, match="unknown step 'resnet'"):
        lesson.results_of("standard_quarter_leave_one_out", tmp_path, section="2.2")


@pytest.mark.parametrize(("resolution", "models", "staged"), [(224, 8, 5), (384, 5, 5)])
def test_formula_and_counter_give_the_counts_of_the_authors_models(
    resolution, models, staged
) -> None:
    table = family.predict_then_measure(resolution, {"convnext_base": 20.0})
    assert len(table) == models
    assert list(table["counted"]) == list(table["authors' model"])
    assert list(table["parameters"]) == list(table["authors' parameters"])
    assert list(table["by formula"])[:staged] == list(table["authors' model"])[:staged]
    assert set(table["by formula"][staged:]) <= {"-"}
    assert table.loc["ConvNeXt-B", "your guess"] == "20.00"


def test_layer_scale_and_stochastic_depth_are_measured_on_the_built_network() -> None:
    models = {}
    for scale in (0.0, 0.5, 1e-6):
        torch.manual_seed(0)
        options = {"dims": (4, 8, 16, 32), "in_channels": 1, "drop_path_rate": 0.5}
        models[scale] = ConvNeXt(layer_scale_init_value=scale, **options)
    sizes = {}
    for scale, model in models.items():
        torch.manual_seed(0)
        sizes[scale] = family.branch_sizes(model)
    assert len(sizes[0.0]) == 18
    assert sizes[0.5][0] == pytest.approx(0.5 * sizes[0.0][0], rel=1e-3)
    assert max(sizes[1e-6]) < 1e-5
    plain = models[0.0]
    picture = family.draw_stochastic_depth({"half": plain})
    built, drawn = (line.get_ydata() for line in picture.figure.axes[0].lines)
    assert built[0] == drawn[0] == 100
    assert built[-1] == 50
    assert abs(drawn - built).max() < 5
    assert "from 100 to 50 per cent of 18 blocks" in picture.alternative
    assert labelled(picture)
    assert labelled(family.draw_branches({"plain": plain}))


def test_the_family_is_drawn_with_the_papers_accuracies() -> None:
    picture = family.draw_family()
    assert "ImageNet-22K first, 384: T 84.1, S 85.8, B 86.8, L 87.5, XL 87.8" in picture.alternative
    assert labelled(picture)


def test_the_halves_of_a_data_set_have_half_of_the_classes_each() -> None:
    _, test = load_data("fashion_mnist")
    first, second = family.halves(test)
    assert len(first) + len(second) == len(test)
    for half, labels in ((first, range(5)), (second, range(5, 10))):
        assert half.num_classes == 5
        assert set(half.labels.tolist()) == set(range(5))
        chosen = torch.isin(test.labels, torch.tensor(list(labels)))
        assert torch.equal(half.images, test.images[chosen])


@pytest.mark.slow
def test_a_design_of_the_readers_own_is_counted_and_trained_if_asked() -> None:
    mine = replace(STEPS["depthwise"].design, depths=(1, 1, 1, 1))
    table = trial.compare_designs({"mine": mine})
    assert table.loc["mine", "G multiply-adds"] == round(predict.multiply_adds(mine) / 1e9, 3)
    trained = trial.compare_designs({"mine": mine}, train=True, study="smoke")
    assert trained.loc["mine", "accuracy %"] == round(trial.train_design(mine, "smoke"), 2)
    untrained = trial.train_design(mine, "smoke", recipe={"learning_rate": 1e-9})
    assert trained.loc["mine", "accuracy %"] > untrained


def test_a_patchify_stem_sees_patches_and_a_resnets_stem_overlaps() -> None:
    patches = stems.stem_view(STEPS["patchify"].design)
    assert [len(window) for window in patches.windows] == [4, 4, 4, 4]
    assert [window.start for window in patches.windows] == [24, 28, 32, 36]
    overlapping = stems.stem_view(STEPS["resnet"].design)  # 7 + 2 * 2 columns, 4 apart
    assert {len(window) for window in overlapping.windows} == {11}
    edge = list(stems.EDGES).index(26)  # two columns of the first patch are bright
    assert patches.responses[edge].tolist() == [0.5, 1, 1, 1]
    assert (patches.partial(), overlapping.partial()) == (1, 2)  # as notebook 02 says
    assert labelled(stems.draw_stems({"patchify": STEPS["patchify"].design}))


def test_what_a_norm_normalises_over() -> None:
    over_batch = illustrations.shared_with(nn.BatchNorm2d(illustrations.CHANNELS), (1, 2, 3))
    over_channels = illustrations.shared_with(LayerNorm2d(illustrations.CHANNELS), (1, 2, 3))
    expected = torch.zeros_like(over_batch)
    for found, index in ((over_batch, (slice(None), 2)), (over_channels, (1, slice(None), 3))):
        filled = expected.clone()
        filled[index] = True
        assert torch.equal(found, filled)
    picture = illustrations.draw_norms({"LayerNorm": LayerNorm2d(illustrations.CHANNELS)})
    assert "1 of the 4 images, all channels, 1 of the 5 positions" in picture.alternative
    assert labelled(picture)


def test_a_field_is_the_kernels_product() -> None:
    """Of two convolutions of ones, each position counts the ways from it to the middle."""
    layers = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1, bias=False) for _ in range(2)))
    for layer in layers:
        nn.init.ones_(layer.weight)
    field = receptive_field.receptive_field(layers, torch.randn(2, 1, 9, 9))
    ways = torch.tensor([0, 0, 1, 2, 3, 2, 1, 0, 0.0])
    assert torch.allclose(field, ways[:, None] * ways / 81)
    assert receptive_field.field_side(field, 1.0) == 5
    assert receptive_field.field_side(field, 0.5) == 3  # 49 of 81 ways


def test_larger_kernels_have_larger_fields() -> None:
    names = ("move_up", "kernel_11")
    designs = {name: replace(STEPS[name].design, depths=(1, 1, 1, 1)) for name in names}
    fields = [receptive_field.stage_field(design, images=1) for design in designs.values()]
    small, large = map(receptive_field.field_side, fields)
    assert small < large
    assert torch.equal(receptive_field.stage_field(designs["kernel_11"], images=1), fields[1])
    assert labelled(receptive_field.draw_fields(designs, images=1))


def test_recipes_are_drawn_from_what_trains() -> None:
    schedules = recipes.draw_schedules({"old": RECIPES["resnet_original"], "new": RECIPES["paper"]})
    rates = [line.get_ydata() for line in schedules.figure.axes[0].lines]
    assert sorted({round(rate, 6) for rate in rates[0]}) == [0.01, 0.1, 1]
    assert max(rates[1]) == pytest.approx(1, abs=0.01)
    assert labelled(schedules)
    data, _ = load_data("synthetic")
    images, labels = data[list(range(6))]
    plain = recipes.augmented(data, images, labels, {})
    assert torch.allclose(plain, (images.float() / 255 - 0.27) / 0.15)
    for fields in list(recipes.AUGMENTATIONS.values())[1:]:
        assert not torch.equal(recipes.augmented(data, images, labels, fields), plain)
    assert "CutMix" in recipes.draw_augmentations(data).alternative


QUIZZES = sorted(path.name.removesuffix(".toml") for path in quizzes.FOLDER.iterdir())


@pytest.mark.parametrize("name", QUIZZES)
def test_a_quiz_has_one_right_choice_and_a_reason_for_each(name) -> None:
    questions = quizzes.quiz(name).questions
    assert len(questions) >= 2
    for question in questions:
        assert len(question.choices) >= 3
        assert question.right in list("abcdef"[: len(question.choices)])
        texts, reasons = zip(*question.choices, strict=True)
        assert len(set(texts)) == len(texts)
        assert all(len(why.split()) >= 8 for why in reasons)


def test_the_right_choice_does_not_always_stand_at_the_same_place() -> None:
    questions = [question for name in QUIZZES for question in quizzes.quiz(name).questions]
    assert {question.right for question in questions} >= {"a", "b", "c"}


def test_a_quiz_says_nothing_before_a_choice_is_opened() -> None:
    quiz = quizzes.Quiz([quizzes.Question("Is 1 < 2?", "a", [("<yes>", "It is.")])])
    assert repr(quiz) == "1. Is 1 < 2?\n   a) <yes>"
    page = ET.fromstring(f"<div>{quiz._repr_html_()}</div>")
    (details,) = page.findall("details")
    assert "open" not in details.attrib
    assert details.find("summary").text == "<yes>"
    assert "".join(details.find("p").itertext()) == "Right. It is."
    outside = [element for element in page.iter() if element not in list(details.iter())]
    assert "It is" not in "".join(element.text or "" for element in outside)
