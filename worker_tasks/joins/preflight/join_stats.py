"""Statistics of one join: its keys, and its effect on a sample of the left side. Pure."""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from worker_tasks.joins.preflight.sampling import CollectionSample
from worker_tasks.joins.spec.spec import Join, KeyPair


@dataclass(frozen=True)
class KeyStats:
    """The values of one pair of keys.

    ``left`` counts the BSON types of the left values in the sample, each element of a list by itself. ``empty`` is the
    share of rows without a value, ``nan_rows`` the number of rows with no value other than NaN. ``left_paths`` are the
    fields that the left key could name.
    """

    pair: KeyPair
    left: Counter[str]
    empty: float
    left_paths: frozenset[str]
    other: CollectionSample
    nan_rows: int = 0

    @property
    def left_types(self) -> dict[str, float]:
        """The share of each BSON type among the left values."""
        return {name: count / self.left.total() for name, count in self.left.items()}

    @property
    def other_types(self) -> dict[str, float]:
        """The share of each BSON type among the other side's values, except lists."""
        field = self.other.field(self.pair.foreign)
        return {} if field is None else {name: share for name, share in field.types.items() if name != "array"}


class Trial(NamedTuple):
    """The number of rows that find a match after a change to the pair at this index: to its cast or to its fold."""

    pair_index: int
    field: Literal["cast", "fold"]
    value: str
    matched: int


@dataclass(frozen=True)
class JoinStats:
    """The effect of one join on the rows before it, as far as a sample shows it. None stands for unknown.

    ``matched`` rows have a match. On average a row has ``mean_matches``, of which the join's limit leaves
    ``mean_kept``. ``max_matches`` is the largest number of matches of one key, ``max_key`` that key as a list of
    its parts. ``other_matched`` is the number of documents on the other side that match at least one row.
    ``is_whole``: the sample holds the whole left side. ``matched_in_sample`` rows have a match in a sample of the other
    side, if that is all that could be read. ``matched_unfiltered`` rows would have a match without the join's own
    filter. The trials are changes to the join that would add matches. ``per_row`` is the number of elements in each
    row, if the matches go into the elements of a list.
    """

    number: int
    join: Join
    rows: int
    keys: list[KeyStats]
    other: CollectionSample
    matched: int | None = None
    mean_matches: float | None = None
    mean_kept: float = 0.0
    other_matched: int = 0
    max_matches: int = 0
    max_key: Any = None
    is_whole: bool = False
    matched_in_sample: int | None = None
    matched_unfiltered: int | None = None
    cast_trial: Trial | None = None
    fold_trial: Trial | None = None
    per_row: float = 1.0

    @property
    def rate(self) -> float | None:
        """The share of rows that have a match."""
        return None if self.matched is None or not self.rows else self.matched / self.rows

    @property
    def has_unique_key(self) -> bool:
        """Whether the other side has a unique index on these keys, or on some of them."""
        paths = {pair.foreign for pair in self.join.on}
        return any(set(unique) <= paths for unique in self.other.unique)
