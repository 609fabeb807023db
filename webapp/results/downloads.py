"""Read: the page from which a result, or what is shown of it, is taken away as a file, its size said before."""

from dataclasses import dataclass
from typing import Any

from flask import Blueprint, make_response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import NotFound

from webapp.presenters.value_text import FORMAT_WORDS, FormatWords
from webapp.results import result_request, streaming
from webapp.results.result_pages import read
from worker_tasks.analysis import artifacts
from worker_tasks.analysis.artifacts import Artifact, ArtifactSpec
from worker_tasks.analysis.export_selection import Selection, export_spec
from worker_tasks.infra.connections import Document
from worker_tasks.results.formats import FORMATS, Format
from worker_tasks.results.result_store import Summary

blueprint = Blueprint("downloads", __name__, url_prefix="/tasks/<task_id>/result/files")


@dataclass(frozen=True)
class Offer:
    """A format: how far its file is, None where nobody asked for it; its ``size`` in bytes once that is known."""

    form: Format
    state: Artifact | None
    size: int | None

    @property
    def words(self) -> FormatWords:
        return FORMAT_WORDS[self.form.label]


def _offer(task_id: str, summary: Summary, form: Format, excerpt: Selection, *, make: bool) -> Offer:
    """What there is of a format; one that somebody waits for is asked for, so that it is begun anew if need be."""
    if streaming.is_at_once(form, excerpt, inside=result_request.wants_provenance_embedded()):
        return Offer(form, None, streaming.size_at_once(summary, form))
    file = _file(task_id, form, excerpt)
    state = artifacts.request_artifact(summary, file) if make else artifacts.find_artifact(summary, file)
    return Offer(form, state, state.data["size"] if state is not None and state.is_done else None)


def _parameters(excerpt: Selection) -> dict[str, Any]:
    return result_request.selection_address(excerpt) | (
        {"inside": "yes"} if result_request.wants_provenance_embedded() else {}
    )


@blueprint.get("")
def files_page(task_id: str) -> ResponseReturnValue:
    """Every format, with its size where it is known, and a button that has it made where it is not there."""

    def page(task: Document, summary: Summary) -> ResponseReturnValue:
        excerpt = result_request.requested_selection()
        looked = result_request.prepare_result(
            summary, excerpt, 0 if "HX-Request" in request.headers else result_request.PATIENCE
        )
        asked_for = request.args.getlist("make")
        can_be_made = looked.table.is_done and not looked.errors
        offers = [
            _offer(task_id, summary, form, excerpt, make=can_be_made and form.name in asked_for)
            for form in FORMATS.values()
        ]
        under_way = looked.is_under_way or any(offer.state and offer.state.is_under_way for offer in offers)
        return make_response(
            render_template(
                "results/files.html",
                task=task,
                summary=summary,
                looked=looked,
                offers=offers,
                under_way=under_way,
                inside=result_request.wants_provenance_embedded(),
                parameters=_parameters(excerpt),
                asked_for=asked_for,
                with_place=_names(has_place=True),
                without_place=_names(has_place=False),
            ),
            422 if looked.errors else 200,
        )

    return read(task_id, page)


def _names(*, has_place: bool) -> list[str]:
    """The formats with a place for the provenance, or without one, as people call them."""
    return [FORMAT_WORDS[form.label].name for form in FORMATS.values() if form.embeds_provenance is has_place]


def _file(task_id: str, form: Format, excerpt: Selection) -> ArtifactSpec:
    return export_spec(task_id, form.name, excerpt, embed_provenance=result_request.wants_provenance_embedded())


@blueprint.post("")
def make(task_id: str) -> ResponseReturnValue:
    """Has a file made."""
    form = FORMATS.get(request.form.get("format", ""))
    if form is None:
        raise NotFound

    def begin(task: Document, summary: Summary) -> ResponseReturnValue:
        excerpt = result_request.requested_selection()
        if artifacts.await_artifact(summary, artifacts.TABLE, result_request.PATIENCE).is_done:
            artifacts.await_artifact(summary, _file(task_id, form, excerpt), result_request.PATIENCE)
        making = list(dict.fromkeys([*request.form.getlist("make"), form.name]))
        return redirect(url_for(".files_page", task_id=task_id, make=making, **_parameters(excerpt)), 303)

    return read(task_id, begin)
