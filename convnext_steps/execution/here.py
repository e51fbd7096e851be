"""Runs trained in this process."""

import logging
from pathlib import Path

from convnext_steps.execution.lock import hold
from convnext_steps.execution.runfolder import done
from convnext_steps.execution.train_run import PARTIAL_RESULT, train_run, write_partial_result
from convnext_steps.measure.flops import count_flops
from convnext_steps.study.plan import Run
from convnext_steps.study.results import RESULT
from convnext_steps.training.trainer import seed_everything

LOG = logging.getLogger("convnext_steps")


def train_here(run: Run, results: str | Path) -> None:
    """Train one run and write its result, unless it is there.

    For steps that only this process knows; `run_study` trains each run in a process of its own.

    Raises:
        HeldError: another process works on the run.
    """
    folder = run.folder(results)
    if done(run, results):
        LOG.warning("%s is done already; to train it anew, remove %s", run.name, folder)
        return
    with hold(folder):
        seed_everything(run.seed)
        train, test = run.load_data()
        model = run.build(train)
        count = count_flops(model, resolution=train[0][0].shape[-1])
        trained = train_run(run, model, train, test, output=None)
        write_partial_result(run, folder, count, trained)
        (folder / PARTIAL_RESULT).replace(folder / RESULT)
