"""A draft as pairs of label and text, with its parameters in braces."""

from collections.abc import Iterator
from typing import Any

from webapp.builder.drafts import Draft
from webapp.builder.form_parts import DIRECTION_CHOICES, OPERATOR_CHOICES
from webapp.presenters import join_text


def describe_draft(draft: Draft) -> list[tuple[str, str]]:
    """The lines that describe a draft."""
    lines = [("From", join_text.describe_side(draft.left)), *_describe_part(draft)]
    lines += [join_text.describe_expand(row.data) for row in draft.expanded]
    for number, form in enumerate(draft.join_forms):
        side = join_text.describe_other_side(draft.side(form), draft.left)
        pairs = [join_text.describe_pair(entry.data) for entry in form.on.entries]
        lines.append(("Join", join_text.describe_join_line(form.chosen_kind, side, pairs)))
        if form.embeds:
            lines.append(
                ("Into", join_text.describe_target(draft.target_field(number), form.into.data, form.chosen_shape))
            )
        lines += _describe_part(form)
    return lines


def _describe_part(form: Any) -> Iterator[tuple[str, str]]:
    labels = {option.value: option.label for option in OPERATOR_CHOICES}
    for entry in form.filters.entries:
        row = entry.form
        if row.field.data:
            yield (
                "Only where",
                f"{row.field.data} {labels.get(row.operator.data, '')} {row.value.data or ''}".strip(),
            )
    if form.raw.data:
        yield "Only where", form.raw.data
    if form.fields.data:
        yield "Fields", ", ".join(form.fields.data)
    sort = [entry.form for entry in form.sort.entries if entry.form.field.data]
    if sort:
        directions = {option.value: option.label for option in DIRECTION_CHOICES}
        yield "Order", "; ".join(f"{row.field.data}, {directions.get(row.direction.data, '')}" for row in sort)
    if form.limit.data:
        yield "At most", form.limit.data
