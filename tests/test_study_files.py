"""Studies as files: what they say, and one clear line for everything that they get wrong."""

from pathlib import Path

import pytest

from convnext_steps.files import own_results
from convnext_steps.models.decisions import decisions
from convnext_steps.study.toml import load_study, read_changes, study_file, study_names, write_study

BAD = {  # what a file says: the line that answers it
    'bse = "quick"': "unknown key 'bse'; did you mean 'base'?",
    "base = 1": "base is 1; it must be the name or the file of a study",
    'base = "quik"': "base: unknown study 'quik'; did you mean 'quick'?",
    'base = "no.toml"': "there is no such file",
    'base = "bad.toml"': "base: the studies bad.toml -> bad.toml go round in a circle",
    "base = ": "not readable as TOML",
    'roadmap = "tinny"': "roadmap is 'tinny'; it must be one of 'tiny', 'base', 'leave_one_out'",
    "roadmap = 1": "roadmap is 1; it must be one of",
    "description = 1": "description is 1; it must be a text in quotes",
    'order = "gelu"': "order is 'gelu'; it must be a list in brackets",
    "order = [1]": "order[0] is 1; it must be a text in quotes",
    'order = ["gelo"]': "order: unknown decision 'gelo'; did you mean 'gelu'?",
    'order = ["gelu", "gelu"]': "order: gelu is twice in the order",
    'order = ["move_up"]': "order: move_up needs inverted before it",
    'order = ["move_up", "inverted"]': "order: move_up needs inverted before it",
    'order = ["kernel_9"]': "order: unknown decision 'kernel_9'; did you mean 'kernel_7'?",
    'only = ["gelo"]': "only: unknown step 'gelo'; did you mean 'gelu'?",
    'data = "fashion_mnist"': "data is 'fashion_mnist'; it must be a table, [data]",
    "[dat]": "unknown key 'dat'; did you mean 'data'?",
    '[data]\nsorce = "cifar10"': "unknown key 'data.sorce'; did you mean 'data.source'?",
    '[data]\nsource = "cifar11"': "data.source: unknown data set 'cifar11'; did you mean",
    "[data]\nimages = 1.5": "data.images is 1.5; it must be a whole number",
    "[data]\nimages = -1": "data.images is -1; it must be 0 or more",
    "[data]\nheld_out = 1.0": "data.held_out is 1.0; it must be at least 0 and below 1",
    '[data]\nskip_broken = "yes"': "data.skip_broken is 'yes'; it must be true or false",
    '[data]\nsource = "folder"\nroot = "nowhere"': "data.root: there is no folder",
    "[scale]\nwidht = 1": "unknown key 'scale.widht'; did you mean 'scale.width'?",
    "[scale]\nwidth = 0": "scale.width is 0.0; it must be above 0",
    "[scale]\ndepth = inf": "scale.depth is inf; it must be a number",
    "[scale]\nstem_stride = 3": "scale.stem_stride is 3; it must be one of 1, 2, 4",
    "[recipe]\nmax_epoch = 4": "unknown key 'recipe.max_epoch'; did you mean 'recipe.max_epochs'?",
    '[recipe]\nmax_epochs = "4"': "recipe.max_epochs is '4'; it must be a number",
    "[recipe]\nmax_epochs = 0": "recipe.max_epochs is 0.0; it must be above 0",
    "[recipe]\nbatch_size = 16.5": "recipe.batch_size is 16.5; it must be a whole number",
    "[recipe]\nbatch_size = true": "recipe.batch_size is True; it must be a whole number",
    '[recipe]\noptimizer = "adam"': "recipe.optimizer is 'adam'; it must be one of 'adamw', 'sgd'",
    "[recipe]\nseed = 3": "recipe.seed: seeds are given when a study is run, with --seeds",
    "[recipe]\nmixup = -0.1": "recipe.mixup is -0.1; it must be 0 or more",
    "[how]\ndevices = 1": "unknown key 'how.devices'",
    "[how]\nprocesses = 0": "how.processes is 0; it must be at least 1",
    "factorial = 3": "factorial is 3; it must be a table, [factorial]",
    "[factorial]\nrun = 3": "unknown key 'factorial.run'; did you mean 'factorial.runs'?",
    '[factorial]\nruns = "al"': "runs is 'al'; it must be 'all' or a whole number",
    "[factorial]\nruns = 13": "factorial.runs is 13; it must be at least 14, to tell effects",
    "[factorial]\nruns = 12\nrepeats = 9": "runs is 12; it must be at least 13, to tell effects",
    "[factorial]\nruns = 4000": "factorial.runs is 4000; it must be at most 3072",
    "[factorial]\nheld_out = 3": 'factorial.held_out is 3; it must be 0 where runs = "all"',
    "[factorial]\nruns = 20\nheld_out = 3060": "held_out is 3060; it must be at most 3059",
    "[factorial]\nruns = 20\nrepeats = 21": "factorial.repeats is 21; it must be at most 20",
    "[factorial]\nrepeats = -1": "factorial.repeats is -1; it must be 0 or more",
    "[factorial]\nseed = 0.5": "factorial.seed is 0.5; it must be a whole number",
    '[factorial]\ndecisions = ["gelo"]': "decisions: unknown decision 'gelo'; did you mean",
    '[factorial]\ndecisions = ["gelu", "gelu"]': "factorial.decisions: gelu is twice in the list",
    '[factorial]\ndecisions = ["move_up"]': "move_up needs inverted, which is not among them",
    '[factorial]\nrequire = "gelu"': "factorial.require is 'gelu'; it must be a table in braces",
    '[factorial]\nrequire = { gelu = "widht" }': "factorial.require: unknown decision 'widht'; did",
    "[factorial]\nrequire = { gelu = 1 }": "require.gelu is 1; it must be a text in quotes",
    '[factorial]\nrequire = { inverted = "move_up" }': "inverted and move_up need each other",
    'order = ["gelu"]\n[factorial]': "factorial: its networks are the steps; leave out order",
    'roadmap = "leave_one_out"\n[factorial]': "sets of decisions need the roadmap tiny or base",
    "[step]\nname = 1": "step must be one table for each step, [[step]]",
    '[[step]]\nname = "k"': "a table [[step]] lacks parent",
    '[[step]]\nname = "k"\nparent = "gelu"\nchange = {}': "step.change must be a table such as",
    '[[step]]\nname = "gelu"\nparent = "resnet"\nchange = {width = 9}': "there is a step 'gelu'",
    '[[step]]\nname = "k"\nparent = "gelo"\nchange = {width = 9}': "unknown step 'gelo'; did you",
    '[[step]]\nname = "k"\nparent = "gelu"\nchange = {kernel = 9}': "did you mean 'kernel_size'?",
    '[[step]]\nname = "k"\nparent = "gelu"\nchange = {kernel_size = 4}': "kernel_size is 4",
    '[[step]]\nname = "k"\nparent = "gelu"\nchange = {kernel_size = "9"}': "must be a whole number",
    "[[step]]\nname = 'k'\nparent = 'gelu'\ntitle = '$5_$'\nchange = {width = 9}": "no figure can",
    '[[step]]\nname = "k"\nparents = "gelu"': "unknown key 'step.parents'; did you mean",
}


def test_a_base_with_a_mistake_is_one_line_too(tmp_path) -> None:
    base, path = tmp_path / "base.toml", tmp_path / "mine.toml"
    for wrong, own in (("scale = 3", "[scale]\nwidth = 1"), ("step = 3", "[[step]]\nname = 'k'")):
        base.write_text(wrong + "\n")
        path.write_text(f'base = "base.toml"\n{own}\n')
        with pytest.raises(ValueError, match=r"must be (a|one) table"):
            load_study(path)


def test_values_are_read_as_people_write_them() -> None:
    text = 'recipe.max_epochs=12 scale.width=1/4 recipe.precision=bf16 order=["gelu", "width"]'
    assert read_changes(text) == {
        "recipe.max_epochs": 12,
        "scale.width": 0.25,
        "recipe.precision": "bf16",
        "order": ["gelu", "width"],
    }
    assert read_changes(["data.root=/a b/c=d"]) == {"data.root": "/a b/c=d"}
    rules = {"inverted": "depthwise", "move_up": "inverted"}
    text = 'factorial.require={ inverted = "depthwise", move_up="inverted" } factorial.runs=80'
    assert read_changes(text) == {"factorial.require": rules, "factorial.runs": 80}
    assert read_changes("scale.width=1 data.root=/a}b order=[]")["data.root"] == "/a}b"
    changes = read_changes("only=[resnet, gelu] scale.stem_stride=4/2")
    study = load_study("smoke").change(changes, "mine")
    assert (study.only, repr(study.scale.stem_stride)) == (("resnet", "gelu"), "2")


def test_different_values_have_different_names() -> None:
    rates = (1 / 3000, 0.000333333, 12.0)
    names = [load_study("smoke").change({"recipe.learning_rate": each}).name for each in rates]
    assert len(set(names)) == 3
    assert names[2] == "smoke_learning_rate_12"


@pytest.mark.parametrize(("text", "line"), BAD.items(), ids=lambda value: value[:30])
def test_a_mistake_in_a_file_is_one_line(tmp_path, text, line) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text + "\n")
    with pytest.raises(ValueError, match=r"^.*/bad\.toml: ") as error:
        load_study(path)
    message = str(error.value)
    assert line in message
    assert "\n" not in message


def test_a_study_is_based_on_others_and_says_only_what_differs(tmp_path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "photos").mkdir()
    (tmp_path / "one.toml").write_text('base = "quick"\n[recipe]\nmax_epochs = 12\n')
    text = 'base = "../one.toml"\n[data]\nsource = "folder"\nroot = "../photos"\n'
    (tmp_path / "far" / "two.toml").write_text(text)
    study = load_study(tmp_path / "far" / "two.toml")
    quick = load_study("quick")
    assert (study.name, study.recipe.max_epochs, study.recipe.batch_size) == ("two", 12, 64)
    assert Path(study.data.root) == tmp_path / "photos"
    assert study.scale == quick.scale
    assert study.data.images == quick.data.images


def test_what_changes_is_in_the_name_unless_it_is_in_no_hash() -> None:
    quick = load_study("quick")
    changes = {"recipe.max_epochs": 12, "scale.width": 0.25, "how.data_workers": 3}
    study = quick.change(changes)
    assert study.name == "quick_max_epochs_12_width_0.25"
    assert quick.change({"how.data_workers": 3}).name == "quick"
    assert quick.change(changes, name="mine").name == "mine"
    assert quick.change({}) == quick.change({"order": []}) == quick
    smoke = load_study("smoke")
    assert smoke.change({"only": list(smoke.only)}) == smoke
    assert quick.change({"factorial.runs": "all"}).name == "quick_runs_all"
    assert quick.change({"factorial.repeats": 0}).name != "quick"
    hashes = [run.hash for run in quick.plan()]
    assert [run.hash for run in quick.change({"how.data_workers": 3}).plan()] == hashes
    assert not {run.hash for run in study.plan()} & set(hashes)


def test_an_order_of_ones_own_walks_the_decisions_and_adds_steps(tmp_path) -> None:
    text = 'base = "quick"\norder = ["gelu", "depthwise", "kernel_7"]\n[[step]]\n'
    text += 'name = "kernel_13"\nparent = "resnet+depthwise+gelu"\nchange = { kernel_size = 13 }\n'
    (tmp_path / "mine.toml").write_text(text)
    study = load_study(tmp_path / "mine.toml")
    steps = study.steps()
    assert list(steps) == [
        *("resnet", "resnet+gelu", "resnet+depthwise+gelu"),
        *("resnet+depthwise+kernel_7+gelu", "kernel_13"),
    ]
    parents = [step.parent for step in steps.values()]
    assert parents == [
        None,
        "resnet",
        "resnet+gelu",
        "resnet+depthwise+gelu",
        "resnet+depthwise+gelu",
    ]
    (run,) = study.plan(steps=["kernel_13"])
    assert (run.design.kernel_size, run.design.depthwise, run.design.width) == (13, True, 8)
    assert steps["resnet"].paper.top1_mean == 78.82
    assert steps["resnet+gelu"].paper.top1_mean is None


def test_the_papers_order_is_its_roadmap() -> None:
    study = load_study("quick").change({"order": list(decisions())})
    roadmap = load_study("quick").steps()
    chain = [step for name, step in roadmap.items() if not step.probe and name != "resnet_original"]
    for mine, paper in zip(study.steps().values(), chain, strict=True):
        assert mine.design == paper.design
        assert mine.paper.top1_mean == paper.paper.top1_mean


@pytest.mark.parametrize("name", study_names())
def test_every_study_in_the_package_can_be_planned(name) -> None:
    study = load_study(name)
    assert study.description
    if study.data.source == "folder":  # whose images are the reader's own
        study = study.change({"data.content": "some"}, name)
    runs = study.plan(None if study.factorial else [0, 1])
    assert len({run.hash for run in runs}) == len(runs)


def test_a_study_that_was_run_here_has_a_name_too(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = load_study("quick").change({"recipe.max_epochs": 12})
    write_study(study, study_file(study.name, own_results()))
    assert load_study("quick_max_epochs_12") == study
    (tmp_path / "mine.toml").write_text('base = "quick_max_epochs_12"\n')
    assert load_study("mine.toml").recipe == study.recipe


@pytest.mark.parametrize("name", study_names())
def test_a_written_study_is_the_same_study(tmp_path, name) -> None:
    study = load_study(name).change({"how.workers": 3, "data.held_out": 0.25})
    write_study(study, tmp_path / "any.toml")
    assert load_study(tmp_path / "any.toml") == study
