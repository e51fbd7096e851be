"""Plan, results, report and figure, without training."""

import importlib.metadata
import json
import pickle
import subprocess
import sys
from dataclasses import replace

import pytest
from filelock import FileLock, Timeout
from studies import plan, put, result_of, table_of, the_study

from convnext_steps import How, load_results, load_study, plot_trajectory, roadmap
from convnext_steps.device import device_name
from convnext_steps.errors import ResultError
from convnext_steps.execution import evidence, runfolder
from convnext_steps.execution import train_run as training
from convnext_steps.execution.report import GUARD, keep_study, report, show_trajectory
from convnext_steps.execution.runfolder import REJECTED, done, prepare
from convnext_steps.execution.runner import run_study
from convnext_steps.files import write_json
from convnext_steps.models.paper import published_roadmap
from convnext_steps.study.loading import of_the_study, steps_of
from convnext_steps.study.markdown import markdown_table
from convnext_steps.study.results import RESULT, all_results, checksum
from convnext_steps.study.tables import summarize
from convnext_steps.training.evaluation import Evaluation
from convnext_steps.training.stepwise import finish


def test_a_quick_study_is_the_whole_roadmap_once_a_seed() -> None:
    runs = [(run.seed, run.step) for run in plan("quick", seeds=[0, 1])]
    assert runs == [(seed, step) for seed in (0, 1) for step in roadmap("tiny")]


def test_the_hash_follows_everything_that_decides_a_result() -> None:
    (run,) = plan("quick", steps=["gelu"])
    (again,) = plan("quick", steps=["gelu"])
    assert run.hash == again.hash
    changed = [
        replace(run, design=replace(run.design, kernel_size=5)),
        replace(run, config=replace(run.config, learning_rate=1e-3)),
        replace(run, config=replace(run.config, precision="bf16")),
        replace(run, config=replace(run.config, seed=1)),
        replace(run, data=replace(run.data, images=5_000)),
        replace(run, data=replace(run.data, source="synthetic")),
    ]
    assert len({run.hash, *(other.hash for other in changed)}) == 7
    same = [
        replace(run, study="standard", step="another"),
        replace(run, how=How(processes=2, data_workers=3, fast_cpu=False)),
        replace(run, config=replace(run.config, max_epochs=4.0)),
    ]
    assert {other.hash for other in same} == {run.hash}


OWN = """
from dataclasses import dataclass
from convnext_steps import Design, add_step

@dataclass(frozen=True)
class Wide(Design):
    wide: bool = False

    def revise(self, network):
        network.note = "revised"

add_step("wide", "gelu", "wide", Wide, wide=True)
"""
READ = """
import pickle, sys
run = pickle.load(sys.stdin.buffer)
print(run.hash, type(run.design).__name__, run.build(run.load_data()[0]).note)
"""


def test_steps_of_the_same_design_share_a_run_and_have_a_row_each(tmp_path) -> None:
    study = the_study("smoke").change({"only": ["resnet", "stage_ratio"], "scale.depth": 0.25})
    first, second = study.plan()
    assert first.hash == second.hash
    put(first, tmp_path)
    found = of_the_study(all_results(tmp_path), study)
    assert list(found["step"]) == ["resnet", "stage_ratio"]
    assert list(summarize(found).set_index("step").loc[["resnet", "stage_ratio"], "seeds"]) == [
        1,
        1,
    ]


def test_a_step_that_was_trained_beside_the_chosen_ones_has_its_row(tmp_path) -> None:
    study = the_study("quick").change({"only": ["resnet"]})
    put(*study.plan(steps=["gelu"]), tmp_path)
    found = of_the_study(all_results(tmp_path), study)
    assert list(found["step"]) == ["gelu"]
    assert list(steps_of(found)) == ["resnet", "gelu"]


def test_a_decision_without_python_may_build_on_one_with(tmp_path, own_steps) -> None:
    (tmp_path / "mine.py").write_text(f"from __future__ import annotations\n{OWN}")
    text = 'base = "smoke"\n[[step]]\nname = "narrow"\nparent = "wide"\nchange = { wide = %s }\n'
    (tmp_path / "mine.toml").write_text(text % "false")
    study = load_study(tmp_path / "mine.toml", uses=tmp_path / "mine.py")
    assert vars(study.find("narrow").design)["wide"] is False
    (tmp_path / "mine.toml").write_text(text % "3")
    with pytest.raises(ValueError, match=r"step\.change\.wide is 3; it must be true or false"):
        load_study(tmp_path / "mine.toml").steps()


def test_a_run_goes_to_another_process_with_its_own_decision(tmp_path, own_steps) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    (run,) = load_study("smoke", uses=tmp_path / "mine.py").plan(steps=["wide"])
    told = subprocess.run(
        [sys.executable, "-c", READ], input=pickle.dumps(run), capture_output=True, check=True
    )
    assert told.stdout.decode().split() == [run.hash, "Wide", "revised"]


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"error": "it broke"}'])
def test_a_damaged_note_of_a_failure_is_none(tmp_path, content) -> None:
    (run,) = plan("quick", steps=["gelu"])
    run.folder(tmp_path).mkdir(parents=True)
    (run.folder(tmp_path) / runfolder.FAILURE).write_text(content)
    state = runfolder.status(run, tmp_path, {}).state
    assert state == ("failed" if "broke" in content else "missing")


def test_damaged_results_are_named_and_left_out(tmp_path, caplog) -> None:
    steps = ["gelu", "resnet", "width", "depthwise", "inverted"]
    good, truncated, foreign, lacking, edited = runs = plan("quick", steps=steps)
    for run in runs:
        put(run, tmp_path)
    path = edited.folder(tmp_path) / RESULT
    path.write_text(path.read_text().replace('"accuracy": 80.0', '"accuracy": 90.0'))
    (truncated.folder(tmp_path) / RESULT).write_text('{"schema": 1, "acc')
    write_json(foreign.folder(tmp_path) / RESULT, result_of(foreign, schema=99))
    content = result_of(lacking)
    del content["seconds"]
    content["checksum"] = checksum(content)
    write_json(lacking.folder(tmp_path) / RESULT, content)
    table = all_results(tmp_path)
    assert list(table["step"]) == ["gelu"]
    assert all(f"{step}/seed-0" in caplog.text for step in ("resnet", "width", "inverted"))
    assert "depthwise/seed-0/result.json has no 'seconds'" in caplog.text
    assert "changed after it was written" in caplog.text
    assert len(caplog.records) == 4
    assert [done(run, run.folder(tmp_path)) for run in runs] == [True, *[False] * 4]
    faster = replace(good, config=replace(good.config, learning_rate=1e-3))
    assert not done(faster, good.folder(tmp_path))


def test_results_of_another_plan_are_named_and_left_out_of_a_report(tmp_path, caplog) -> None:
    good, other = plan("quick", steps=["gelu", "resnet"])
    put(good, tmp_path)
    put(other, tmp_path, hash="0" * 16)
    markdown = report(the_study(), tmp_path)
    assert "resnet seed 0 belongs to another design, recipe or data" in caplog.text
    assert "| ResNet-50 (modern recipe) | 0 |" in markdown
    assert "| ReLU -> GELU | 1 | 80.00 |" in markdown


def test_seeds_that_another_studys_networks_drew_are_none_of_this_studys(tmp_path) -> None:
    smoke = load_study("smoke")
    changes = {"factorial.decisions": ["gelu", "width"], "factorial.repeats": 4}
    ordered = smoke.change({"order": ["gelu", "width"], "only": []}, "mine")
    for study, seeds in ((smoke, [0, 1]), (ordered, [30]), (smoke.change(changes), None)):
        keep_study(study, tmp_path)
        for run in study.plan(seeds):
            put(run, tmp_path, 80.0)
    table = load_results("smoke", tmp_path)
    assert set(table["seed"]) == {0, 1, 30}  # an order begins with ResNet, as smoke does


def test_two_studies_share_a_run(tmp_path) -> None:
    """The finished network is the first of those that leave a decision out."""
    (run,) = plan("quick", steps=["layer_norm"])
    put(run, tmp_path)
    table = table_of(tmp_path, "quick", "leave_one_out")
    assert list(table["step"]) == ["without_separate_downsampling"]
    assert list(table["study"]) == ["quick_leave_one_out"]
    shared = the_study("quick", "leave_one_out")
    assert run_study(shared, steps=["without_separate_downsampling"], results=tmp_path) == 0


def test_a_result_that_cannot_be_written_leaves_the_old_one(tmp_path) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"accuracy": 1})
    with pytest.raises(TypeError):
        write_json(path, {"accuracy": object()})
    assert json.loads(path.read_text()) == {"accuracy": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]


def test_a_result_that_does_not_count_is_kept_beside_the_new_one(tmp_path) -> None:
    (run,) = plan("quick", steps=["gelu"])
    folder = run.folder(tmp_path)
    folder.mkdir(parents=True)
    edited = result_of(run) | {"accuracy": 99.0}
    write_json(folder / RESULT, edited)
    (folder / runfolder.WEIGHTS).write_text("99")
    with pytest.raises(ResultError, match="changed after it was written"):
        runfolder.result_of(run, folder)
    prepare(run, folder)
    assert not (folder / RESULT).exists()
    write_json(folder / RESULT, edited | {"accuracy": 98.0})
    prepare(run, folder)
    kept = [json.loads(path.read_text()) for path in folder.glob(REJECTED.format("*"))]
    assert sorted(result["accuracy"] for result in kept) == [98.0, 99.0]
    assert edited in kept
    (weights,) = folder.glob(runfolder.REJECTED_WEIGHTS.format("*"))
    assert weights.read_text() == "99"


def test_an_installed_package_is_of_no_commit(tmp_path, monkeypatch) -> None:
    module = tmp_path / "lib" / "convnext_steps" / "study" / "evidence.py"
    module.parent.mkdir(parents=True)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    monkeypatch.setattr(evidence, "__file__", str(module))
    assert evidence.commit() == {"commit": None, "clean": None}


def test_no_report_is_written_while_a_studys_file_is(tmp_path, monkeypatch) -> None:
    """A report clears what a killed process left half-written, not what another is writing."""
    kept = []

    def write(study, path) -> None:
        with pytest.raises(Timeout):
            FileLock(tmp_path / GUARD).acquire(timeout=0)
        kept.append(path)

    monkeypatch.setattr("convnext_steps.execution.report.write_study", write)
    assert [keep_study(the_study(), tmp_path)] == kept


def test_a_title_with_a_bar_stays_in_its_cell() -> None:
    table = markdown_table({"step": ["a|b"], "n": [1]})
    assert table == "| step | n |\n|---|--:|\n| a\\|b | 1 |"


def test_report_writes_table_and_figure_with_gaps(tmp_path) -> None:
    for run in plan("quick", steps=["resnet", "gelu"], seeds=[0, 1]):
        put(run, tmp_path, 80 + run.seed)
    markdown = report(the_study(), tmp_path)
    folder = tmp_path / "quick"
    assert {"table.csv", "table.md", "differences.md", "trajectory.png", "trajectory.svg"} <= {
        file.name for file in folder.iterdir()
    }
    assert (folder / "table.md").read_text() == markdown
    assert "| ReLU -> GELU | 2 | 80.50 ± 0.71 |" in markdown
    assert r"| BN -> LN | 0 | - | - | - | 81.47 | 4.15\* |" in markdown
    picture = (folder / "trajectory.svg").read_bytes()
    assert picture.count(b"no result") == 15
    report(the_study(), tmp_path)
    assert (folder / "trajectory.svg").read_bytes() == picture


def test_where_no_step_is_anothers_parent_there_are_no_differences(tmp_path) -> None:
    study = load_study("quick").change({"only": ["resnet", "gelu"]}, "two")
    put(study.plan([0])[0], tmp_path, 80)
    report(study, tmp_path)
    assert not (tmp_path / "two" / "differences.md").exists()
    assert (tmp_path / "two" / "table.md").exists()


@pytest.mark.parametrize("regime", ["tiny", "base"])
def test_the_figure_shows_every_seed_and_the_papers_numbers(tmp_path, regime) -> None:
    accuracies = {}
    for run in plan("quick", regime, steps=["resnet", "kernel_9", "gelu"], seeds=range(3)):
        accuracies[run.step, run.seed] = 80 + len(accuracies)
        put(run, tmp_path, accuracies[run.step, run.seed])
    ours, paper = plot_trajectory(table_of(tmp_path, "quick", regime)).axes
    name = {"tiny": "quick", "base": "quick_base"}[regime]
    assert ours.get_title() == f"this study ({name}; seeds: 3)\n"
    dots = sorted(x for line in ours.lines for x in line.get_xdata())
    assert dots == sorted(accuracies.values())
    bars = [bar for bar in ours.patches if bar.get_width()]
    ends = [bar.get_x() + bar.get_width() for bar in bars]
    assert ends == pytest.approx([83, 84, 85])
    hatched = [bar.get_hatch() is not None for bar in bars]
    assert hatched == [False, True, False]
    quoted = [bar.get_x() + bar.get_width() for bar in paper.patches]
    published = published_roadmap(regime)
    assert quoted == pytest.approx([published[name].top1_mean for name in roadmap(regime)])
    assert "quoted" in paper.get_title()


def test_the_trajectory_is_shown_again_where_results_have_come_since(tmp_path, monkeypatch) -> None:
    first, second = plan("quick", steps=["resnet", "gelu"])
    shown = []

    def execute(name, output, parameters) -> None:
        shown.append(sorted(all_results(tmp_path)["step"]))
        output.write_text("executed")
        if len(shown) == 1:
            put(second, tmp_path)  # by another runner, meanwhile

    monkeypatch.setattr("convnext_steps.execution.report.start_and_wait", execute)
    assert not show_trajectory(the_study(), tmp_path)
    put(first, tmp_path)
    for _ in range(3):
        assert show_trajectory(the_study(), tmp_path)
    assert shown == [["resnet"], ["gelu", "resnet"]]
    assert [path.name for path in tmp_path.glob("quick/*.ipynb")] == ["trajectory.ipynb"]


def test_evidence_has_the_versions_and_says_which_option_is_missing(monkeypatch) -> None:
    known = importlib.metadata.version

    def without_numba(package: str) -> str:
        if package == "numba":
            raise importlib.metadata.PackageNotFoundError(package)
        return known(package)

    monkeypatch.setattr(evidence, "version", without_numba)
    packages = evidence.environment()["packages"]
    assert packages["numba"] is None
    assert packages["torch"] == known("torch")


def test_evidence_is_taken_before_the_training(monkeypatch) -> None:
    """A commit that is made while a run trains is not the run's."""
    moments = ["before", "after"]
    monkeypatch.setattr(training, "environment", lambda: {"commit": moments[0]})

    def train(*given) -> training.Training:
        yield
        moments.pop(0)
        return training.Trained(*[Evaluation(90.0, 0.3, 9, 10)] * 2, [], 1, {})

    monkeypatch.setattr(training, "steps_in_process", train)
    (run,) = plan("smoke", steps=["gelu"])
    trained = finish(training.training_steps(run, None, None, None, None))
    assert trained.environment == {"commit": "before", "device": device_name(), "processes": 1}
