"""Runs as tasks of Ray Core, on one machine or many that share the results folder."""

import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

from convnext_steps.execution.backends import Outcome
from convnext_steps.execution.local import LocalAttempt
from convnext_steps.execution.machine import cores
from convnext_steps.execution.pool import AT_ONCE
from convnext_steps.execution.runfolder import done
from convnext_steps.execution.work import do_run
from convnext_steps.study.plan import Run
from convnext_steps.text import first_line
from convnext_steps.training.how import How

LOST_NODES = 10  # times that a task is restarted because its node or its worker is gone
POLL_SECONDS = 0.5
STOP_SECONDS = 10.0


class RayBackend:
    """Attempts as tasks, restarted elsewhere when their node is lost.

    Each takes one GPU per process where nodes have some (without a notebook and with one process,
    an eighth of one), otherwise one core per process. All are queued at once, so that an
    autoscaling cluster sees the demand.

    Args:
        address: of a running cluster, such as "auto"; "local": a cluster of this machine alone is
            made and ended.

    Raises:
        ValueError: Ray is not installed, or there is no cluster at the address.
    """

    workers = sys.maxsize

    def __init__(self, address: str = "local") -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError:
            raise ValueError("--backend ray needs: pip install 'convnext-steps[ray]'") from None
        self.ray: Any = ray
        self.references: list[Any] = []
        own = {} if address != "local" else {"num_cpus": cores(), "include_dashboard": False}
        quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
        try:
            self.ray.init(address, **own, **quiet)
        except (ConnectionError, RuntimeError) as error:
            raise ValueError(f"no Ray cluster at {address}: {first_line(error)}") from None
        self.gpus = int(max(node["Resources"].get("GPU", 0) for node in self.ray.nodes()))
        anew = {"max_calls": 1} if self.gpus else {}  # else a worker keeps its GPU and its memory
        spread = {"max_retries": LOST_NODES, "scheduling_strategy": "SPREAD"}
        self.task = self.ray.remote(**spread, **anew)(attempt)

    def start(self, run: Run, results: Path) -> "RayAttempt":
        """Queue one attempt."""
        task = self.task.options(name=run.name, **self._needs(run.how))
        reference = task.remote(run, results.resolve())
        self.references.append(reference)
        return RayAttempt(self.ray, reference, run, results)

    def _needs(self, how: How) -> dict[str, float]:
        gpus = min(how.processes, self.gpus) if how.device in ("auto", "cuda") else 0
        if not gpus:
            return {"num_cpus": how.processes}
        return {"num_gpus": gpus if how.notebooks or gpus > 1 else 1 / AT_ONCE}

    def close(self) -> None:
        """Give stopped tasks time to end their processes."""
        if self.references:
            self.ray.wait(self.references, num_returns=len(self.references), timeout=STOP_SECONDS)
        self.ray.shutdown()


class RayAttempt:
    """One attempt somewhere in the cluster."""

    def __init__(self, ray: Any, reference: Any, run: Run, results: Path) -> None:
        self.ray, self.reference, self.run, self.results = ray, reference, run, results
        self.future = reference.future()

    def outcome(self) -> Outcome | None:
        """How it ended; None while it is queued or lasts."""
        if not self.future.done():
            return None
        try:
            outcome: Outcome = self.future.result()
        except self.ray.exceptions.RayError as error:
            return Outcome("failed", first_line(getattr(error, "cause", None) or error))
        if outcome.state == "done" and not done(self.run, self.run.folder(self.results)):
            return Outcome("failed", f"no result in {self.results}; do all nodes share it?")
        return outcome

    def stop(self) -> None:
        """Interrupt the task, which ends its process."""
        self.ray.cancel(self.reference)


def attempt(run: Run, results: Path) -> Outcome:
    """One attempt from its beginning to its end, in a worker of Ray."""
    if not run.how.notebooks:
        torch.set_num_threads(1)
        try:
            do_run(run, results)
        except Exception as error:  # a training can fail in any way
            return Outcome.of(error)
        return Outcome.of(None)
    local = LocalAttempt(run, results)
    try:
        while (outcome := local.outcome()) is None:
            time.sleep(POLL_SECONDS)
        return outcome
    finally:
        local.stop()
