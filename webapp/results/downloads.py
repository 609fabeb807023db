"""Read: the page from which a result, or what is shown of it, is taken away as a file, its size said before."""

from dataclasses import dataclass
from typing import Any

from flask import Blueprint, make_response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import NotFound

from webapp.presenters.value_text import FORMAT_TEXTS, FormatText
from webapp.results import result_request, streaming
from webapp.results.result_pages import with_result
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

    file_format: Format
    artifact: Artifact | None
    size: int | None

    @property
    def text(self) -> FormatText:
        return FORMAT_TEXTS[self.file_format.label]


def _offer(task_id: str, summary: Summary, file_format: Format, selection: Selection, *, make: bool) -> Offer:
    """What there is of a format; one that somebody waits for is asked for, so that it is begun anew if need be."""
    if streaming.needs_no_export(file_format, selection, inside=result_request.wants_provenance_embedded()):
        return Offer(file_format, None, streaming.direct_size(summary, file_format))
    file = _file(task_id, file_format, selection)
    state = artifacts.request_artifact(summary, file) if make else artifacts.find_artifact(summary, file)
    return Offer(file_format, state, state.data["size"] if state is not None and state.is_done else None)


def _parameters(selection: Selection) -> dict[str, Any]:
    return result_request.selection_parameters(selection) | (
        {"inside": "yes"} if result_request.wants_provenance_embedded() else {}
    )


@blueprint.get("")
def files_page(task_id: str) -> ResponseReturnValue:
    """Every format, with its size where it is known, and a button that has it made where it is not there."""

    def page(task: Document, summary: Summary) -> ResponseReturnValue:
        selection = result_request.requested_selection()
        result = result_request.prepare_result(
            summary, selection, 0 if "HX-Request" in request.headers else result_request.WAIT_SECONDS
        )
        asked_for = request.args.getlist("make")
        can_be_made = result.table.is_done and not result.errors
        offers = [
            _offer(task_id, summary, file_format, selection, make=can_be_made and file_format.name in asked_for)
            for file_format in FORMATS.values()
        ]
        under_way = result.is_under_way or any(offer.artifact and offer.artifact.is_under_way for offer in offers)
        return make_response(
            render_template(
                "results/files.html",
                task=task,
                summary=summary,
                result=result,
                offers=offers,
                under_way=under_way,
                inside=result_request.wants_provenance_embedded(),
                parameters=_parameters(selection),
                asked_for=asked_for,
                with_place=_names(has_place=True),
                without_place=_names(has_place=False),
            ),
            422 if result.errors else 200,
        )

    return with_result(task_id, page)


def _names(*, has_place: bool) -> list[str]:
    """The formats with a place for the provenance, or without one, as people call them."""
    return [
        FORMAT_TEXTS[file_format.label].name for file_format in FORMATS.values() if file_format.has_place is has_place
    ]


def _file(task_id: str, file_format: Format, selection: Selection) -> ArtifactSpec:
    return export_spec(task_id, file_format.name, selection, inside=result_request.wants_provenance_embedded())


@blueprint.post("")
def make(task_id: str) -> ResponseReturnValue:
    """Has a file made."""
    file_format = FORMATS.get(request.form.get("format", ""))
    if file_format is None:
        raise NotFound

    def begin(task: Document, summary: Summary) -> ResponseReturnValue:
        selection = result_request.requested_selection()
        if artifacts.await_artifact(summary, artifacts.TABLE, result_request.WAIT_SECONDS).is_done:
            artifacts.await_artifact(summary, _file(task_id, file_format, selection), result_request.WAIT_SECONDS)
        making = list(dict.fromkeys([*request.form.getlist("make"), file_format.name]))
        return redirect(url_for(".files_page", task_id=task_id, make=making, **_parameters(selection)), 303)

    return with_result(task_id, begin)
