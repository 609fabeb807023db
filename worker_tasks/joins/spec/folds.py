"""The differences between two texts that need not count when keys are compared, one row each. Pure."""

from dataclasses import dataclass
from typing import Literal

#: Repeats the names in the table, because type checkers cannot compute a type. A test compares the two.
Fold = Literal["case", "blanks", "both"]


@dataclass(frozen=True, kw_only=True)
class Folding:
    """A set of differences that do not count: ``case`` of letters, ``blanks`` at the ends and repeated ones inside.

    ``label`` is its text in a list of choices. Values other than texts are compared unchanged.
    """

    name: Fold
    label: str
    case: bool = False
    blanks: bool = False

    def apply(self, text: str) -> str:
        """The text without the differences that do not count."""
        stripped = " ".join(text.split()) if self.blanks else text
        return stripped.casefold() if self.case else stripped


FOLDS: dict[str, Folding] = {
    folding.name: folding
    for folding in (
        Folding(name="case", label="ignore capitals", case=True),
        Folding(name="blanks", label="ignore blanks", blanks=True),
        Folding(name="both", label="ignore capitals and blanks", case=True, blanks=True),
    )
}
