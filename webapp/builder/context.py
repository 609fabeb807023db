"""What the builder shows around a draft: what can be chosen next, what is suggested, what was found out about it."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from wtforms.fields.choices import SelectChoice

from webapp.builder import field_errors
from webapp.builder.drafts import Draft
from webapp.presenters.value_text import format_share
from worker_tasks.infra.errors import InvalidInput
from worker_tasks.infra.settings import settings
from worker_tasks.joins.preflight.sampling import CollectionSample, Field, collections_of, sample_collection
from worker_tasks.joins.preflight.suggestions import LeftField, Suggestion, suggest_keys
from worker_tasks.joins.spec.bson_types import type_label
from worker_tasks.joins.spec.value_types import value_type

#: Fields that can be ticked to be kept.
MAX_TICKED = 60


@dataclass(frozen=True)
class JoinContext:
    """Around one join: what its left keys can be, what the other collection looks like, which pairs are likely."""

    left: list[LeftField]
    sample: CollectionSample | None
    suggestions: list[Suggestion]
    default_name: str

    def left_field(self, path: str) -> Field | None:
        return next((left.field for left in self.left if left.path == path), None)


@dataclass(frozen=True)
class BuilderContext:
    """Around the whole draft."""

    databases: list[str]
    collections: dict[str, int | None] = field(default_factory=dict)
    sample: CollectionSample | None = None
    joins: list[JoinContext] = field(default_factory=list)


def load_context(draft: Draft) -> BuilderContext:
    """Looks at what the draft names, and fills in what follows from it.

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
        collections = dict(collections_of(database))
    except InvalidInput as error:
        field_errors.add_errors(draft, field_errors.errors_by_field(draft, error.errors))
        return _without_collections(draft, "There is nothing to choose")
    options = {name: _with_count(name, count) for name, count in collections.items()}
    for part in [draft, *draft.join_forms]:
        part.source.choices = _options("Choose a collection", options, part.source.data)
    sample = sample_collection(database, draft.source.data) if draft.source.data in collections else None
    left = [LeftField(each.path, draft.source.data, each) for each in sample.fields] if sample else []
    fields = list(left)
    joins = []
    for number, form in enumerate(draft.join_forms):
        joins.append(_around_join(draft, number, form, list(left), collections))
        if form.embeds_documents and (other := joins[-1].sample) is not None:
            name = draft.target_field(number)
            left += [LeftField(f"{name}.{each.path}", form.source.data, each) for each in other.fields]
    brought = [draft.target_field(number) for number, form in enumerate(draft.join_forms) if form.embeds]
    draft.fields.choices = _ticked(fields, [*filter(None, brought), *(draft.fields.data or [])])
    return BuilderContext(databases, collections, sample, joins)


def _without_collections(draft: Draft, first: str) -> BuilderContext:
    for part in [draft, *draft.join_forms]:
        part.source.choices = _options(first, {}, part.source.data)
    return empty_context(draft)


def offline_context(draft: Draft) -> BuilderContext:
    """Keeps every choice selectable when no server can be asked."""
    databases = {name: name for name in settings().open_databases}
    draft.database.choices = _options("Choose a database", dict(sorted(databases.items())), draft.database.data)
    for part in [draft, *draft.join_forms]:
        chosen = part.source.data
        part.source.choices = _options("Not to be looked up just now", {chosen: chosen} if chosen else {}, chosen)
        part.fields.choices = _ticked([], part.fields.data)
        for rows in (part.filters, part.sort):
            if not rows.entries:
                rows.append_entry()
    return empty_context(draft)


def empty_context(draft: Draft) -> BuilderContext:
    """What is shown where no collection can be looked at."""
    numbers = range(len(draft.join_forms))
    joins = [JoinContext([], None, [], draft.default_name(number)) for number in numbers]
    return BuilderContext(sorted(settings().open_databases), joins=joins)


def _around_join(
    draft: Draft, number: int, form: Any, left: list[LeftField], collections: dict[str, int | None]
) -> JoinContext:
    default_name = draft.default_name(number)
    if form.source.data not in collections:
        return JoinContext(left, None, [], default_name)
    database, other = draft.database.data, form.source.data
    sample = sample_collection(database, other)
    form.fields.choices = _ticked([LeftField(each.path, other, each) for each in sample.fields], form.fields.data)
    suggestions = suggest_keys(database, left, other) if left else []
    rows = [entry.form for entry in form.on.entries]
    if suggestions and not any(row.local.data or row.foreign.data for row in rows):
        set_pairs(form, [(pair.local, pair.foreign, pair.cast) for pair in suggestions[0].pairs])
    return JoinContext(left, sample, suggestions, default_name)


def _options(first: str, options: dict[str, str], chosen: str | None) -> list[SelectChoice]:
    listed = {"": first, **options}
    if chosen and chosen not in listed:
        listed[chosen] = f"{chosen}: not there"
    return [SelectChoice(value, label) for value, label in listed.items()]


def _with_count(name: str, count: int | None) -> str:
    return f"{name} (a view)" if count is None else f"{name} ({count:,})"


def _ticked(fields: list[LeftField], chosen: list[str] | None) -> list[SelectChoice]:
    paths = [each.path for each in fields if each.path.count(".") <= 1][:MAX_TICKED]
    # What is joined in, and what was chosen before, are in sight without scrolling.
    return [SelectChoice(path, path) for path in dict.fromkeys([*(chosen or []), *paths])]


def set_pairs(form: Any, pairs: list[tuple[str, str, str | None]]) -> None:
    """Makes these the pairs of a join."""
    del form.on.entries[len(pairs) :]
    while len(form.on.entries) < len(pairs):
        form.on.append_entry()
    for entry, (local, foreign, cast) in zip(form.on.entries, pairs, strict=True):
        entry.form.local.data, entry.form.foreign.data, entry.form.cast.data = local, foreign, cast or ""


def apply_action(draft: Draft, action: str) -> None:
    """Does what a button of the builder says; one that makes no sense for this draft does nothing."""
    name, _, rest = action.partition(" ")
    words = rest.split(" ", 3)
    if name == "add-join":
        draft.joins.append_entry()
        draft.join_forms[-1].on.append_entry()
        return
    if name == "add-row":
        draft.add_metadata_row()
        return
    if not words[0].isdigit() or int(words[0]) >= len(draft.joins.entries):
        return
    number = int(words[0])
    form = draft.join_forms[number]
    if name == "remove-join" and len(draft.joins.entries) > 1:
        del draft.joins.entries[number]
    elif name == "add-pair":
        form.on.append_entry()
    elif name == "remove-pair" and len(form.on.entries) > 1:
        form.on.pop_entry()
    elif name == "use":
        _use_suggested(form, rest.partition(" ")[2])
    elif name == "cure":
        _cure(form, words[1:])


def _use_suggested(form: Any, text: str) -> None:
    try:
        pairs = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(pairs, list) and pairs and all(isinstance(pair, list) and len(pair) == 3 for pair in pairs):  # noqa: PLR2004
        set_pairs(form, [(str(local), str(foreign), str(cast or "")) for local, foreign, cast in pairs])


def _cure(form: Any, words: list[str]) -> None:
    if len(words) == 3 and words[0].isdigit() and int(words[0]) < len(form.on.entries):  # noqa: PLR2004
        pair = form.on.entries[int(words[0])].form
        changed = pair if words[1] in pair else form
        if words[1] in changed:
            changed[words[1]].data = words[2]


def describe_field(found: Field | None) -> str:
    """``text, 84 % filled``: what is known of a field, briefly."""
    if found is None:
        return ""
    kinds = list(dict.fromkeys(type_label(name) for name in found.types))
    words = " or ".join(kinds[:2]) or "always empty"
    if found.filled == 1:
        return words
    return f"{words}, {format_share(found.filled)} filled"


def anchor_of(action: str) -> str:
    """Where the page should be after a button was pressed without JavaScript."""
    numbered = re.fullmatch(r"(add-pair|remove-pair|use|cure) (\d+).*", action)
    return f"#join-{int(numbered[2]) + 1}" if numbered else ""


def pairs_as_json(suggestion: Any) -> str:
    """The pairs of a suggestion, as the builder's buttons carry them."""
    return json.dumps([[pair.local, pair.foreign, pair.cast] for pair in suggestion.pairs])


def input_mode(row: Any, found: Any) -> str:
    """The keys that a phone should show for the value of a condition."""
    return value_type(row.type.data, None if found is None else found.main_type).input_mode
