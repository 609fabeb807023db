"""The choices, samples and suggestions around a draft, and the actions of the builder's buttons."""

import json
import re
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any

from wtforms.fields.choices import SelectChoice

from webapp.builder import field_errors
from webapp.builder.drafts import Draft
from webapp.presenters.value_text import format_share
from worker_tasks.infra.errors import InvalidInput
from worker_tasks.infra.settings import settings
from worker_tasks.joins.preflight.sampling import (
    CollectionSample,
    Field,
    ListedCollection,
    collections_of,
    sample_collection,
)
from worker_tasks.joins.preflight.suggestions import LeftField, Suggestion, suggest_keys
from worker_tasks.joins.spec.bson_types import type_label
from worker_tasks.joins.spec.sides import Side
from worker_tasks.joins.spec.value_types import value_type

#: The maximum number of fields in a list of checkboxes.
MAX_CHECKBOXES = 60


@dataclass(frozen=True)
class JoinContext:
    """The choices for one join: possible left keys, a sample of the other collection, suggested pairs."""

    left_fields: list[LeftField]
    sample: CollectionSample | None
    suggestions: list[Suggestion]
    default_name: str

    def left_field(self, path: str) -> Field | None:
        return next((left.field for left in self.left_fields if left.path == path), None)


@dataclass(frozen=True)
class BuilderContext:
    """The choices for a draft."""

    databases: list[str]
    sample: CollectionSample | None = None
    joins: list[JoinContext] = field(default_factory=list)


def load_context(draft: Draft) -> BuilderContext:
    """Samples the collections of the draft, and sets choices and defaults in its form.

    Raises:
        pymongo.errors.PyMongoError, redis.exceptions.RedisError: a server does not answer.
    """
    databases = sorted(settings().open_databases)
    if len(databases) == 1 and not draft.database.data:
        draft.database.data = databases[0]
    draft.database.choices = _options("Choose a database", {name: name for name in databases}, draft.database.data)
    if draft.database.data not in databases:
        return _without_collections(draft, "Choose a database first")
    database = draft.database.data
    try:
        collections = {each.name: each for each in collections_of(database)}
    except InvalidInput as error:
        field_errors.add_errors(draft, field_errors.errors_by_field(draft, error.errors))
        return _without_collections(draft, "There is nothing to choose")
    options = {name: _with_count(each) for name, each in collections.items()}
    for part in [draft, *draft.join_forms]:
        part.source.choices = _options("Choose a collection", options, part.source.data)
    left = Side(None, database, draft.source.data or "")
    sample = sample_collection(left) if left.collection in collections else None
    left_fields = [LeftField(each.path, left, each) for each in sample.fields] if sample else []
    own_fields = list(left_fields)
    joins = []
    for number, form in enumerate(draft.join_forms):
        joins.append(_join_context(draft, number, form, list(left_fields), collections))
        if form.embeds_documents and (other := joins[-1].sample) is not None:
            name = draft.target_field(number)
            side = left._replace(collection=form.source.data)
            left_fields += [LeftField(f"{name}.{each.path}", side, each) for each in other.fields]
    embedded = [draft.target_field(number) for number, form in enumerate(draft.join_forms) if form.embeds]
    draft.fields.choices = _checkboxes(own_fields, [*filter(None, embedded), *(draft.fields.data or [])])
    return BuilderContext(databases, sample, joins)


def _without_collections(draft: Draft, prompt: str) -> BuilderContext:
    for part in [draft, *draft.join_forms]:
        part.source.choices = _options(prompt, {}, part.source.data)
    return empty_context(draft)


def offline_context(draft: Draft) -> BuilderContext:
    """The context for use while a server is unavailable. The draft's current choices stay selectable."""
    databases = {name: name for name in settings().open_databases}
    draft.database.choices = _options("Choose a database", dict(sorted(databases.items())), draft.database.data)
    for part in [draft, *draft.join_forms]:
        chosen = part.source.data
        part.source.choices = _options("Not to be looked up just now", {chosen: chosen} if chosen else {}, chosen)
        part.fields.choices = _checkboxes([], part.fields.data)
        for rows in (part.filters, part.sort):
            if not rows.entries:
                rows.append_entry()
    return empty_context(draft)


def empty_context(draft: Draft) -> BuilderContext:
    """The context without samples."""
    numbers = range(len(draft.join_forms))
    joins = [JoinContext([], None, [], draft.default_name(number)) for number in numbers]
    return BuilderContext(sorted(settings().open_databases), joins=joins)


def _join_context(
    draft: Draft, number: int, form: Any, left_fields: list[LeftField], collections: Container[str]
) -> JoinContext:
    default_name = draft.default_name(number)
    if form.source.data not in collections:
        return JoinContext(left_fields, None, [], default_name)
    other = Side(None, draft.database.data, form.source.data)
    sample = sample_collection(other)
    form.fields.choices = _checkboxes([LeftField(each.path, other, each) for each in sample.fields], form.fields.data)
    suggestions = suggest_keys(left_fields, other) if left_fields else []
    rows = [entry.form for entry in form.on.entries]
    if suggestions and not any(row.local.data or row.foreign.data for row in rows):
        set_pairs(form, [(pair.local, pair.foreign, pair.cast) for pair in suggestions[0].pairs])
    return JoinContext(left_fields, sample, suggestions, default_name)


def _options(prompt: str, options: dict[str, str], chosen: str | None) -> list[SelectChoice]:
    labels = {"": prompt, **options}
    if chosen and chosen not in labels:
        labels[chosen] = f"{chosen}: not there"
    return [SelectChoice(value, label) for value, label in labels.items()]


def _with_count(listed: ListedCollection) -> str:
    if listed.count is not None:
        return f"{listed.name} ({listed.count:,})"
    return f"{listed.name} (a {'view' if listed.is_view else 'time series'})"


def _checkboxes(fields: list[LeftField], chosen: list[str] | None) -> list[SelectChoice]:
    paths = [each.path for each in fields if each.path.count(".") <= 1][:MAX_CHECKBOXES]
    # Embedded and chosen fields come first, so that they are visible without scrolling.
    return [SelectChoice(path, path) for path in dict.fromkeys([*(chosen or []), *paths])]


def set_pairs(form: Any, pairs: list[tuple[str, str, str | None]]) -> None:
    """Replaces the pairs of a join by these triples of local field, foreign field and cast."""
    del form.on.entries[len(pairs) :]
    while len(form.on.entries) < len(pairs):
        form.on.append_entry()
    for entry, (local, foreign, cast) in zip(form.on.entries, pairs, strict=True):
        entry.form.local.data, entry.form.foreign.data, entry.form.cast.data = local, foreign, cast or ""


def apply_action(draft: Draft, action: str) -> None:
    """Applies a button of the builder to the draft. An action that does not fit the draft does nothing."""
    name, _, rest = action.partition(" ")
    arguments = rest.split(" ", 3)
    if name == "add-join":
        draft.joins.append_entry()
        draft.join_forms[-1].on.append_entry()
        return
    if name == "add-row":
        draft.add_metadata_row()
        return
    if not arguments[0].isdigit() or int(arguments[0]) >= len(draft.joins.entries):
        return
    number = int(arguments[0])
    form = draft.join_forms[number]
    if name == "remove-join" and len(draft.joins.entries) > 1:
        del draft.joins.entries[number]
    elif name == "add-pair":
        form.on.append_entry()
    elif name == "remove-pair" and len(form.on.entries) > 1:
        form.on.pop_entry()
    elif name == "use":
        _use_suggestion(form, rest.partition(" ")[2])
    elif name == "cure":
        _apply_cure(form, arguments[1:])


def _use_suggestion(form: Any, text: str) -> None:
    try:
        pairs = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(pairs, list) and pairs and all(isinstance(pair, list) and len(pair) == 3 for pair in pairs):  # noqa: PLR2004
        set_pairs(form, [(str(local), str(foreign), str(cast or "")) for local, foreign, cast in pairs])


def _apply_cure(form: Any, arguments: list[str]) -> None:
    """Fixes a finding by setting one field. ``arguments`` are the number of the pair, the field and its new value."""
    if len(arguments) != 3 or not arguments[0].isdigit():  # noqa: PLR2004
        return
    number, field, value = int(arguments[0]), *arguments[1:]
    if number < len(form.on.entries):
        pair = form.on.entries[number].form
        target = pair if field in pair else form
        if field in target:
            target[field].data = value


def describe_field(field: Field | None) -> str:
    """The types and fullness of a sampled field, such as ``text, 84 % filled``."""
    if field is None:
        return ""
    types = list(dict.fromkeys(type_label(name) for name in field.types))
    text = " or ".join(types[:2]) or "always empty"
    return text if field.filled == 1 else f"{text}, {format_share(field.filled)} filled"


def anchor_of(action: str) -> str:
    """The URL fragment that a button leads to without JavaScript. It points to the button's join."""
    numbered = re.fullmatch(r"(add-pair|remove-pair|use|cure) (\d+).*", action)
    return f"#join-{int(numbered[2]) + 1}" if numbered else ""


def pairs_as_json(suggestion: Any) -> str:
    """The pairs of a suggestion as the value of its button."""
    return json.dumps([[pair.local, pair.foreign, pair.cast] for pair in suggestion.pairs])


def input_mode(row: Any, field: Field | None) -> str:
    """The ``inputmode`` for the value of a condition, which selects the keyboard on a phone."""
    return value_type(row.type.data, None if field is None else field.main_type).input_mode
