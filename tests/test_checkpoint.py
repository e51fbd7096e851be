"""Stopped at any moment and resumed, a run ends with the same bits."""

import json
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from studies import small

from convnext_steps import How, Trainer, TrainingConfig
from convnext_steps.errors import TrainingError
from convnext_steps.files import atomic_file
from convnext_steps.training.checkpoint import (
    METADATA,
    Output,
    checkpoints,
    clear,
    read_checkpoint,
)
from convnext_steps.training.data import synthetic
from convnext_steps.training.distributed import Processes

CONFIG = TrainingConfig(
    max_epochs=4, batch_size=32, random_shift=1, drop_path_rate=0.2, ema_decay=0.9, mixup=0.5
)


def trainer(folder: Path, config: TrainingConfig = CONFIG, step: str = "gelu", **keywords):
    model = small(step, drop_path_rate=config.drop_path_rate)
    data = synthetic(True, 128), synthetic(False, 40)
    return Trainer(model, *data, config, output_dir=folder, progress=False, **keywords)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    trainer(folder).train()
    return folder


def interrupt(run: Trainer, at: int) -> None:
    """Train until an interruption in the middle of an update."""
    update = run.update._plain

    def interrupted(batches) -> list[torch.Tensor]:
        losses = update(batches)
        if run.step == at:
            raise KeyboardInterrupt
        return losses

    run.update._plain = interrupted
    with pytest.raises(KeyboardInterrupt):
        run.train()
    run.update._plain = update


def stopped(folder: Path, at: int, config: TrainingConfig = CONFIG) -> None:
    interrupt(trainer(folder, config), at)


def content(folder: Path, pattern: str = "*") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob(pattern)}


def assert_same_files(
    folder: Path, whole: Path, names: tuple[str, ...] = ("final.safetensors",)
) -> None:
    for name in names:
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.parametrize("at", [1, 4, 9, 15])
def test_interrupted_and_resumed_ends_with_the_same_bits(whole, tmp_path, at) -> None:
    stopped(tmp_path, at)
    resumed = trainer(tmp_path)
    resumed.train(resume=True)
    names = ("final.safetensors", "final_ema.safetensors", "best.safetensors", "history.jsonl")
    assert_same_files(tmp_path, whole, names)
    newest, reference = (
        torch.load(checkpoints(folder)[0], weights_only=True) for folder in (tmp_path, whole)
    )
    for part in ("model", "ema"):
        for name, value in reference[part].items():
            assert torch.equal(newest[part][name], value), (part, name)


def test_a_finished_run_is_not_trained_again(whole, tmp_path) -> None:
    run = trainer(tmp_path)
    first = run.train()
    again = trainer(tmp_path)
    assert again.train(resume=True) == first
    assert again.step == run.step
    assert_same_files(tmp_path, whole, ("history.jsonl",))


def test_without_resume_a_folder_with_a_training_is_refused_and_left_as_it_is(tmp_path) -> None:
    stopped(tmp_path, 9)
    before = content(tmp_path)
    with pytest.raises(TrainingError, match=r"checkpoint-0002\.pt .* resume=True .* folder") as e:
        trainer(tmp_path).train()
    assert "\n" not in str(e.value)
    assert content(tmp_path) == before


def test_weights_without_checkpoints_are_not_overwritten_either(tmp_path) -> None:
    trainer(tmp_path, how=How(checkpoint_every=0)).train()
    before = content(tmp_path)
    with pytest.raises(TrainingError, match="training; choose another folder"):
        trainer(tmp_path).train()
    assert content(tmp_path) == before


def test_clearing_removes_no_file_of_others(tmp_path) -> None:
    (tmp_path / "mine.safetensors").write_bytes(b"mine")
    (tmp_path / "best.safetensors").write_bytes(b"of an earlier training")
    clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.safetensors"]


@pytest.mark.parametrize(
    ("every", "keep", "left"), [(1, 2, [4, 3]), (2, 5, [4, 2]), (3, 1, [4]), (0, 1, [])]
)
def test_every_x_epochs_and_the_newest_n(tmp_path, every, keep, left) -> None:
    trainer(tmp_path, how=How(checkpoint_every=every, keep_checkpoints=keep)).train()
    assert [int(path.stem[-4:]) for path in checkpoints(tmp_path)] == left


def test_weights_hold_design_and_recipe(whole) -> None:
    with safe_open(whole / "final.safetensors", "pt") as file:
        metadata = json.loads(file.metadata()[METADATA])
    assert metadata["design"]["activation"] == "gelu"
    assert metadata["recipe"]["max_epochs"] == 4
    run = trainer(whole / "unused")
    run.model.load_state_dict(load_file(whole / "final.safetensors"))


DAMAGE = {  # a byte that has changed is noticed, too: see below
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: path.write_bytes(b""),
    "foreign": lambda path: torch.save({"weights": torch.zeros(3)}, path),
    "text": lambda path: path.write_text("not a checkpoint"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    whole, tmp_path, how, caplog
) -> None:
    stopped(tmp_path, 13)
    newest, _ = checkpoints(tmp_path)
    DAMAGE[how](newest)
    resumed = trainer(tmp_path)
    resumed.train(resume=True)
    (message,) = caplog.messages
    assert message.startswith(f"{newest} is ")
    assert message.endswith("damaged or not a checkpoint of this version")
    assert "\n" not in message
    assert_same_files(tmp_path, whole)


def test_a_checkpoint_of_another_model_is_refused(tmp_path) -> None:
    """Of kernel_7, whose weights have the names and shapes of gelu's."""
    stopped(tmp_path, 9)
    with pytest.raises(TrainingError, match="another model"):
        trainer(tmp_path, step="kernel_7").train(resume=True)


@pytest.mark.parametrize("frozen", [(True, False), (False, True)])
def test_a_checkpoint_with_other_parameters_frozen_is_refused(tmp_path, frozen) -> None:
    """The optimiser's state is by position: it would be taken for that of other parameters."""
    before, after = trainer_with_stem(tmp_path, frozen[0]), trainer_with_stem(tmp_path, frozen[1])
    interrupt(before, 9)
    with pytest.raises(TrainingError, match="another model"):
        after.train(resume=True)
    trainer_with_stem(tmp_path, frozen[0]).train(resume=True)


def trainer_with_stem(folder: Path, frozen: bool) -> Trainer:
    run = trainer(folder)
    run.model.stem.requires_grad_(not frozen)
    data = run.train_dataset, run.test_dataset
    return Trainer(run.model, *data, CONFIG, output_dir=folder, progress=False)


def test_where_every_checkpoint_is_damaged_a_run_begins_anew(whole, tmp_path, caplog) -> None:
    stopped(tmp_path, 9)
    for path in checkpoints(tmp_path):
        DAMAGE["truncated"](path)
    trainer(tmp_path).train(resume=True)
    assert "starting afresh" in caplog.messages[-1]
    assert_same_files(tmp_path, whole)


@pytest.mark.parametrize("left", ["damaged", "none"])
def test_finished_weights_that_no_checkpoint_leads_to_are_not_overwritten(
    whole, tmp_path, left
) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    for path in checkpoints(tmp_path):
        path.unlink() if left == "none" else DAMAGE["truncated"](path)
    before = content(tmp_path, "*.safetensors")
    with pytest.raises(TrainingError, match="no checkpoint of it can be used; choose another"):
        trainer(tmp_path).train(resume=True)
    assert content(tmp_path, "*.safetensors") == before


def test_damaged_checkpoints_of_later_epochs_do_not_push_out_new_ones(tmp_path) -> None:
    for epoch in (3, 4):
        (tmp_path / f"checkpoint-{epoch:04d}.pt").write_bytes(b"damaged")
    for epoch in (1, 2):
        Output(tmp_path, Processes(), CONFIG, {}, keep=1).save(epoch, {})
    assert [int(path.stem[-4:]) for path in checkpoints(tmp_path)] == [4, 3, 2]


def test_any_flipped_byte_is_noticed_or_harmless(tmp_path) -> None:
    """Names, checksums and headers included: never an unexpected error, never other values."""
    expected, weights = {"model": "m"}, torch.arange(8.0)
    Output(tmp_path, Processes(), CONFIG, expected, keep=1).save(1, {"weights": weights})
    (path,) = checkpoints(tmp_path)
    assert torch.equal(read_checkpoint(path, expected)["weights"], weights)
    whole_file = path.read_bytes()
    for position in range(0, len(whole_file), 7):
        content = bytearray(whole_file)
        content[position] ^= 0xFF
        path.write_bytes(content)
        read = read_checkpoint(path, expected)
        assert read is None or torch.equal(read["weights"], weights)


def test_what_a_kill_left_half_written_is_removed(tmp_path) -> None:
    stopped(tmp_path, 9)
    before = set(tmp_path.iterdir())
    with atomic_file(tmp_path / "final.safetensors"):
        (partial,) = set(tmp_path.iterdir()) - before
    partial.write_bytes(b"half")
    trainer(tmp_path).train(resume=True)
    assert not list(tmp_path.glob(".*.partial"))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_resuming_is_exact_in_every_precision(tmp_path, precision) -> None:
    config = replace(CONFIG, precision=precision, max_epochs=2.5)
    trainer(tmp_path / "whole", config).train()
    stopped(tmp_path / "stopped", 7, config)
    trainer(tmp_path / "stopped", config).train(resume=True)
    names = ("final.safetensors", "final_ema.safetensors")
    assert_same_files(tmp_path / "stopped", tmp_path / "whole", names)


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_checkpoint_never_runs_code(tmp_path, writer, caplog) -> None:
    stopped(tmp_path, 9)
    target = tmp_path / "exploded"
    newest = checkpoints(tmp_path)[0]
    if writer == "torch":
        torch.save({"format": 1, "identity": Bomb(target)}, newest)
    else:
        newest.write_bytes(pickle.dumps(Bomb(target)))
    trainer(tmp_path).train(resume=True)
    assert "damaged or not a checkpoint" in caplog.text
    assert not target.exists()


def test_a_full_disk_leaves_the_old_checkpoint(whole, tmp_path) -> None:
    resource = pytest.importorskip("resource", reason="Windows has no limit for files")
    stopped(tmp_path, 9)
    before = content(tmp_path, "checkpoint-*")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # writing fails beyond that
    try:
        with pytest.raises(TrainingError, match="cannot save") as error:
            trainer(tmp_path).train(resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value)
    assert content(tmp_path, "*checkpoint-*") == before
    trainer(tmp_path).train(resume=True)
    assert_same_files(tmp_path, whole)


def test_a_loss_that_is_not_finite_saves_nothing_broken(tmp_path) -> None:
    run = trainer(tmp_path)
    update = run.update._plain

    def break_later(batches):
        if run.step == 9:
            with torch.no_grad():
                run.model.head[-1].weight.fill_(float("nan"))
        return update(batches)

    run.update._plain = break_later
    with pytest.raises(TrainingError, match="the loss is nan at step 10 of 16; lower"):
        run.train()
    for path in checkpoints(tmp_path):
        weights = torch.load(path, weights_only=True)["model"]
        assert all(value.isfinite().all() for value in weights.values())
