"""Values of flags, with a sentence for what they cannot be."""

from argparse import ArgumentTypeError


def whole(text: str) -> int:
    """A whole number from 0."""
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text} is no whole number from 0")
    return int(text)


def positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text} is no whole number above 0")
    return int(text)


def beam(text: str) -> int:
    """Texts that refinement holds."""
    value = positive(text)
    if value > 64:
        raise ArgumentTypeError(f"{value} is more than 64, and each step makes its square of texts")
    return value
