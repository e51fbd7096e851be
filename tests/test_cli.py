"""The command line: what it prints, and one line for every mistake."""

import argparse
import logging
import re
import subprocess
import sys
import warnings

import pytest
from test_study import OWN

from convnext_steps import cli, load_study
from convnext_steps.cli import study
from convnext_steps.cli.study import parse_seeds
from convnext_steps.errors import StudyError
from convnext_steps.execution import local
from convnext_steps.execution.notebook import find_notebook
from convnext_steps.study.forecast import Forecast
from convnext_steps.study.toml import study_names
from convnext_steps.text import unknown
from convnext_steps.training import data

RUN_STEP = str(find_notebook("run_step"))
OUT = ["--output", "out"]
GELU, TINY = (["train", name, *OUT] for name in ("gelu", "convnext_tiny"))
SMALL = ["--data", "synthetic", "--train-images", "64", "--batch-size", "32", "--max-epochs", "1"]


def test_steps_prints_the_roadmap_beside_the_paper(told) -> None:
    out = told("steps").out
    assert "kernel_7                  2.5   4.146    4.15" in out
    assert "4.46*" in out
    assert out.count("\n* ") == 2


def test_show_prints_claim_change_and_counts(told) -> None:
    out = told("show", "fewer_activations").out
    assert "81.27 ± 0.06 % top-1, +0.65 against ReLU -> GELU" in out
    assert "-activations_per_block = 3" in out
    assert "-      (spatial_activation): GELU" in out
    assert "4.146 G multiply-adds" in out


def test_a_name_where_there_are_none_is_one_line() -> None:
    assert unknown("parameter", "STEP", []) == "unknown parameter 'STEP'; there are none"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "gelo"], "unknown step 'gelo'; did you mean 'gelu'?"),
        (["show", "gelu", "--resolution", "3"], "images of 3x3 are too small"),
        (["steps", "--set", "roadmap=x"], "roadmap is 'x'; it must be one of 'tiny', 'base'"),
        (["study", "smok"], "unknown study 'smok'; did you mean 'smoke'?"),
        (["study", "--set", "max_epochs=2"], "unknown key 'max_epochs'; did you mean 'recipe.max_"),
        (
            ["study", "--set", "recipe.max_epochs=x"],
            "recipe.max_epochs is 'x'; it must be",
        ),
        (["study", "--set", "recipe.max_epochs"], "is not a change; write it like recipe"),
        (["study", "--steps", "layernorm"], "unknown step 'layernorm'; did you mean 'layer_norm'?"),
        (["study", "--seeds", "one"], "'one' is not a seed"),
        (["study", "--seeds", "-1"], ""),
        (["study", "smoke", "--set", "scale.width=1e9"], "resnet cannot be built: Storage size"),
        (["study", "smoke", "--set", "recipe.batch_size=1000"], "512 images do not fill a batch"),
        (["study", "smoke", "--set", "recipe.micro_batch_size=7"], "micro_batch_size 7 times 1"),
        (["study", "smoke", "--set", "how.device=mps"], "mps"),
        (["notebook", RUN_STEP, RUN_STEP], "is the notebook itself"),
        (["study", "--seeds", "5-2"], "'5-2' is not a seed"),
        (["study", "--workers", "0"], ""),
        (["study", "--results", "/dev/null/own"], "cannot write to the folder"),
        (["study", "--uses", "nowhere.py"], "quick: uses: there is no Python file"),
        (["study", "--index", "17"], "--index is 17; the plan's runs are 0 to 16"),
        (["report", "quikc"], "unknown study 'quikc'"),
        (["report"], "no results of quick in"),
        (["notebook", "run_stp", "out.ipynb"], "no notebook 'run_stp'"),
        (["notebook", "run_step", "out.ipynb", "-p", "STPE=gelu"], "did you mean 'STEP'?"),
        (["notebook", "run_step", "out.ipynb", "-p", "STEP"], "NAME=VALUE"),
        (["notebook", "learning_rate", "out.ipynb", "-p", "STEPS=["], "must be a list in brackets"),
        (["notebook", "run_step", "nowhere/out.ipynb"], "there is no folder nowhere"),
        (["bench", "gelu", "--threads", "-1"], ""),
        (["bench", "gelu", "--against", "timm"], "timm is timed on convnext_tiny"),
        (["bench", "--study", "--workers", "0"], ""),
        (
            ["bench", "convnext_tiny", "--study", "quick", "--against", "timm"],
            "timm's models take three channels, not 1",
        ),
        (["explorer", "nowhere/page.html"], "there is no folder nowhere"),
        (["explorer", "mine.toml"], ""),
        (
            ["explorer", "page.html", "standard_quarter_leave_one_out"],
            "the explorer shows the roadmaps tiny and base; this study is of leave_one_out",
        ),
        (["notebook", "run_step", "mine.toml"], ""),
        (["status", "--results", "~no-such-user/own"], ""),
        (["doctor", "--results", "~no-such-user/own"], "there is no such user"),
        (["slides", "nothing", "--build", "b"], "no notebook 'nothing'"),
        (["study", "smoke", "--set", "scale.depth=1e308"], "cannot convert float infinity"),
        (["train", "gelu"], ""),
        ([*GELU, "--lerning-rate", "1"], ""),
        ([*GELU, "--precision", "fp8"], ""),
        (["train", "convnext_tinny", *OUT], "did you mean 'convnext_tiny'?"),
        ([*GELU, "--recipe", "papr"], "did you mean 'paper'?"),
        ([*GELU, "--data", "cifar_10"], "unknown data set 'cifar_10'; did you mean 'cifar10'?"),
        ([*GELU, "--batch-size", "0"], "batch_size is 0"),
        ([*GELU, "--max-epochs", "inf"], "max_epochs is inf"),
        ([*GELU, "--pretrained", "x.pth"], "published family"),
        ([*TINY, "--pretrained", "x.pth"], "x.pth"),
        ([*GELU, *SMALL, "--batch-size", "100"], "do not fill a batch"),
        (["train", "gelu", "--output", "/dev/null/out", *SMALL], "cannot write to the folder"),
        ([*TINY, *SMALL, "--resolution", "16"], "at least 32 pixels"),
        (["train", "separate_downsampling", *OUT, *SMALL, "--resolution", "16"], "16x16"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    capsys, monkeypatch, tmp_path, arguments, message
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = cli.main(arguments)
    except SystemExit as stop:  # argparse's own
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2
    assert message in error
    assert "Traceback" not in error
    if message:
        assert error.startswith("convnext-steps: ")
        assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_every_study_of_the_package_is_listed(told, monkeypatch) -> None:
    monkeypatch.setattr(study, "forecast", lambda runs, _: Forecast(len(runs), 1, None))
    out = told("studies").out
    assert re.findall(r"^(\S+): ", out, re.M) == list(study_names())
    assert f"{load_study('quick').description}\n    one seed: 17 images seen, " in out


def test_a_changed_study_gets_a_name_and_is_written(told, tmp_path) -> None:
    file = tmp_path / "written.toml"
    words = ["study", "--set", "recipe.max_epochs=12", "--name", "mine", "--write", file]
    assert told(*words) == (f"written: {file}\n", "")
    assert load_study(file) == load_study("quick").change({"recipe.max_epochs": 12}, "mine")
    assert load_study(file).name == "mine"
    error = f"convnext-steps: {file} is there already; choose another file\n"
    assert told(*words, code=2).err.endswith(error)


def test_a_step_of_ones_own_file_is_planned(told, own_steps, tmp_path) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    options = ["--uses", tmp_path / "mine.py", "--steps", "wide", "--dry-run"]
    out, error = told("study", "smoke", *options, "--results", tmp_path)
    assert error == ""
    assert re.match(r" +0 wide seed 0 +missing\n1 runs, .*\nto do: 1,024 images seen, ", out)


def test_a_file_of_ones_own_that_fails_is_one_line(told, tmp_path) -> None:
    (tmp_path / "mine.py").write_text("raise RuntimeError('this is why\\nand more')")
    error = told("study", "--uses", tmp_path / "mine.py", "--dry-run", code=2).err
    assert error == "convnext-steps: quick: uses: mine.py failed: RuntimeError: this is why\n"


def test_failed_runs_are_told_though_the_report_fails_too(monkeypatch, told, tmp_path) -> None:
    def fail(*_: object) -> None:
        raise StudyError("1 of 2 runs failed")

    def break_down(*_: object) -> None:
        raise ValueError("no results")

    monkeypatch.setattr(study, "run_study", fail)
    monkeypatch.setattr(study, "show_trajectory", break_down)
    error = told("study", "smoke", "--results", tmp_path, code=1).err
    assert error == "convnext-steps: 1 of 2 runs failed\n"


def test_a_damaged_archive_stops_a_study_before_it_begins(told, monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(data.SHA256, "t10k-images-idx3-ubyte", "0" * 64)
    monkeypatch.setattr(local, "start_notebook", None)
    error = told("study", "--results", tmp_path, code=2).err
    assert "t10k-images-idx3-ubyte.gz is damaged" in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("texts", "seeds"), [(["0"], [0]), (["0-3"], [0, 1, 2, 3]), (["4", "0-1", "1"], [4, 0, 1])]
)
def test_seeds(texts, seeds) -> None:
    assert parse_seeds(texts) == seeds


def test_help_has_examples() -> None:
    command = [sys.executable, "-m", "convnext_steps", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "convnext-steps study --seeds 0-4" in done.stdout
    assert done.stderr == ""


def test_warnings_are_one_line_each(capsys, monkeypatch) -> None:
    def command(options: argparse.Namespace) -> None:
        logging.getLogger("convnext_steps").warning("the library's, on %s", "one line")
        logging.getLogger("convnext_steps").info("a detail")
        warnings.warn(f"another library's, {options.call}", stacklevel=1)

    for call in range(2):
        options = argparse.Namespace(command=command, call=call)
        monkeypatch.setattr(cli, "parse", lambda _, options=options: options)
        assert cli.main([]) == 0
        lines = capsys.readouterr().err.splitlines()
        assert lines == [
            "convnext-steps: the library's, on one line",
            f"convnext-steps: another library's, {call}",
        ]
