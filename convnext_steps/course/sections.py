"""The sections of the course in their order."""

from dataclasses import dataclass

from convnext_steps.models.roadmap import Step, roadmap


@dataclass(frozen=True)
class Section:
    """One notebook of the course; `number` is the paper's section whose steps it teaches, or ""."""

    notebook: str
    title: str
    number: str = ""

    def steps(self, regime: str = "tiny") -> list[Step]:
        """The section's steps, in the order of the roadmap."""
        return [step for step in roadmap(regime).values() if step.section == self.number]

    def names(self, regime: str = "tiny") -> list[str]:
        """What to train for this section: the step that it starts from, if any, and its own."""
        names = [step.name for step in self.steps(regime)]
        start = roadmap(regime)[names[0]].parent if names else None
        return [start, *names] if start else names


SECTIONS = (
    Section("00_overview", "Overview"),
    Section("01_training_recipe", "Training recipe", "2.1"),
    Section("02_macro_design", "Macro design", "2.2"),
    Section("03_resnextify", "ResNeXt-ify", "2.3"),
    Section("04_inverted_bottleneck", "Inverted bottleneck", "2.4"),
    Section("05_large_kernels", "Large kernels", "2.5"),
    Section("06_micro_design", "Micro design", "2.6"),
    Section("07_family", "The family"),
    Section("08_trajectory", "The trajectory"),
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
