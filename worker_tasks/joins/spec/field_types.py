"""The types of a description's fields, and the base of its models. Pure."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict

from worker_tasks.joins.spec import filters
from worker_tasks.joins.spec.names import collection_error, database_error, path_error, source_error
from worker_tasks.joins.spec.sides import UNNAMED


def _check_path(path: str) -> str:
    if error := path_error(path):
        raise ValueError(error)
    return path


def _check_collection(name: str) -> str:
    if error := collection_error(name):
        raise ValueError(error)
    return name


def _check_database(name: str) -> str:
    if error := database_error(name):
        raise ValueError(error)
    return name


def _check_source(name: str) -> str:
    if error := source_error(name):
        raise ValueError(error)
    return name


def _check_other_source(name: str) -> str:
    return name if name == UNNAMED else _check_source(name)


def _check_new_field(name: str) -> str:
    if "." in name or name == "_id":
        raise ValueError("must be the name of one new field: without dots, and not _id.")
    return _check_path(name)


def _check_list_field(name: str) -> str:
    if "." in name or name == "_id":
        raise ValueError("must be the name of a list at the top of the rows: without dots, and not _id.")
    return _check_path(name)


FieldPath = Annotated[str, AfterValidator(_check_path)]
CollectionName = Annotated[str, AfterValidator(_check_collection)]
DatabaseName = Annotated[str, AfterValidator(_check_database)]
SourceName = Annotated[str, AfterValidator(_check_source)]
OtherSource = Annotated[str, AfterValidator(_check_other_source)]
NewField = Annotated[str, AfterValidator(_check_new_field)]
ListField = Annotated[str, AfterValidator(_check_list_field)]
Filter = Annotated[dict[str, Any], AfterValidator(filters.check_filter)]


class SpecModel(BaseModel):
    """A part of a description: immutable, and without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)
