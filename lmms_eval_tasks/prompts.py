"""What the tasks show and ask: the image, and one function per question.

The words are the task's own, whatever the data says, and byte for byte those of `dataset_builder.questions`. Chat
models get the image first, then the question, in one turn: lmms-eval makes it of the two.

Source: the measurement specification, section 11.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dataset_builder import questions

if TYPE_CHECKING:
    from PIL.Image import Image

Document = Mapping[str, Any]


def doc_to_visual(doc: Document) -> list["Image"]:
    """The image of a document, in RGB, which every vision tower takes."""
    return [doc["image"].convert("RGB")]


def no_visual(_doc: Document) -> list["Image"]:
    """No image: the text-only control."""
    return []


def ask_count(_doc: Document) -> str:
    """How many dots, to be answered directly."""
    return questions.COUNT_QUESTION


def ask_reversed(_doc: Document) -> str:
    """How many dots, the units digit first."""
    return questions.REVERSED_QUESTION


def ask_words(_doc: Document) -> str:
    """How many dots, in one English word."""
    return questions.WORDS_QUESTION


def ask_steps(_doc: Document) -> str:
    """How many dots, counted step by step."""
    return questions.STEPS_QUESTION


def ask_echo(doc: Document) -> str:
    """To repeat the count of the document, which the question gives away."""
    return questions.ECHO_QUESTION.format(n=doc["count"])


def ask_number(_doc: Document) -> str:
    """Which number is written in the image."""
    return questions.NUMBER_QUESTION


def ask_relation(_doc: Document) -> str:
    """Where the black dot is, seen from the red one."""
    return questions.RELATION_QUESTION
