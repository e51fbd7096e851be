"""What a study shows while it runs: each result as it comes, and the figure from the second on."""

import logging
import time
from pathlib import Path

from tqdm import tqdm

from convnext_steps.errors import ResultError
from convnext_steps.execution.report import report
from convnext_steps.execution.runfolder import result_of
from convnext_steps.study.plan import Run
from convnext_steps.study.results import read_results
from convnext_steps.study.study import Study
from convnext_steps.text import first_line

LOG = logging.getLogger("convnext_steps")

REDRAW_SECONDS = 30.0  # a drawing takes a second or two from the trainings


class Live:
    """Keeps a study's table and figure up to date while its runs end.

    Args:
        study: the study.
        results: the results folder.
    """

    def __init__(self, study: Study, results: Path) -> None:
        self.study, self.results = study, results
        steps = {} if study.factorial else study.steps()  # whose networks' seeds differ
        self.parents = {name: step.parent for name, step in steps.items()}
        self.accuracy = {found["hash"]: found["accuracy"] for found in read_results(results)}
        self.finished = 0  # of this study, since it went on
        self.drawn = 0.0

    def ended(self, run: Run) -> None:
        """Print a line about a run that is done, and draw the figure anew if it is time."""
        try:
            result = result_of(run, run.folder(self.results))
        except ResultError:  # another runner's, somewhere else
            return
        self.accuracy[run.hash] = result["accuracy"]
        gain = self._gain(run)
        seconds = f"{sum(result['seconds'].values()):.0f} s"
        tqdm.write(f"{run.name}: {result['accuracy']:.2f} %{gain}, {seconds}")
        self.finished += 1
        if self.finished > 1 and time.monotonic() - self.drawn > REDRAW_SECONDS:
            self.draw()

    def _gain(self, run: Run) -> str:
        parent = self.parents.get(run.step)
        if parent is None:
            return ""
        (before,) = self.study.plan([run.seed], [parent])
        if before.hash not in self.accuracy:
            return ""
        gain = self.accuracy[run.hash] - self.accuracy[before.hash]
        return f" ({gain:+.2f} on {parent})"

    def draw(self) -> None:
        """Write the table and the figure of the results so far, as far as they can be drawn."""
        try:
            report(self.study, self.results)
        except ResultError:  # none is of the study's own steps
            pass
        except ValueError as error:  # words that matplotlib cannot draw
            LOG.warning("no figure: %s", first_line(error))
        self.drawn = time.monotonic()
