"""One of the processes that train a run together, as torchrun starts it."""

import json
import sys
from pathlib import Path

from convnext_steps.execution.parent import follow_parent
from convnext_steps.execution.train_run import steps_in_process, write_trained
from convnext_steps.study.plan import Run, read_run
from convnext_steps.training.distributed import join
from convnext_steps.training.stepwise import finish
from convnext_steps.training.trainer import seed_everything


def train_share(run: Run, output: Path) -> None:
    """Train with the other processes; the first of them writes the outcome."""
    processes = join(run.how.device)
    with processes.main_first():  # it downloads; the others find what it downloaded
        train, test = run.load_data()
    seed_everything(run.seed)
    trained = finish(steps_in_process(run, run.build(train), train, test, output))
    if processes.main:
        write_trained(trained, output)


if __name__ == "__main__":
    follow_parent()  # torchrun
    train_share(read_run(json.loads(sys.argv[1])), Path(sys.argv[2]))
