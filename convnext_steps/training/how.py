"""How the work is done: at most rounding and random draws depend on it."""

from dataclasses import dataclass
from typing import Literal

from convnext_steps.device import gpus
from convnext_steps.training.config import check_types, option, require

OF_THE_STUDY = ("workers", "notebooks", "keep_weights")  # not of one training


@dataclass(frozen=True, kw_only=True)
class How:
    """How a training is done; what is computed is the recipe's, `TrainingConfig`.

    `device`, `fast_cpu`, `compile`, `graph` and `processes` change rounding; `device` and
    `processes` also change which random numbers a batch's augmentations draw. On a CPU a training
    repeats its bits; on a GPU it does with `deterministic`.

    Raises:
        ValueError: a field is out of range.
    """

    device: Literal["auto", "cpu", "cuda", "mps"] = option(
        "auto", "auto: a GPU through CUDA where there is one, else the CPU; cpu, cuda or mps"
    )
    processes: int = option(1, "that train one run of a study together; on GPUs, one per GPU")
    workers: Literal["auto"] | int = option("auto", "runs at once; auto: by cores or GPUs")
    notebooks: bool = option(True, "each run in an executed notebook; else many in one process")
    checkpoint_every: int = option(1, "epochs; 0: never")
    keep_checkpoints: int = option(2, "how many of the newest checkpoints stay")
    keep_weights: bool = option(False, "keep a run's trained weights beside its result")
    data_workers: int = option(0, "processes that load images; 0: in the training process itself")
    fast_cpu: bool = option(True, "on a CPU, use layers that train faster")
    compile: bool = option(False, "use torch.compile")
    graph: bool = option(True, "on a GPU, record the training step as a CUDA graph")
    deterministic: bool = option(False, "on a GPU, repeat the same bits; slower")

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("processes", "keep_checkpoints"):
            require(self, name, getattr(self, name) >= 1, "must be at least 1")
        require(self, "workers", self.workers == "auto" or self.workers >= 1, "must be at least 1")
        for name in ("checkpoint_every", "data_workers"):
            require(self, name, getattr(self, name) >= 0, "must be 0 or more")

    @property
    def processes_here(self) -> int:
        """How many processes train one run on this machine: on GPUs, no more than there are."""
        return min(self.processes, gpus(self.device) or self.processes)
