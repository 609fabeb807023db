"""JoinSpec: the validated description of a join, its canonical form and its fingerprint.

The fingerprint does not depend on the order or spacing of the description's JSON. Values are never normalised.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.json_schema import SkipJsonSchema, WithJsonSchema

from worker_tasks.infra.errors import InvalidInput
from worker_tasks.joins.spec import filters, sides
from worker_tasks.joins.spec.casts import Cast
from worker_tasks.joins.spec.field_types import (
    CollectionName,
    DatabaseName,
    FieldPath,
    Filter,
    ListField,
    NewField,
    OtherSource,
    SourceName,
    SpecModel,
)
from worker_tasks.joins.spec.folds import Fold
from worker_tasks.joins.spec.kinds import DEFAULT_KIND, DEFAULT_SHAPE, KINDS, SHAPES, JoinKind, Kind, MatchShape, Shape
from worker_tasks.joins.spec.names import SOURCE_NAME
from worker_tasks.joins.spec.sides import OpenDatabases, Side

MAX_JOINS = 6
MAX_PAIRS = 8
MAX_EXPANDS = 3
MAX_FIELDS = 200
MAX_SORT_FIELDS = 10
MAX_LIMIT = 100_000_000
MAX_MATCHES = 1_000_000


Direction = Literal[1, -1]
Sort = Annotated[list[tuple[FieldPath, Direction]], Field(max_length=MAX_SORT_FIELDS)]
Fields = Annotated[list[FieldPath], Field(min_length=1, max_length=MAX_FIELDS)]


class KeyPair(SpecModel):
    """``local`` on the left side must equal ``foreign`` on the other.

    ``cast`` converts the left key first; ``fold`` says which differences between texts do not count.
    """

    local: FieldPath
    foreign: FieldPath
    cast: Cast | None = None
    fold: Fold | None = None


class Expand(SpecModel):
    """A list of the left side's documents that gives one row per element, with the element in place of the list.

    A value that is no list stays as it is. Documents whose list is empty, null or missing are dropped unless
    ``keep_empty``. ``position`` names a new field for the place of the element, counted from 1; it is null if there
    was no list.
    """

    path: FieldPath
    position: NewField | None = None
    keep_empty: bool = False


def _listed(expand: Any) -> list[Any]:
    """Several ways to write ``expand``, as one: a path, an Expand, or a list of them."""
    written = expand if isinstance(expand, list) else [expand]
    return [{"path": each} if isinstance(each, str) else each for each in written]


_FROM_SCHEMA = {
    "description": "A collection of the same database, or with its source and database where they differ.",
    "anyOf": [
        {"type": "string"},
        {
            "type": "object",
            "required": ["collection"],
            "additionalProperties": False,
            "properties": {
                "source": {"type": ["string", "null"], "pattern": f"^{SOURCE_NAME}$"},
                "database": {"type": "string"},
                "collection": {"type": "string"},
            },
        },
    ],
}
From = Annotated[CollectionName, WithJsonSchema(_FROM_SCHEMA)]
Expands = Annotated[
    list[Expand],
    BeforeValidator(_listed, json_schema_input_type=str | Expand | list[str | Expand]),
    Field(max_length=MAX_EXPANDS),
]


class Join(SpecModel):
    """One collection to join.

    ``source`` and ``database`` are those of the left side unless given. With ``into`` the matches go into each element
    of that list, as its field ``as``.
    """

    from_: From = Field(alias="from")
    source: SkipJsonSchema[OtherSource | None] = None
    database: SkipJsonSchema[DatabaseName | None] = None
    into: ListField | None = None
    as_: NewField | None = Field(default=None, alias="as")
    kind: Kind = DEFAULT_KIND
    on: Annotated[list[KeyPair], Field(min_length=1, max_length=MAX_PAIRS)]
    match: Filter = Field(default_factory=dict)
    fields_: Fields | None = Field(default=None, alias="fields")
    sort: Sort = Field(default_factory=list)
    limit: Annotated[int, Field(ge=1, le=MAX_MATCHES)] | None = None
    shape: Shape = DEFAULT_SHAPE

    @property
    def kind_traits(self) -> JoinKind:
        return KINDS[self.kind]

    @property
    def shape_traits(self) -> MatchShape:
        return SHAPES[self.shape]

    @property
    def embeds(self) -> bool:
        """Whether it adds a field to the rows, instead of only selecting them."""
        return self.kind_traits.embeds

    @property
    def embeds_documents(self) -> bool:
        """Whether the added field holds matching documents."""
        return self.embeds and self.shape_traits.holds_documents

    @property
    def target(self) -> str | None:
        """The path of the field that it adds to the rows, or None if it adds none."""
        return f"{self.into}.{self.as_}" if self.into and self.as_ else self.as_

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.into is not None:
            self._check_into(self.into)
        if self.embeds and self.as_ is None:
            raise ValueError("as: is missing: name the field that the matches go into.")
        if not self.embeds:
            superfluous = {"as_", "fields_", "sort", "limit", "shape"} & self.model_fields_set
            if superfluous:
                names = ", ".join(sorted(field.rstrip("_") for field in superfluous))
                raise ValueError(f"{names}: has no meaning in a {self.kind} join, which brings nothing in.")
        if self.kind_traits.keeps_other and not self.shape_traits.holds_documents:
            raise ValueError(
                f"shape: {self.shape} has no meaning in an {self.kind} join: "
                "what matches nothing has no row to count in."
            )
        if self.kind_traits.keeps_other and self.limit is not None:
            raise ValueError(f"limit: an {self.kind} join keeps everything from both sides.")
        return self

    def _check_into(self, into: str) -> None:
        if not self.kind_traits.keeps_exactly_left or not self.embeds:
            raise ValueError(f"kind: a join into {into} keeps every element of the list, so it can only be a left one.")
        if self.shape_traits.repeats_rows:
            raise ValueError(f"shape: {self.shape} has no meaning in a join into {into}, which keeps the list whole.")
        for number, pair in enumerate(self.on):
            if not pair.local.startswith(f"{into}."):
                raise ValueError(f"on.{number}.local: must be a field of the elements of {into}, such as {into}.id.")


def _database_may_be_in_from(schema: dict[str, Any]) -> None:
    schema["required"].remove("database")


class JoinSpec(SpecModel):
    """The description of a join, or of reading one collection. ``from`` may name the database instead."""

    model_config = ConfigDict(json_schema_extra=_database_may_be_in_from)

    database: DatabaseName
    from_: From = Field(alias="from")
    source: SkipJsonSchema[SourceName | None] = None
    match: Filter = Field(default_factory=dict)
    expand: Expands = Field(default_factory=list)
    joins: Annotated[list[Join], Field(max_length=MAX_JOINS)]
    fields_: Fields | None = Field(default=None, alias="fields")
    sort: Sort = Field(default_factory=list)
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] | None = None

    @property
    def left(self) -> Side:
        """The collection that the join starts from."""
        return Side(self.source, self.database, self.from_)

    def side(self, join: Join) -> Side:
        """The collection that one of its joins reads."""
        source = self.source if join.source is None else join.source or None
        return Side(source, join.database or self.database, join.from_)

    @property
    def known_columns(self) -> list[str]:
        """The columns that its rows have for certain: the chosen fields, or else the fields that it adds."""
        if self.fields_ is not None:
            return list(self.fields_)
        positions = [expand.position for expand in self.expand if expand.position]
        return [*positions, *(join.as_ for join in self.joins if join.embeds and join.as_ and join.into is None)]

    @property
    def sides(self) -> list[Side]:
        """The collections that it reads, the left side first."""
        return [self.left, *map(self.side, self.joins)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        taken = self._positions()
        for number, join in enumerate(self.joins):
            if join.kind_traits.first_only and number:
                raise ValueError(f"joins.{number}.kind: only the first join can be an {join.kind} one.")
            for path, error in self._join_errors(join, self.joins[:number]):
                raise ValueError(f"joins.{number}.{path}: {error}")
            if join.as_ is not None and join.as_ in taken:
                raise ValueError(f"joins.{number}.as: {join.as_} is taken by {taken[join.as_]}.")
            taken |= {join.as_: "an earlier join"} if join.as_ else {}
        return self

    def _positions(self) -> dict[str, str]:
        """The fields that hold positions, each with the words for its owner."""
        positions: dict[str, str] = {}
        heads = {expand.path.partition(".")[0] for expand in self.expand}
        for number, expand in enumerate(self.expand):
            if expand.position in heads | positions.keys():
                raise ValueError(f"expand.{number}.position: {expand.position} is taken by an expanded list.")
            positions |= {expand.position: "the position of an expanded list"} if expand.position else {}
        return positions

    def _join_errors(self, join: Join, earlier: list[Join]) -> Iterator[tuple[str, str]]:
        if join.database is None and self.side(join).source != self.source:
            yield "database", "is missing: a collection of another source is named with its database."
        if join.into is not None and (error := self._into_error(join.into, earlier)):
            yield "into", error
        if any(each.into == join.as_ for each in earlier if each.into is not None):
            yield "as", f"{join.as_} is the list that an earlier join puts its matches into."
        for place, pair in enumerate(join.on):
            if error := _key_error(join, pair.local, earlier):
                yield f"on.{place}.local", error

    def _into_error(self, into: str, earlier: list[Join]) -> str | None:
        """The error in the list whose elements take the matches, or None."""
        if any(expand.path == into for expand in self.expand):
            return f"{into} is expanded: its elements are rows already."
        if any(expand.position == into for expand in self.expand):
            return f"{into} is a number: the position of an expanded list."
        for each in earlier:
            if each.target == into and not each.shape_traits.holds_list:
                return f"{into} is no list: that join has the shape {each.shape}."
        return None

    def canonical(self) -> dict[str, Any]:
        """The description as a JSON document without default values."""
        document = self.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"source": True})
        document["from"] = sides.pack(self.left, Side(None, self.database, ""))
        for join, written in zip(self.joins, document["joins"], strict=True):
            written["from"] = sides.pack(self.side(join), self.left)
            written.pop("source", None)
            written.pop("database", None)
        return document

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits: the first half of the SHA-256 of the canonical form."""
        text = json.dumps(self.canonical(), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def _key_error(join: Join, path: str, earlier: list[Join]) -> str | None:
    """The error in a key that an earlier join provides, or None."""
    for each in earlier:
        target = each.target
        if target is None or not f"{path}.".startswith(f"{target}."):
            continue
        if each.into is not None and join.into != each.into:
            return f'{target} is inside the elements of {each.into}: only a join with "into": "{each.into}" can use it.'
        rest = path[len(target) + 1 :]
        if rest and not each.shape_traits.holds_documents:
            return f"{target} is a number: that join has the shape {each.shape}."
        fields = each.fields_
        if fields is not None and rest and not any(_overlap(rest, field) for field in fields):
            return f"{rest} is not among the fields that {target} keeps."
    return None


def _overlap(path: str, other: str) -> bool:
    """Whether the paths are equal, or one lies inside the other."""
    return path == other or path.startswith(f"{other}.") or other.startswith(f"{path}.")


def parse_spec(description: Any, databases: OpenDatabases) -> JoinSpec:
    """Parses the description of a join.

    Args:
        databases: the names of the databases that are open for joins: by source, where the source without a name is
            None, or of that source alone.

    Raises:
        InvalidInput: names every path that is wrong, with the reason.
    """
    spec = parse(description)
    require_open(spec, databases)
    return spec


def parse(description: Any) -> JoinSpec:
    """Parses the description of a join, without asking whether its databases are open for joins.

    Raises:
        InvalidInput: names every path that is wrong, with the reason.
    """
    unpacked = sides.unpack(description)
    errors = unpacked.errors
    try:
        spec = JoinSpec.model_validate_json(json.dumps(unpacked.description))
    except ValidationError as error:
        found = (_path_and_reason(dict(detail)) for detail in error.errors())
        errors = {unpacked.places.get(path, path): reason for path, reason in found} | errors
    except RecursionError:
        # Writing JSON recurses more deeply than parsing it did.
        errors = {"join": "is nested too deep."}
    if errors:
        raise InvalidInput(errors)
    return spec


def require_open(spec: JoinSpec, databases: OpenDatabases) -> None:
    """Checks that every collection of the join lies in a database that is open for joins.

    Raises:
        InvalidInput: names each source that is unknown, and each database that is not open.
    """
    paths = ["join", *(f"join.joins.{number}" for number in range(len(spec.joins)))]
    if errors := dict(sides.open_errors(_distinct(zip(paths, spec.sides, strict=True)), databases)):
        raise InvalidInput(errors)


def _distinct(places: Iterator[tuple[str, Side]]) -> Iterator[tuple[str, Side]]:
    """The first place of each database, so that one error names each database once."""
    seen: set[tuple[str | None, str]] = set()
    for path, side in places:
        if side[:2] not in seen:
            seen.add(side[:2])
            yield path, side


def _path_and_reason(detail: dict[str, Any]) -> tuple[str, str]:
    """Translates one of pydantic's errors."""
    path = ".".join(["join", *(str(part) for part in detail["loc"])])
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, filters.FilterError):
        return f"{path}.{cause.path}".rstrip("."), cause.reason
    if isinstance(cause, ValueError):
        # A rule about several fields names first the field to correct.
        inner, colon, reason = str(cause).partition(": ")
        return (f"{path}.{inner}", reason) if colon and " " not in inner else (path, str(cause))
    if detail["type"] == "extra_forbidden":
        return path, "is not known here."
    if detail["type"] == "missing":
        return path, "is missing."
    return path, f"{detail['msg']}."
