"""Read: the page from which a result, or what is shown of it, is taken away as a file, its size said before."""

from dataclasses import dataclass
from typing import Any

from flask import Blueprint, make_response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import NotFound

from webapp import exports, reading
from webapp.results import OPERATOR_WORDS, read
from worker_tasks.connections import Document
from worker_tasks.reading import derived
from worker_tasks.reading.derived import Derivation, Derived
from worker_tasks.reading.exports import FORMATS, Excerpt, file_of
from worker_tasks.results import Summary

blueprint = Blueprint("downloads", __name__, url_prefix="/tasks/<task_id>/result/files")


@dataclass(frozen=True)
class Offer:
    """A format: how far its file is, None where nobody asked for it; its ``size`` in bytes once that is known."""

    form: str
    state: Derived | None
    size: int | None


def inside_asked() -> bool:
    """Whether the provenance goes into formats that have no place for it."""
    return request.values.get("inside") == "yes"


def is_at_once(form: str, excerpt: Excerpt, *, inside: bool) -> bool:
    """Whether the file is there without being made."""
    return form in exports.AT_ONCE and excerpt.is_everything and not inside


def _offer(task_id: str, summary: Summary, form: str, excerpt: Excerpt) -> Offer:
    if is_at_once(form, excerpt, inside=inside_asked()):
        return Offer(form, None, exports.size_at_once(summary, form))
    state = derived.find(summary, file_of(task_id, form, excerpt, inside=inside_asked()))
    return Offer(form, state, state.data["size"] if state is not None and state.is_done else None)


def _parameters(excerpt: Excerpt) -> dict[str, Any]:
    return reading.address_of(excerpt) | ({"inside": "yes"} if inside_asked() else {})


@blueprint.get("")
def files_page(task_id: str) -> ResponseReturnValue:
    """Every format, with its size where it is known, and a button that has it made where it is not there."""

    def page(task: Document, summary: Summary) -> ResponseReturnValue:
        excerpt = reading.excerpt_asked()
        looked = reading.look(summary, excerpt, 0 if "HX-Request" in request.headers else reading.PATIENCE)
        asked_for = request.args.getlist("make")
        offers = []
        for form in FORMATS:
            # Whoever waits for a file asks on, so that one whose worker went away is begun anew.
            if form in asked_for and looked.table.is_done and not looked.errors:
                derived.ask(summary, _file(task_id, form, excerpt))
            offers.append(_offer(task_id, summary, form, excerpt))
        under_way = looked.is_under_way or any(offer.state and offer.state.is_under_way for offer in offers)
        return make_response(
            render_template(
                "results/files.html",
                task=task,
                summary=summary,
                looked=looked,
                offers=offers,
                under_way=under_way,
                inside=inside_asked(),
                parameters=_parameters(excerpt),
                asked_for=asked_for,
                words=exports.FORMAT_WORDS,
                operators=OPERATOR_WORDS,
            ),
            422 if looked.errors else 200,
        )

    return read(task_id, page)


def _file(task_id: str, form: str, excerpt: Excerpt) -> Derivation:
    return file_of(task_id, form, excerpt, inside=inside_asked())


@blueprint.post("")
def make(task_id: str) -> ResponseReturnValue:
    """Has a file made."""
    form = request.form.get("format", "")
    if form not in FORMATS:
        raise NotFound

    def begin(task: Document, summary: Summary) -> ResponseReturnValue:
        excerpt = reading.excerpt_asked()
        if derived.follow(summary, derived.TABLE, reading.PATIENCE).is_done:
            derived.follow(summary, _file(task_id, form, excerpt), reading.PATIENCE)
        making = list(dict.fromkeys([*request.form.getlist("make"), form]))
        return redirect(url_for(".files_page", task_id=task_id, make=making, **_parameters(excerpt)), 303)

    return read(task_id, begin)
