"""Numbers as people type them. Pure: no I/O."""

import re

#: A comma separates groups of three digits, and nothing else: in 1,5 it may be meant as a decimal point.
_NUMBER = re.compile(r"[+-]?(([0-9]+|[0-9]{1,3}(,[0-9]{3})+)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


def numeric_text(text: str) -> str:
    """A typed number without its separators, such as ``1500`` for ``1,500``.

    Raises:
        ValueError: the text is not a number; the message is for people.
    """
    stripped = text.strip()
    if not _NUMBER.fullmatch(stripped):
        raise ValueError(f"“{text}” is not a number{_hint(stripped)}.")
    return stripped.replace(",", "")


def whole_number(text: str) -> int:
    """A typed whole number without a sign.

    Raises:
        ValueError: the text is none.
    """
    digits = numeric_text(text)
    if not digits.isdecimal():
        raise ValueError(f"“{text}” is not a whole number.")
    return int(digits)


def _hint(text: str) -> str:
    return ": write a point before its decimals, such as 1.5" if "," in text else ""
