"""A study in one file, and the results of others."""

import json
import types
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from studies import plan

from convnext_steps import Design, load_results
from convnext_steps.execution.runner import run_study
from convnext_steps.execution.work import Work
from convnext_steps.study.code import own_code
from convnext_steps.study.effect_comparison import compare_effects
from convnext_steps.study.effects import analyse
from convnext_steps.study.pack import import_results, pack
from convnext_steps.study.plan import run_hash
from convnext_steps.study.results import (
    PACKED,
    PROJECT_RESULTS,
    RESULT,
    all_results,
    checksum,
    read_results,
)
from convnext_steps.study.statistics import accuracies, compare, spread
from convnext_steps.study.statistics import to_markdown as differences
from convnext_steps.study.tables import summarize, to_markdown

# A result as version 0.1 wrote it: quick, gelu, seed 2, with the curve beside it.
OLD = Path(__file__).with_name("result_of_version_0.1.json")
README = " ".join((PROJECT_RESULTS.parent / "README.md").read_text(encoding="utf-8").split())


@pytest.fixture
def old(tmp_path) -> Path:
    folder = tmp_path / "laptop" / "quick" / "tiny" / "gelu" / "seed-2"
    folder.mkdir(parents=True)
    (folder / RESULT).write_text(OLD.read_text())
    (folder / "history.jsonl").write_text('{"step": 12, "training_loss": 2.25}\n')
    return tmp_path / "laptop"


def test_a_finished_run_of_the_version_before_counts_as_done(old, tmp_path) -> None:
    own = tmp_path / "own"
    imported = import_results([old], own)
    assert (dict(imported.new), imported.known, imported.refused) == ({"quick": 1}, 0, [])
    before, (after,) = json.loads(OLD.read_text()), read_results(own)
    for name in ("step", "seed", "design", "accuracy", "loss", "environment", "seconds"):
        assert after[name] == before[name]
    assert after["curve"] == [{"step": 12, "training_loss": 2.25}]
    runs = plan("quick", steps=["gelu"], seeds=[2])
    assert after["hash"] == runs[0].hash
    assert run_study("quick", [2], ["gelu"], own) == 0


def test_results_behind_a_link_to_another_disk_are_found(old, tmp_path) -> None:
    disk, results = tmp_path / "disk", tmp_path / "results"
    import_results([old], disk)
    results.mkdir()
    (results / "quick").symlink_to(disk / "quick")
    assert [row.step for row in all_results(results).itertuples()] == ["gelu"]
    assert import_results([results], tmp_path / "own").new == {"quick": 1}
    (results / "quick" / "round").symlink_to(results)  # a circle ends
    assert len(all_results(results)) == 1


def test_what_is_there_stays_and_what_is_not_trusted_is_refused(old, tmp_path, told) -> None:
    own = tmp_path / "own"
    told("import", old, "--results", own)
    assert "2 were already here" in told("import", old, old, "--results", own).out
    (path,) = old.rglob(RESULT)
    changed = json.loads(path.read_text()) | {"seed": 3}
    path.write_text(json.dumps(changed | {"checksum": checksum(changed)}))
    out = told("import", old, "--results", tmp_path / "other", code=1).out
    assert "does not match the design, recipe and data that it names" in out
    path.write_text("{}")
    (refused,) = import_results([old], own).refused
    assert "is not a result" in refused
    told("import", tmp_path / "none", "--results", own, code=2)


def test_laptops_pool_their_seeds_and_a_packed_study_reads_as_its_folders(tmp_path) -> None:
    everything = [json.dumps(result) for result in read_results(PROJECT_RESULTS / "quick")]
    laptops = [tmp_path / "a", tmp_path / "b"]
    for laptop, own in zip(laptops, (everything[:20], everything[15:]), strict=True):
        for number, result in enumerate(own):
            folder = laptop / str(number)
            folder.mkdir(parents=True)
            (folder / RESULT).write_text(result)
    own = tmp_path / "own"
    imported = import_results(laptops, own)
    assert (imported.new["quick"], imported.known) == (len(everything), 5)
    published = all_results(PROJECT_RESULTS / "quick").set_index("hash").sort_index()
    assert all_results(own).set_index("hash").sort_index().equals(published)
    assert pack(laptops[0], ".") == 20
    assert len(all_results(laptops[0])) == 20
    assert len((laptops[0] / PACKED).read_text().splitlines()) == 20


def test_a_run_whose_result_was_imported_is_not_trained_again(old, tmp_path) -> None:
    import_results([old], tmp_path / "own")
    (run,) = plan("quick", steps=["gelu"], seeds=[2])
    work = Work(run, tmp_path / "own")
    found = work.train(None, None, None)
    work.finish(None, found)
    assert found.evaluation.accuracy == json.loads(OLD.read_text())["accuracy"]
    assert found.fit is None
    assert [path.name for path in work.folder.iterdir()] == ["run.lock"]


def test_a_packed_line_edited_by_hand_is_named_and_left_out(tmp_path, caplog) -> None:
    text = (PROJECT_RESULTS / "quick" / PACKED).read_text()
    (tmp_path / PACKED).write_text(text.replace('"seed":0', '"seed":7', 1))
    assert len(all_results(tmp_path)) == len(text.splitlines()) - 1
    assert f"{PACKED}, line 1 was changed after it was written" in caplog.text


@pytest.mark.parametrize("path", sorted(PROJECT_RESULTS.glob(f"*/{PACKED}")), ids=str)
def test_published_results_bear_the_hash_of_what_they_were_made_from(path) -> None:
    for line in path.read_text().splitlines():
        result = json.loads(line)
        assert result["checksum"] == checksum(result)
        parts = (result[name] for name in ("design", "recipe", "data", "seed", "code"))
        assert run_hash(*parts) == result["hash"]


@pytest.mark.parametrize("path", sorted(PROJECT_RESULTS.glob("*/table.md")), ids=str)
def test_published_tables_are_of_the_published_results(path, tmp_path) -> None:
    """And a factorial's runs of the same networks, with seeds of their own, are not among them."""
    results = load_results(path.parent.name, tmp_path)
    assert to_markdown(summarize(results)) == path.read_text()
    table = compare(results)
    if table["n"].max() <= 13:  # with more seeds SciPy draws patterns of signs
        assert differences(table) == path.with_name("differences.md").read_text()
    assert len(results) == len((path.parent / PACKED).read_text().splitlines())


@pytest.mark.parametrize(("part", "name"), [("study", "../../x"), ("study", ""), ("step", "/x")])
def test_a_result_cannot_say_that_it_is_written_elsewhere(tmp_path, part, name) -> None:
    line = json.loads((PROJECT_RESULTS / "quick" / PACKED).read_text().splitlines()[0])
    line |= {part: name}
    (tmp_path / PACKED).write_text(json.dumps(line | {"checksum": checksum(line)}))
    imported = import_results([tmp_path], tmp_path / "a" / "b" / "own")
    assert not imported.new
    assert "must be of letters, digits, _, -, + and ." in imported.refused[0]
    assert not (tmp_path / "a").exists()


def test_packing_and_importing_lose_no_line_that_cannot_be_read(old, tmp_path, told) -> None:
    own = tmp_path / "own"
    import_results([old], own)
    packed = own / "quick" / PACKED
    whole = packed.read_text()
    packed.write_text(whole + "\n" + whole[:100])
    before = packed.read_bytes()
    other = tmp_path / "other"
    (other / "quick").mkdir(parents=True)
    line = (PROJECT_RESULTS / "quick" / PACKED).read_text().splitlines()[0]
    (other / "quick" / PACKED).write_text(line)
    for words in (("pack", "quick"), ("import", other)):
        error = told(*words, "--results", own, code=2).err
        assert "line 3 is not" in error
        assert "correct or remove that line, or move the file away" in error
        assert packed.read_bytes() == before
    packed.write_text(whole + "\n")  # an empty line is none
    told("import", other, "--results", own)
    assert len(list(read_results(own))) == 2
    told("pack", "..", "--results", own, code=2)


def test_a_line_of_the_version_before_is_packed_and_imported_where_it_is(old, tmp_path) -> None:
    own = tmp_path / "own" / "quick"
    own.mkdir(parents=True)
    (own / PACKED).write_text(json.dumps(json.loads(OLD.read_text())) + "\n")
    assert pack(own.parent, "quick") == 1
    assert import_results([own], own.parent).known == 1
    assert len(list(read_results(own))) == len((own / PACKED).read_text().splitlines()) == 1


def test_a_file_is_imported_as_its_folder_is_and_nothing_is_an_error(tmp_path) -> None:
    packed, single = PROJECT_RESULTS / "quick" / PACKED, tmp_path / RESULT
    first, *others = packed.read_text().splitlines()
    single.write_text(first)
    assert import_results([single], tmp_path / "own").new == {"quick": 1}
    assert import_results([packed], tmp_path / "own").new["quick"] == len(others)
    for nothing in (tmp_path / "empty", tmp_path / "gone"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(ValueError, match=f"there are no results in {nothing}"):
            import_results([nothing], tmp_path / "own")


FINDINGS = {  # what README says of steps: our verdict, the paper's -> the steps
    ("up", "up"): {"resnet", "width", "fewer_activations", "separate_downsampling"},
    ("down", "down"): {"depthwise", "move_up"},
    ("within noise", "within noise"): {"fewer_norms"},
    ("down", "up"): {"kernel_5", "kernel_7", "kernel_9", "kernel_11"},
    ("up", "within noise"): {"gelu"},
    ("down", "within noise"): {"patchify", "layer_norm"},
    ("within noise", "up"): {"stage_ratio", "inverted"},
}
ENDS = [  # what README says of the end: of which study and seeds
    ("standard", None, "ends {below:.1f} points below (± {margin:.1f}, ten seeds)"),
    ("cifar10_jpeg", None, "ends {above:.1f} points above (± {margin:.1f}, three seeds"),
    ("cifar10_jpeg_gpu", None, "on a GPU, {below:.1f} points below (one seed"),
    ("quick", range(10, 20), "ends {above:.1f} points above ResNet-50 (± {margin:.1f})"),
]


def test_the_findings_in_the_readme_are_those_of_the_published_results(tmp_path) -> None:
    found: dict[tuple[str, str], set[str]] = {}
    for row in compare(load_results("standard", tmp_path)).itertuples():
        verdict = row.paper_verdict.removesuffix(" (no std printed)")
        found.setdefault((row.verdict, verdict), set()).add(row.step)
    assert found == FINDINGS
    for name, seeds, words in ENDS:
        columns = accuracies(load_results(name, tmp_path, seeds))
        change = (columns["separate_downsampling"] - columns["resnet"]).dropna().to_numpy()
        above, margin = change.mean(), spread(change, "mean")["margin"]
        assert words.format(above=above, below=-above, margin=margin) in README


def test_what_the_readme_says_of_mixing_is_in_the_published_results(tmp_path) -> None:
    names = ("cifar10_jpeg_bare", "cifar10_jpeg_mixed")
    bare, mixed = (accuracies(load_results(name, tmp_path)) for name in names)
    resnet, fewer, convnext = (bare - mixed).mean()
    words = f"ResNet-50 {resnet:.1f} points, the network with fewer activations {fewer:.1f}"
    assert f"{words} and ConvNeXt {convnext:.1f} (three seeds" in README
    assert len(bare) == len(mixed) == 3


ON_AVERAGE = {  # what README says of a decision's average effect
    "fewer_activations": "fewer activations gain {:.1f} points (± {:.1f})",
    "fewer_norms": "fewer norms {:.1f} (± {:.1f})",
    "layer_norm": "LayerNorm costs {:.1f} (± {:.1f})",
}


def test_what_the_readme_says_of_orders_is_in_the_published_effects() -> None:
    folder = PROJECT_RESULTS / "factorial_quick"
    effects, pairs, credits = (
        pd.read_csv(folder / f"{name}.csv") for name in ("effects", "interactions", "credits")
    )
    assert f"experiment of {len((folder / PACKED).read_text().splitlines())} runs" in README
    for name, words in ON_AVERAGE.items():
        row = effects.set_index("decision").loc[name]
        assert words.format(abs(row["effect"]), (row["high"] - row["low"]) / 2) in README
    assert f"{pairs['found'].sum()} of {len(pairs)} pairs" in README
    strongest = pairs.loc[pairs["effect"].abs().idxmax()]
    assert {strongest["decision"], strongest["other"]} == {"fewer_activations", "fewer_norms"}
    margin = (strongest["high"] - strongest["low"]) / 2
    assert f"{-strongest['effect']:.1f} points (± {margin:.1f}) less" in README
    names = ("depthwise convolutions", "inverting", "fewer activations", "fewer norms")
    depend = ("depthwise", "inverted", "fewer_activations", "fewer_norms", "separate_downsampling")
    assert tuple(credits.loc[credits["depends"], "decision"]) == depend
    words = "five decisions clearly gain in some contexts and clearly lose in others: "
    assert f"{words}{', '.join(names)} and separate downsampling." in README


def test_what_the_readme_says_of_both_factorials_is_in_their_results(tmp_path) -> None:
    names = ("factorial_quick", "factorial_shallow")
    tables = {name: load_results(name, tmp_path) for name in names}
    found = compare_effects({name: analyse(table) for name, table in tables.items()})
    differ = found["found"] & (found["other"] == "")
    assert f"({len(tables[names[1]])} of its 1,792 runs so far" in README
    assert f"{('seven', 'eight', 'nine')[differ.sum() - 7]} of the twelve average effects" in README


def test_code_of_ones_own_is_in_the_hash_of_its_designs_alone(tmp_path, monkeypatch) -> None:
    assert own_code(Design()) is None
    source = "from dataclasses import dataclass\nfrom convnext_steps import Design\n\n"
    source += "@dataclass(frozen=True)\nclass Mine(Design):\n    wide: bool = False\n"
    codes = []
    for number, text in enumerate((source, source, source + "# changed\n")):
        path = tmp_path / f"mine_{number}.py"
        path.write_text(text)
        module = types.ModuleType(path.stem)
        module.__file__ = str(path)
        monkeypatch.setitem(__import__("sys").modules, path.stem, module)
        exec(compile(text, path, "exec"), module.__dict__)
        codes.append(own_code(module.Mine()))
    assert codes[0] == codes[1] != codes[2]
    assert None not in codes


@dataclass(frozen=True)
class Notebooks(Design):
    """A design whose module is no file, as in a notebook."""

    def revise(self, network) -> None:
        helper(network)


def helper(network) -> None:
    """What the design's code uses counts with it."""


def test_in_a_notebook_what_a_design_uses_counts_too(monkeypatch) -> None:
    monkeypatch.delattr(__import__("sys").modules[__name__], "__file__")
    before = own_code(Notebooks())
    monkeypatch.setitem(globals(), "helper", import_results)
    assert own_code(Notebooks()) != before
