"""The lists in the rows of a draft: those to expand, and those whose elements can take the matches of a join."""

from webapp.builder.drafts import Draft
from webapp.builder.form_parts import JoinForm
from worker_tasks.joins.preflight.sampling import CollectionSample


class LeftLists:
    """The lists in the left rows of a join. ``expandable`` are those of the first collection that can be expanded."""

    def __init__(self, draft: Draft, sample: CollectionSample | None):
        expanded = {row.path.data for row in draft.expanded}
        fields = sample.fields if sample else ()
        paths = {each.path for each in fields if "array" in each.types}
        closed = paths - expanded
        self.expandable = [each for each in fields if each.path in paths and not _parents(each.path) & closed]
        self._of_documents = {path for path in closed if any(each.path.startswith(f"{path}.") for each in fields)}

    def add(self, draft: Draft, number: int) -> None:
        """Takes account of the field that a join adds to the rows."""
        form = draft.join_forms[number]
        if form.embeds and not form.into.data:
            name = draft.target_field(number)
            self._of_documents -= {name}
            self._of_documents |= {name} if form.embeds_list else set()

    def into(self, form: JoinForm) -> str | None:
        """The list whose elements can take the matches of a join, by the fields that find them."""
        heads = {(entry.form.local.data or "").partition(".")[0] for entry in form.on.entries}
        dotted = all("." in (entry.form.local.data or "") for entry in form.on.entries)
        found = next(iter(heads)) if dotted and len(heads) == 1 else None
        return found if found in self._of_documents else form.into.data or None


def _parents(path: str) -> set[str]:
    parts = path.split(".")
    return {".".join(parts[:length]) for length in range(1, len(parts))}
