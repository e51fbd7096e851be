"""The quiz that ends a lesson: questions whose every choice explains itself once it is opened."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

FOLDER = Path(__file__).with_name("quizzes")
LETTERS = "abcdef"


@dataclass(frozen=True)
class Question:
    """A question as its file has it: each choice is a pair of text and reason."""

    text: str
    right: str  # the letter of the right choice
    choices: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Quiz:
    """Questions as a notebook shows them, alive or executed, and as slides and the site do."""

    questions: Sequence[Question]

    def __repr__(self) -> str:
        """Questions and choices as plain text, without the answers."""
        blocks = []
        for number, question in enumerate(self.questions, start=1):
            choices = zip(LETTERS, question.choices, strict=False)
            lines = [f"   {letter}) {text}" for letter, (text, _) in choices]
            blocks.append("\n".join([f"{number}. {question.text}", *lines]))
        return "\n\n".join(blocks)

    def _repr_html_(self) -> str:
        """Each choice unfolds to its explanation; neither a kernel nor a script is needed."""
        parts = []
        for number, question in enumerate(self.questions, start=1):
            heading = f"<strong>{number}. {escape(question.text)}</strong>"
            parts.append(f'<p style="margin-top: 1.2em">{heading}</p>')
            for letter, (text, why) in zip(LETTERS, question.choices, strict=False):
                verdict = "Right." if letter == question.right else "No."
                parts.append(
                    f"<details><summary>{escape(text)}</summary>"
                    f"<p><strong>{verdict}</strong> {escape(why)}</p></details>"
                )
        return "\n".join(parts)


def quiz(notebook: str) -> Quiz:
    """The quiz of a lesson: `quizzes/NOTEBOOK.toml`, so that no cell of the lesson gives it away.

    Args:
        notebook: the lesson's name, such as "03_resnextify".

    Raises:
        FileNotFoundError: the lesson has no quiz.
    """
    content = tomllib.loads((FOLDER / f"{notebook}.toml").read_text(encoding="utf-8"))
    return Quiz([Question(**question) for question in content["question"]])
