"""The explorer inside a notebook: a step to choose, and what it changes and costs."""

from html import escape

from IPython.display import display
from ipywidgets import HTML, Dropdown, VBox

from convnext_steps.course.executed import WIDGET
from convnext_steps.course.explorer import step_drawing
from convnext_steps.measure.diff import step_diff
from convnext_steps.measure.flops import count_flops
from convnext_steps.models.roadmap import find_step, roadmap
from convnext_steps.study.statistics import comparisons


def explore(step: str = "separate_downsampling") -> None:
    """Display a choice of steps, and the drawing, the counts and the diff of the chosen one.

    Where widgets cannot be shown, as in slides and on the site, the first step stays as a picture.

    Args:
        step: the one to begin with.

    Raises:
        ValueError: the step does not exist.
    """
    page = step_page(step)
    titles = [(known.title, name) for name, known in roadmap().items()]
    choice = Dropdown(options=titles, value=step, description="Step")
    shown = HTML(page)

    def show(change: dict[str, str]) -> None:
        shown.value = step_page(change["new"])

    choice.observe(show, names="value")
    view = {"version_major": 2, "version_minor": 0, "model_id": VBox([choice, shown]).model_id}
    display({WIDGET: view, "text/html": shown.value}, raw=True)  # a page takes what it can show


def step_page(name: str) -> str:
    """One step as HTML: the paper's claim, the drawing, the counts, the diff."""
    step, steps = find_step(name), roadmap()
    against = steps.get(comparisons(steps).get(name, ""))
    drawing, caption = step_drawing(step, against)
    diff = str(step_diff(against, step)) if against else str(step.design)
    count = count_flops(step.build())
    return (
        f"<p>{escape(step.claim)}</p>{drawing._repr_html_()}<p>{escape(caption)}</p>"
        f"<p>At 224×224: {count}.</p><pre>{escape(diff)}</pre>"
    )
