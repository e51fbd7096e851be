"""The course in its order: three parts, and the notebooks of each."""

from dataclasses import dataclass

from convnext_steps.models.roadmap import Step, roadmap

PARTS = ("The roadmap", "The craft of ablations", "Your own")


@dataclass(frozen=True)
class Section:
    """One notebook of the course; `number` is the paper's section whose steps it teaches, or ""."""

    part: str
    notebook: str
    title: str
    number: str = ""

    def steps(self) -> list[Step]:
        """The section's steps, in the order of the roadmap."""
        return [step for step in roadmap().values() if step.section == self.number]

    def names(self) -> list[str]:
        """What to train for this section: the step that it starts from, if any, and its own."""
        names = [step.name for step in self.steps()]
        start = roadmap()[names[0]].parent if names else None
        return [start, *names] if start else names


ROADMAP, CRAFT, OWN = PARTS
SECTIONS = (
    Section(ROADMAP, "00_overview", "Overview"),
    Section(ROADMAP, "01_training_recipe", "Training recipe", "2.1"),
    Section(ROADMAP, "02_macro_design", "Macro design", "2.2"),
    Section(ROADMAP, "03_resnextify", "ResNeXt-ify", "2.3"),
    Section(ROADMAP, "04_inverted_bottleneck", "Inverted bottleneck", "2.4"),
    Section(ROADMAP, "05_large_kernels", "Large kernels", "2.5"),
    Section(ROADMAP, "06_micro_design", "Micro design", "2.6"),
    Section(ROADMAP, "07_family", "The family"),
    Section(ROADMAP, "08_trajectory", "The trajectory"),
    Section(CRAFT, "09_seeds", "What a seed can tell"),
    Section(CRAFT, "10_learning_rate", "Learning rate"),
    Section(CRAFT, "11_budget", "Budget"),
    Section(CRAFT, "12_fit", "Fit and generalisation"),
    Section(CRAFT, "13_another_data_set", "Another data set"),
    Section(CRAFT, "14_leave_one_out", "Leave one out"),
    Section(CRAFT, "15_order", "Every order at once"),
    Section(OWN, "16_bring_your_own_step", "A step of your own"),
    Section(OWN, "17_stem_stride", "Stem stride"),
    Section(OWN, "18_flops_are_not_seconds", "FLOPs are not seconds"),
    Section(OWN, "19_inside", "Inside a trained network"),
)


def find_section(number: str) -> Section:
    """The section of the course that teaches one of the paper's.

    Raises:
        ValueError: the paper has no such section with steps.
    """
    known = {section.number: section for section in SECTIONS if section.number}
    if number not in known:
        raise ValueError(f"no section {number!r} has steps; choose from {', '.join(known)}")
    return known[number]
