"""One update of the weights: plain, or recorded as a CUDA graph."""

import logging
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convnext_steps.text import first_line
from convnext_steps.training.batch_transforms import Preparation
from convnext_steps.training.checks import logits_of
from convnext_steps.training.distributed import Processes
from convnext_steps.training.graph import Step, record

LOG = logging.getLogger("convnext_steps")


class Update:
    """Updates a network's weights from one batch at a time.

    Args:
        network: as it is called in training.
        optimizer: of its parameters.
        preparation: of its batches.
        processes: those that train together.
        micro_batches: of this process, for one update.
        graph: whether to record the first update and replay it afterwards.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        preparation: Preparation,
        processes: Processes,
        micro_batches: int,
        graph: bool,
    ) -> None:
        self.network, self.optimizer = network, optimizer
        self.preparation, self.processes = preparation, processes
        self.config, self.micro_batches, self.graph = preparation.config, micro_batches, graph
        scales = self.config.precision == "fp16"
        self.scaler = torch.amp.GradScaler(processes.device.type, enabled=scales)
        self.recorded: Step | None = None

    def __call__(self, micro_batches: Iterable[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """Update the weights; return the loss of each micro-batch before it, on the device."""
        if not self.graph:
            return self._plain(micro_batches)
        images, labels = self.preparation.to_device(*next(iter(micro_batches)))
        if self.recorded is None:
            try:
                self.recorded = record(self._step, images, labels, self._tensors)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                first = error.__context__  # if a step fails, so does the end of the recording
                why = first_line(first if isinstance(first, Exception) else error)
                LOG.warning("the training step is not recorded as a graph: %s", why)
                self.graph = False
                return self._plain([(images, labels)])
        return [self.recorded(images, labels)]

    def _plain(self, batches: Iterable[tuple[Tensor, Tensor]]) -> list[Tensor]:
        losses = []
        self.optimizer.zero_grad()
        for part, batch in enumerate(batches, start=1):
            images, labels = self.preparation.for_training(*batch)
            with self.processes.accumulating(self.network, last=part == self.micro_batches):
                loss = self._loss(images, labels)
                losses.append(loss.detach())
                self.scaler.scale(loss / self.micro_batches).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return losses

    def _step(self, images: Tensor, labels: Tensor) -> Tensor:
        (loss,) = self._plain([(images, labels)])
        return loss

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        with self.preparation.autocast(cache=not self.graph):
            logits = logits_of(self.network(images))
            return F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)

    def _tensors(self) -> list[Tensor]:
        """All that an update changes; an optimiser has no tensors before its first step."""
        state = self.optimizer.state.values()
        kept = [value for values in state for value in values.values()]
        changed = [*self.network.parameters(), *self.network.buffers(), *kept]
        return [tensor.detach() for tensor in changed if isinstance(tensor, Tensor)]
