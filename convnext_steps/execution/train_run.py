"""The training of one run: in this process, or in several that torchrun starts."""

import base64
import io
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from convnext_steps.device import device_name
from convnext_steps.errors import TrainingError
from convnext_steps.execution.evidence import environment
from convnext_steps.execution.parent import follow_parent
from convnext_steps.files import write_bytes
from convnext_steps.study.plan import Run
from convnext_steps.training.distributed import LAUNCHED, join
from convnext_steps.training.evaluation import Evaluation, evaluate
from convnext_steps.training.images import ImageData
from convnext_steps.training.stepwise import finish
from convnext_steps.training.trainer import Trainer, seed_everything

TRAINED = "training.partial.json"
FIT_IMAGES = 2_000  # of the training images, on which each result says how well it fits them


@dataclass(frozen=True)
class Trained:
    """The outcome of a run's training."""

    evaluation: Evaluation
    fit: Evaluation | None  # on the first training images, without augmentation
    history: Sequence[Mapping[str, float]]
    steps: int
    seconds: Mapping[str, float]
    environment: Mapping[str, Any] = field(default_factory=dict)  # when it began


Training = Generator[None, None, Trained]  # stops after each step


def training_steps(
    run: Run, model: nn.Module, train: ImageData, test: ImageData, output: Path
) -> Training:
    """Train and evaluate as the run's recipe says, resuming from a checkpoint in `output`.

    A run of several processes is trained by torchrun, which builds the same model in each of them;
    on GPUs there is one process per GPU, and no more than there are.
    """
    processes = run.how.processes_here
    made_with = environment() | {"device": device_name(run.how.device), "processes": processes}
    for name in LAUNCHED[1:]:  # set by what launched the study, not by torchrun
        os.environ.pop(name, None)
    if processes == 1:
        trained = yield from steps_in_process(run, model, train, test, output)
    else:
        trained = _train_together(run, processes, output)
    return replace(trained, environment=made_with)


def steps_in_process(
    run: Run, model: nn.Module, train: ImageData, test: ImageData, output: Path
) -> Training:
    """Train in this process, together with those that torchrun started with it, if any."""
    shown = run.how.notebooks
    trainer = Trainer(model, train, test, run.config, output, progress=shown, how=run.how)
    evaluation = yield from trainer.steps(resume=True)
    known = train.first(min(FIT_IMAGES, len(train))).prepared(run.config, training=False)
    how = trainer.preparation, trainer.processes, run.how.data_workers
    fit = evaluate(trainer.compiled, known, *how)
    return Trained(evaluation, fit, trainer.history, trainer.step, trainer.seconds)


def _train_together(run: Run, processes: int, output: Path) -> Trained:
    """Start torchrun, pass on its output, and read what the first of its processes wrote."""
    worker = Path(__file__).with_name("worker.py")
    command = [sys.executable, "-P", str(worker), "torch.distributed.run", "--standalone"]
    command += ["--local-addr", "localhost", "--nproc-per-node", str(processes)]
    command += ["-m", __name__, base64.b64encode(pickle.dumps(run)).decode(), str(output)]
    environment = {"OMP_NUM_THREADS": "1"} | os.environ
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,  # closed when this process ends: the worker follows
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
    ) as process:
        assert isinstance(process.stdout, io.BufferedReader)
        try:
            while words := process.stdout.read1():
                print(words.decode(errors="replace"), end="", flush=True)
        finally:
            process.terminate()
    if process.returncode != 0:
        raise TrainingError(f"one of {processes} processes failed; its messages are above")
    return read_trained(output)


def train_share(run: Run, output: Path) -> None:
    """Train with the other processes that torchrun started; the first writes the outcome."""
    processes = join(run.how.device)
    train, test = run.load_data()
    seed_everything(run.seed)
    trained = finish(steps_in_process(run, run.build(train), train, test, output))
    if processes.main:
        write_bytes(output / TRAINED, json.dumps(asdict(trained)).encode())


def read_trained(output: Path) -> Trained:
    """Read what `train_share` left, and remove it."""
    content = json.loads((output / TRAINED).read_text(encoding="utf-8"))
    (output / TRAINED).unlink()
    found = {name: Evaluation(**content[name]) for name in ("evaluation", "fit")}
    return Trained(**content | found)


if __name__ == "__main__":  # one of the processes, as torchrun starts it
    follow_parent()
    train_share(pickle.loads(base64.b64decode(sys.argv[1])), Path(sys.argv[2]))
