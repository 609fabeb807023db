"""JoinSpec: what is asked, validated; its canonical form and its fingerprint.

The same description gives the same fingerprint, whatever the order or the spacing in which it was written;
values are never touched.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from worker_tasks.infra.errors import InvalidInput
from worker_tasks.joins.spec import filters
from worker_tasks.joins.spec.casts import Cast
from worker_tasks.joins.spec.kinds import DEFAULT_KIND, DEFAULT_SHAPE, KINDS, SHAPES, JoinKind, Kind, MatchShape, Shape
from worker_tasks.joins.spec.names import collection_error, path_error

MAX_JOINS = 6
MAX_PAIRS = 8
MAX_FIELDS = 200
MAX_SORT_FIELDS = 10
MAX_LIMIT = 100_000_000
MAX_MATCHES = 1_000_000


def _path(path: str) -> str:
    if complaint := path_error(path):
        raise ValueError(complaint)
    return path


def _collection(name: str) -> str:
    if complaint := collection_error(name):
        raise ValueError(complaint)
    return name


def _name(name: str) -> str:
    if "." in name or name == "_id":
        raise ValueError("must be the name of one new field: without dots, and not _id.")
    return _path(name)


FieldPath = Annotated[str, AfterValidator(_path)]
CollectionName = Annotated[str, AfterValidator(_collection)]
NewField = Annotated[str, AfterValidator(_name)]
Filter = Annotated[dict[str, Any], AfterValidator(filters.check_filter)]
Direction = Literal[1, -1]
Sort = Annotated[list[tuple[FieldPath, Direction]], Field(max_length=MAX_SORT_FIELDS)]
Fields = Annotated[list[FieldPath], Field(min_length=1, max_length=MAX_FIELDS)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)


class KeyPair(_Model):
    """``local`` of the left side equals ``foreign`` of the other; ``cast`` converts the left one first."""

    local: FieldPath
    foreign: FieldPath
    cast: Cast | None = None


class Join(_Model):
    """One collection that is brought in."""

    from_: CollectionName = Field(alias="from")
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
        """Whether it adds a field to the rows, and does not only choose among them."""
        return self.kind_traits.embeds

    @property
    def embeds_documents(self) -> bool:
        """Whether the field that it adds holds what matches."""
        return self.embeds and self.shape_traits.holds_documents

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.embeds and self.as_ is None:
            raise ValueError("as: is missing: name the field that the matches go into.")
        if not self.embeds:
            given = {"as_", "fields_", "sort", "limit", "shape"} & self.model_fields_set
            if given:
                named = ", ".join(sorted(field.rstrip("_") for field in given))
                raise ValueError(f"{named}: has no meaning in a {self.kind} join, which brings nothing in.")
        if self.kind_traits.keeps_other and not self.shape_traits.holds_documents:
            raise ValueError(
                f"shape: {self.shape} has no meaning in an {self.kind} join: "
                "what matches nothing has no row to count in."
            )
        if self.kind_traits.keeps_other and self.limit is not None:
            raise ValueError(f"limit: an {self.kind} join keeps everything from both sides.")
        return self


class JoinSpec(_Model):
    """A join, as a pure description."""

    database: CollectionName
    from_: CollectionName = Field(alias="from")
    match: Filter = Field(default_factory=dict)
    joins: Annotated[list[Join], Field(min_length=1, max_length=MAX_JOINS)]
    fields_: Fields | None = Field(default=None, alias="fields")
    sort: Sort = Field(default_factory=list)
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        seen: set[str] = set()
        for number, join in enumerate(self.joins):
            if join.kind_traits.first_only and number:
                raise ValueError(f"joins.{number}.kind: only the first join can be an {join.kind} one.")
            for place, pair in enumerate(join.on):
                if complaint := self._complaint_about_key(pair.local, self.joins[:number]):
                    raise ValueError(f"joins.{number}.on.{place}.local: {complaint}")
            if join.as_ is not None and join.as_ in seen:
                raise ValueError(f"joins.{number}.as: {join.as_} is taken by an earlier join.")
            seen |= {join.as_} if join.as_ else set()
        return self

    def _complaint_about_key(self, path: str, before: list[Join]) -> str | None:
        """What is wrong with a key that an earlier join is to bring, if it is one."""
        head, _, rest = path.partition(".")
        for join in before:
            if join.as_ != head:
                continue
            if rest and not join.shape_traits.holds_documents:
                return f"{head} is a number: that join has the shape {join.shape}."
            kept = join.fields_
            if kept is not None and rest and not any(_overlap(rest, field) for field in kept):
                return f"{rest} is not among the fields that {head} keeps."
        return None

    def canonical(self) -> dict[str, Any]:
        """The description as JSON, with every default left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits (the first half of a SHA-256) that stand for this description."""
        text = json.dumps(self.canonical(), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    @property
    def collections(self) -> list[str]:
        """Every collection that is read, the left one first."""
        return list(dict.fromkeys([self.from_, *(join.from_ for join in self.joins)]))


def _overlap(path: str, other: str) -> bool:
    """Whether one path is the other, or lies inside it."""
    return path == other or path.startswith(f"{other}.") or other.startswith(f"{path}.")


def parse_spec(asked: Any, databases: Iterable[str]) -> JoinSpec:
    """The description that was asked for.

    Args:
        databases: those that are open for joins.

    Raises:
        InvalidInput: names every path that is wrong, with the reason.
    """
    spec = parse(asked)
    require_open(spec, databases)
    return spec


def parse(asked: Any) -> JoinSpec:
    """The description, whether or not its database is open for joins.

    Raises:
        InvalidInput: names every path that is wrong, with the reason.
    """
    try:
        return JoinSpec.model_validate_json(json.dumps(asked))
    except ValidationError as error:
        raise InvalidInput(dict(_complaint(dict(detail)) for detail in error.errors())) from None
    except RecursionError:
        # Written as JSON it takes deeper calls than reading it took.
        raise InvalidInput({"join": "is nested too deep."}) from None


def require_open(spec: JoinSpec, databases: Iterable[str]) -> None:
    """Refuses a join of a database that is not among those open for joins.

    Raises:
        InvalidInput: it is not.
    """
    if spec.database not in set(databases):
        raise InvalidInput({"join.database": f"{spec.database} is not open for joins."})


def _complaint(detail: dict[str, Any]) -> tuple[str, str]:
    path = ".".join(["join", *(str(part) for part in detail["loc"])])
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, filters.FilterError):
        return f"{path}.{cause.path}".rstrip("."), cause.reason
    if isinstance(cause, ValueError):
        # Of a rule about several fields: the one to mend stands in front.
        inner, colon, reason = str(cause).partition(": ")
        return (f"{path}.{inner}", reason) if colon and " " not in inner else (path, str(cause))
    if detail["type"] == "extra_forbidden":
        return path, "is not known here."
    if detail["type"] == "missing":
        return path, "is missing."
    return path, f"{detail['msg']}."
