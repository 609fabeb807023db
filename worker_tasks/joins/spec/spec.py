"""JoinSpec: the validated description of a join, its canonical form and its fingerprint.

The fingerprint does not depend on the order or spacing of the description's JSON. Values are never normalised.
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


def _check_path(path: str) -> str:
    if error := path_error(path):
        raise ValueError(error)
    return path


def _check_collection(name: str) -> str:
    if error := collection_error(name):
        raise ValueError(error)
    return name


def _check_new_field(name: str) -> str:
    if "." in name or name == "_id":
        raise ValueError("must be the name of one new field: without dots, and not _id.")
    return _check_path(name)


FieldPath = Annotated[str, AfterValidator(_check_path)]
CollectionName = Annotated[str, AfterValidator(_check_collection)]
NewField = Annotated[str, AfterValidator(_check_new_field)]
Filter = Annotated[dict[str, Any], AfterValidator(filters.check_filter)]
Direction = Literal[1, -1]
Sort = Annotated[list[tuple[FieldPath, Direction]], Field(max_length=MAX_SORT_FIELDS)]
Fields = Annotated[list[FieldPath], Field(min_length=1, max_length=MAX_FIELDS)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)


class KeyPair(_Model):
    """``local`` on the left side must equal ``foreign`` on the other; ``cast`` converts the left key first."""

    local: FieldPath
    foreign: FieldPath
    cast: Cast | None = None


class Join(_Model):
    """One collection to join."""

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
        """Whether it adds a field to the rows, instead of only selecting them."""
        return self.kind_traits.embeds

    @property
    def embeds_documents(self) -> bool:
        """Whether the added field holds matching documents."""
        return self.embeds and self.shape_traits.holds_documents

    @model_validator(mode="after")
    def _consistent(self) -> Self:
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


class JoinSpec(_Model):
    """The description of a join."""

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
                if error := self._key_error(pair.local, self.joins[:number]):
                    raise ValueError(f"joins.{number}.on.{place}.local: {error}")
            if join.as_ is not None and join.as_ in seen:
                raise ValueError(f"joins.{number}.as: {join.as_} is taken by an earlier join.")
            seen |= {join.as_} if join.as_ else set()
        return self

    def _key_error(self, path: str, earlier: list[Join]) -> str | None:
        """The error in a key that an earlier join provides, or None."""
        head, _, rest = path.partition(".")
        for join in earlier:
            if join.as_ != head:
                continue
            if rest and not join.shape_traits.holds_documents:
                return f"{head} is a number: that join has the shape {join.shape}."
            fields = join.fields_
            if fields is not None and rest and not any(_overlap(rest, field) for field in fields):
                return f"{rest} is not among the fields that {head} keeps."
        return None

    def canonical(self) -> dict[str, Any]:
        """The description as a JSON document without default values."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits: the first half of the SHA-256 of the canonical form."""
        text = json.dumps(self.canonical(), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def _overlap(path: str, other: str) -> bool:
    """Whether the paths are equal, or one lies inside the other."""
    return path == other or path.startswith(f"{other}.") or other.startswith(f"{path}.")


def parse_spec(description: Any, databases: Iterable[str]) -> JoinSpec:
    """Parses the description of a join.

    Args:
        databases: the names of the databases that are open for joins.

    Raises:
        InvalidInput: names every path that is wrong, with the reason.
    """
    spec = parse(description)
    require_open(spec, databases)
    return spec


def parse(description: Any) -> JoinSpec:
    """Parses the description of a join, without asking whether its database is open for joins.

    Raises:
        InvalidInput: names every path that is wrong, with the reason.
    """
    try:
        return JoinSpec.model_validate_json(json.dumps(description))
    except ValidationError as error:
        raise InvalidInput(dict(_path_and_reason(dict(detail)) for detail in error.errors())) from None
    except RecursionError:
        # Writing JSON recurses more deeply than parsing it did.
        raise InvalidInput({"join": "is nested too deep."}) from None


def require_open(spec: JoinSpec, databases: Iterable[str]) -> None:
    """Checks that the join's database is open for joins.

    Raises:
        InvalidInput: the database is not in ``databases``.
    """
    if spec.database not in set(databases):
        raise InvalidInput({"join.database": f"{spec.database} is not open for joins."})


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
