"""The folder of one training: history, checkpoints, weights, and what may go on from them.

Everything is written atomically; a checkpoint is checked before it is trusted, and read without
executing code.
"""

import json
import logging
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors.torch import save as safetensors_bytes
from torch import nn
from torch.utils._pytree import tree_map

from convnext_steps.errors import TrainingError, reworded
from convnext_steps.files import atomic_file, check_writable, clear_partial, expanded, write_bytes
from convnext_steps.training.config import TrainingConfig
from convnext_steps.training.distributed import Processes
from convnext_steps.training.identity import design_of, named, weights_of

LOG = logging.getLogger("convnext_steps")

FORMAT = 2  # of checkpoints
METADATA = "convnext_steps"  # the key in a file of weights
HISTORY = "history.jsonl"
LOCK = "training.lock"  # stays, empty, as long as anyone may train here
FINAL = "final"
WEIGHTS = ("best", FINAL, f"{FINAL}_ema")


def copied(state: Any) -> Any:
    """A copy of a state in the CPU's memory, which does not change as training goes on."""
    return tree_map(
        lambda x: x.detach().to("cpu", copy=True) if isinstance(x, torch.Tensor) else x, state
    )


class Output:
    """Reads and writes the files of a training, in the main process only.

    Args:
        folder: where they are; without one, nothing is read or written.
        processes: those that train together.
        config: the recipe.
        identity: what a checkpoint must have in common with this training.
        keep: how many of the newest checkpoints stay.
        classes: names of the classes, for the metadata of weights.

    Raises:
        TrainingError: the folder cannot be written to.
    """

    def __init__(
        self,
        folder: str | Path | None,
        processes: Processes,
        config: TrainingConfig,
        identity: Mapping[str, str],
        keep: int,
        classes: Sequence[str] = (),
    ) -> None:
        self.folder = expanded(folder) if folder and processes.main else None
        self.processes, self.config = processes, config
        self.identity, self.keep, self.classes = identity, keep, classes
        self.lock = FileLock(self.folder / LOCK if self.folder else LOCK)
        processes.from_main(self._check_writable)

    def _check_writable(self) -> None:
        if self.folder:
            with reworded(kind=TrainingError):
                check_writable(self.folder)

    @contextmanager
    def held(self) -> Iterator[None]:
        """A block in which no other training works in the folder, which is created.

        Raises:
            TrainingError: another one does.
        """
        self.processes.from_main(self._hold)
        try:
            yield
        finally:
            self.lock.release()

    def _hold(self) -> None:
        if self.folder:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                self.lock.acquire(timeout=0)
            except Timeout:
                raise TrainingError(
                    f"another training is working in {self.folder}; choose another folder"
                ) from None

    def check_unused(self) -> None:
        """Refuse a folder that holds an earlier training.

        Raises:
            TrainingError: it has checkpoints or weights.
        """
        if self.folder and (found := trained_files(self.folder)):
            resume = "resume from it with resume=True (--resume), or "
            raise TrainingError(
                f"{self.folder} has {found[0].name} of an earlier training; "
                f"{resume if checkpoints(self.folder) else ''}choose another folder"
            )

    def newest(self) -> dict[str, Any] | None:
        """The newest checkpoint that is whole; None if there is none.

        Each damaged one is named in a warning.

        Raises:
            TrainingError: the newest whole one belongs to another training, or there is none and
                an earlier training has finished here; nothing is overwritten.
        """
        if self.folder is None:
            return None
        found = checkpoints(self.folder)
        for path in found:
            if (state := read_checkpoint(path, self.identity)) is not None:
                return state
            LOG.warning("%s is damaged or not a checkpoint of this version", path)
        if (final := self.folder / f"{FINAL}.safetensors").exists():
            raise TrainingError(
                f"{final} is of an earlier training, and no checkpoint of it can be used; "
                "choose another folder"
            )
        if found:
            LOG.warning("no checkpoint in %s can be used; starting afresh", self.folder)
        return None

    def begin(self, history: Sequence[Mapping[str, float]]) -> None:
        """Write the history so far."""
        if self.folder is None:
            return
        clear_partial(self.folder)
        lines = "".join(json.dumps(entry) + "\n" for entry in history)
        write_bytes(self.folder / HISTORY, lines.encode())

    def log(self, entry: Mapping[str, float]) -> None:
        """Append an entry to the history."""
        if self.folder:
            with (self.folder / HISTORY).open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")

    def save(self, epoch: int, state: Mapping[str, Any]) -> None:
        """Write the checkpoint of an epoch; of those up to this epoch, keep the newest `keep`.

        Raises:
            TrainingError: the file cannot be written; older checkpoints stay as they are.
        """
        if self.folder is None:
            return
        path = self.folder / f"checkpoint-{epoch:04d}.pt"
        try:
            with atomic_file(path) as file:
                torch.save({"format": FORMAT, "identity": dict(self.identity), **state}, file)
        except (OSError, RuntimeError) as error:  # a full disk is either, by where torch meets it
            raise TrainingError(
                f"cannot save {path}: {error.__cause__ or error}; free some space and resume"
            ) from None
        earlier = [found for found in checkpoints(self.folder) if _epoch(found) <= epoch]
        for old in earlier[self.keep :]:
            old.unlink()

    def save_weights(self, name: str, model: nn.Module, accuracy: float) -> None:
        """Write a model's weights as safetensors, under one of the names in `WEIGHTS`.

        In the metadata are design, recipe, accuracy, and the names of the classes, in their order.

        Raises:
            TrainingError: the file cannot be written.
        """
        if self.folder is None:
            return
        path = self.folder / f"{name}.safetensors"
        metadata = {
            "model": type(model).__name__,
            "design": design_of(model),
            "recipe": asdict(self.config),
            "accuracy": accuracy,
            "classes": list(self.classes),
        }
        # copied: names may share their memory, which safetensors refuses
        weights = {
            key: value.contiguous().cpu().clone() for key, value in weights_of(model).items()
        }
        try:
            # under one key: safetensors would write several in random order
            write_bytes(
                path, safetensors_bytes(weights, {METADATA: json.dumps(metadata, default=named)})
            )
        except OSError as error:
            raise TrainingError(f"cannot save {path}: {error}") from None


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the newest first."""
    found = [path for path in folder.glob("checkpoint-*.pt") if re.search(r"-\d+\.pt$", path.name)]
    return sorted(found, key=_epoch, reverse=True)


def _epoch(checkpoint: Path) -> int:
    return int(checkpoint.stem.split("-")[1])


def trained_files(folder: Path) -> list[Path]:
    """The checkpoints and weights in a folder."""
    weights = [folder / f"{name}.safetensors" for name in WEIGHTS]
    return checkpoints(folder) + [path for path in weights if path.exists()]


def clear(folder: Path) -> None:
    """Remove the checkpoints, weights and lock of a training, and any half-written files."""
    for path in [*trained_files(folder), folder / LOCK]:
        path.unlink(missing_ok=True)
    clear_partial(folder)


def read_checkpoint(path: Path, expected: Mapping[str, str]) -> dict[str, Any] | None:
    """A checkpoint's content, if it is whole and of this version.

    Raises:
        TrainingError: it is of another model, data set or recipe.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            whole = archive.testzip() is None  # each part matches its checksum
        state = torch.load(path, map_location="cpu", weights_only=True) if whole else None
    except Exception:  # a damaged file can fail in many ways
        return None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        return None
    theirs = state.get("identity")
    if not isinstance(theirs, dict) or set(theirs) != set(expected):
        return None
    for part, ours in expected.items():
        then, now = theirs[part], ours
        if part == "recipe":  # in which 1 and 1.0 are the same
            then, now = json.loads(then), json.loads(ours)
        if then != now:
            difference = _difference(then, now) if part == "recipe" else ""
            raise TrainingError(
                f"{path} is of another {part}{difference}; choose another output folder, or go "
                f"back to the {part} that it has"
            )
    return state


def _difference(theirs: Any, ours: Any) -> str:
    names = sorted(name for name in {*theirs, *ours} if theirs.get(name) != ours.get(name))
    return f" ({', '.join(f'{n}: {theirs.get(n)}, now {ours.get(n)}' for n in names)})"
