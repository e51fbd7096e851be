"""The folder of one training: its history, its checkpoints and its weights."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from convnext_steps.training.checkpoint import (
    clear,
    clear_partial,
    load_newest,
    save_checkpoint,
    save_weights,
)
from convnext_steps.training.config import TrainingConfig
from convnext_steps.training.distributed import Processes
from convnext_steps.training.files import write_bytes

HISTORY = "history.jsonl"


class Output:
    """Reads and writes a training's files, in the main process only.

    Args:
        folder: where they are; without one, nothing is read or written.
        processes: those that train together.
        config: the recipe.
        identity: what a checkpoint must have in common with this training.
    """

    def __init__(
        self,
        folder: str | Path | None,
        processes: Processes,
        config: TrainingConfig,
        identity: Mapping[str, str],
    ) -> None:
        self.folder = Path(folder) if folder and processes.main else None
        self.processes, self.config, self.identity = processes, config, identity

    def newest(self) -> dict[str, Any] | None:
        """The newest checkpoint, in every process; None where there is none."""
        return self.processes.from_main(self._newest)

    def _newest(self) -> dict[str, Any] | None:
        return load_newest(self.folder, self.identity) if self.folder else None

    def begin(self, history: Sequence[Mapping[str, float]], anew: bool) -> None:
        """Make the folder and write the history so far; a run that begins anew clears it first."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        clear_partial(self.folder)
        if anew:
            clear(self.folder)
        lines = "".join(json.dumps(entry) + "\n" for entry in history)
        write_bytes(self.folder / HISTORY, lines.encode())

    def log(self, entry: Mapping[str, float]) -> None:
        """Append an entry to the history."""
        if self.folder:
            with (self.folder / HISTORY).open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")

    def save(self, epoch: int, state: Mapping[str, Any]) -> None:
        """Write the checkpoint of an epoch."""
        if self.folder:
            state = {"identity": dict(self.identity), **state}
            save_checkpoint(self.folder, epoch, state, self.config.keep_checkpoints)

    def save_weights(self, name: str, model: nn.Module, accuracy: float) -> None:
        """Write a model's weights."""
        if self.folder:
            save_weights(self.folder / f"{name}.safetensors", model, self.config, accuracy)
