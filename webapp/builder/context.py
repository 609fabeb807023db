"""The choices, samples and suggestions around a draft, and the actions of the builder's buttons."""

import json
import re
from dataclasses import dataclass, field, replace
from typing import Any

from wtforms.fields.choices import SelectChoice

from webapp.builder import field_errors
from webapp.builder.drafts import Draft
from webapp.builder.join_fields import ALONE
from webapp.builder.lists import LeftLists
from webapp.builder.places import Place, label_of, open_places, other_collections
from webapp.presenters.value_text import format_share
from worker_tasks.infra.errors import InvalidInput
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
    """The choices for one join: possible left keys, a sample of the other collection, suggested pairs.

    ``into`` is the list whose elements can take the matches, or None.
    """

    left_fields: list[LeftField]
    sample: CollectionSample | None
    suggestions: list[Suggestion]
    default_name: str
    into: str | None = None

    def left_field(self, path: str) -> Field | None:
        return next((left.field for left in self.left_fields if left.path == path), None)


@dataclass(frozen=True)
class BuilderContext:
    """The choices for a draft.

    ``lists`` are the lists of the first collection that can be expanded.
    """

    databases: list[str]
    sample: CollectionSample | None = None
    joins: list[JoinContext] = field(default_factory=list)
    lists: list[Field] = field(default_factory=list)


def load_context(draft: Draft) -> BuilderContext:
    """Samples the collections of the draft, and sets choices and defaults in its form.

    Raises:
        pymongo.errors.PyMongoError, redis.exceptions.RedisError: a server does not answer.
    """
    places = open_places()
    if len(places) == 1 and not draft.database.data:
        draft.database.data = places[0].value
    draft.database.choices = _options("Choose a database", _database_options(places), draft.database.data)
    if draft.place not in places:
        return _without_collections(draft, "Choose a database first")
    try:
        collections = {each.name: each for each in collections_of(draft.place.database, draft.place.source)}
    except InvalidInput as error:
        field_errors.add_errors(draft, field_errors.errors_by_field(draft, error.errors))
        return _without_collections(draft, "There is nothing to choose")
    available = _set_collection_choices(draft, collections)
    sample = sample_collection(draft.left) if draft.left.collection in collections else None
    left_fields = [LeftField(each.path, draft.left, each) for each in sample.fields] if sample else []
    lists = LeftLists(draft, sample)
    own_fields = list(left_fields)
    joins = []
    for number, form in enumerate(draft.join_forms):
        other = draft.side(form) if form.source.data in available else None
        joins.append(_join_context(draft, number, other, list(left_fields), lists))
        lists.add(draft, number)
        if other and form.embeds_documents and (brought := joins[-1].sample):
            path = draft.target_path(number)
            left_fields += [LeftField(f"{path}.{each.path}", other, each) for each in brought.fields]
    added = [row.position.data for row in draft.expanded]
    added += [draft.target_path(number) for number, form in enumerate(draft.join_forms) if form.embeds]
    draft.fields.choices = _checkboxes(own_fields, [*filter(None, added), *(draft.fields.data or [])])
    return BuilderContext([place.value for place in places], sample, joins, lists.expandable)


def _database_options(places: list[Place]) -> dict[str, str]:
    return {place.value: place.label for place in places}


def _set_collection_choices(draft: Draft, collections: dict[str, ListedCollection]) -> set[str]:
    """Sets the choices of every collection. Returns the values that the joins can choose."""
    own = {name: _with_count(listed) for name, listed in collections.items()}
    draft.source.choices = _options("Choose a collection", own, draft.source.data)
    others = other_collections(draft.place) if draft.join_forms else []
    available = {*own, *(each.value for each in others)}
    group = draft.place.label if others else None
    for form in draft.join_forms:
        missing = form.source.data if form.source.data not in available else None
        prompt, *choices = _options("Choose a collection", own, missing)
        form.source.choices = [prompt, *(replace(each, optgroup=group) for each in choices), *others]
    return available


def _without_collections(draft: Draft, prompt: str) -> BuilderContext:
    for part in [draft, *draft.join_forms]:
        part.source.choices = _options(prompt, {}, part.source.data)
    return empty_context(draft)


def offline_context(draft: Draft) -> BuilderContext:
    """The context while a server is unavailable: keeps every current choice selectable."""
    draft.database.choices = _options("Choose a database", _database_options(open_places()), draft.database.data)
    for part in [draft, *draft.join_forms]:
        chosen = part.source.data
        options = {chosen: label_of(chosen)} if chosen else {}
        part.source.choices = _options("Not to be looked up just now", options, chosen)
        part.fields.choices = _checkboxes([], part.fields.data)
        for rows in (part.filters, part.sort):
            if not rows.entries:
                rows.append_entry()
    if not draft.expand.entries:
        draft.expand.append_entry()
    return empty_context(draft)


def empty_context(draft: Draft) -> BuilderContext:
    """The context without samples."""
    joins = [
        JoinContext([], None, [], draft.default_name(number), form.into.data or None)
        for number, form in enumerate(draft.join_forms)
    ]
    return BuilderContext([place.value for place in open_places()], joins=joins)


def _join_context(
    draft: Draft, number: int, other: Side | None, left_fields: list[LeftField], lists: LeftLists
) -> JoinContext:
    form, default_name = draft.join_forms[number], draft.default_name(number)
    if other is None:
        return JoinContext(left_fields, None, [], default_name, form.into.data or None)
    sample = sample_collection(other)
    form.fields.choices = _checkboxes([LeftField(each.path, other, each) for each in sample.fields], form.fields.data)
    suggestions = suggest_keys(left_fields, other) if left_fields else []
    rows = [entry.form for entry in form.on.entries]
    if suggestions and not any(row.local.data or row.foreign.data for row in rows):
        set_pairs(form, [(pair.local, pair.foreign, pair.cast, pair.fold) for pair in suggestions[0].pairs])
    return JoinContext(left_fields, sample, suggestions, default_name, lists.into(form))


def _options(prompt: str, options: dict[str, str], chosen: str | None) -> list[SelectChoice]:
    labels = {"": prompt, **options}
    if chosen and chosen not in labels:
        labels[chosen] = f"{label_of(chosen)}: not there"
    return [SelectChoice(value, label) for value, label in labels.items()]


def _with_count(listed: ListedCollection) -> str:
    if listed.count is not None:
        return f"{listed.name} ({listed.count:,})"
    return f"{listed.name} (a {'view' if listed.is_view else 'time series'})"


def _checkboxes(fields: list[LeftField], chosen: list[str] | None) -> list[SelectChoice]:
    paths = [each.path for each in fields if each.path.count(".") <= 1][:MAX_CHECKBOXES]
    # Embedded and chosen fields come first, so that they are visible without scrolling.
    return [SelectChoice(path, path) for path in dict.fromkeys([*(chosen or []), *paths])]


def set_pairs(form: Any, pairs: list[tuple[str, str, str | None, str | None]]) -> None:
    """Replaces the pairs of a join. Each of ``pairs`` is a local field, a foreign field, a cast and a fold."""
    del form.on.entries[len(pairs) :]
    while len(form.on.entries) < len(pairs):
        form.on.append_entry()
    for entry, (local, foreign, cast, fold) in zip(form.on.entries, pairs, strict=True):
        pair = entry.form
        pair.local.data, pair.foreign.data, pair.cast.data, pair.fold.data = local, foreign, cast or "", fold or ""


def apply_action(draft: Draft, action: str) -> None:
    """Applies a button of the builder to the draft. An action that does not fit the draft does nothing."""
    name, _, rest = action.partition(" ")
    arguments = rest.split(" ", 3)
    if name == "add-join":
        draft.alone.data = ""
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
    if name == "remove-join":
        del draft.joins.entries[number]
        draft.alone.data = "" if draft.joins.entries else ALONE
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
    if isinstance(pairs, list) and pairs and all(isinstance(pair, list) and len(pair) == 4 for pair in pairs):  # noqa: PLR2004
        set_pairs(
            form, [(str(local), str(foreign), str(cast or ""), str(fold or "")) for local, foreign, cast, fold in pairs]
        )


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
    return json.dumps([[pair.local, pair.foreign, pair.cast, pair.fold] for pair in suggestion.pairs])


def input_mode(row: Any, field: Field | None) -> str:
    """The ``inputmode`` for the value of a condition, which selects the keyboard on a phone."""
    return value_type(row.type.data, None if field is None else field.main_type).input_mode
