"""The page that offers a result, or a selection of it, as files."""

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
from worker_tasks.results.summaries import Summary

blueprint = Blueprint("downloads", __name__, url_prefix="/tasks/<task_id>/result/files")


@dataclass(frozen=True)
class Offer:
    """A file format as the page offers it.

    ``artifact`` is None if nobody has requested the file; ``size`` in bytes is None until known.
    """

    file_format: Format
    artifact: Artifact | None
    size: int | None

    @property
    def text(self) -> FormatText:
        return FORMAT_TEXTS[self.file_format.label]


def _offer(task_id: str, summary: Summary, file_format: Format, selection: Selection, *, make: bool) -> Offer:
    """The state of one export. With ``make``, requests it, which restarts it if necessary."""
    if streaming.needs_no_export(file_format, selection, embed_provenance=result_request.wants_provenance_embedded()):
        return Offer(file_format, None, streaming.direct_size(summary, file_format))
    file = _file(task_id, file_format, selection)
    artifact = artifacts.request_artifact(summary, file) if make else artifacts.find_artifact(summary, file)
    size = artifact.data["size"] if artifact is not None and artifact.is_done else None
    return Offer(file_format, artifact, size)


def _parameters(selection: Selection) -> dict[str, Any]:
    return result_request.selection_parameters(selection) | (
        {"inside": "yes"} if result_request.wants_provenance_embedded() else {}
    )


@blueprint.get("")
def files_page(task_id: str) -> ResponseReturnValue:
    """Every format, as a download with its size or with a button that prepares it."""
    return with_result(task_id, _files_page)


def _files_page(task: Document, summary: Summary) -> ResponseReturnValue:
    selection, requested = result_request.requested_selection(), request.args.getlist("make")
    seconds = 0 if "HX-Request" in request.headers else result_request.WAIT_SECONDS
    result = result_request.prepare_result(summary, selection, seconds)
    can_be_made = result.table.is_done and not result.errors
    offers = [
        _offer(task["_id"], summary, file_format, selection, make=can_be_made and file_format.name in requested)
        for file_format in FORMATS.values()
    ]
    page = render_template(
        "results/files.html",
        task=task,
        summary=summary,
        result=result,
        offers=offers,
        is_under_way=result.is_under_way or any(offer.artifact and offer.artifact.is_under_way for offer in offers),
        embeds_provenance=result_request.wants_provenance_embedded(),
        parameters=_parameters(selection),
        requested=requested,
        with_place=_names(has_place=True),
        without_place=_names(has_place=False),
    )
    return make_response(page, 422 if result.errors else 200)


def _names(*, has_place: bool) -> list[str]:
    """The names of the formats that always embed the provenance, or of those that do not."""
    return [
        FORMAT_TEXTS[file_format.label].name
        for file_format in FORMATS.values()
        if file_format.embeds_provenance is has_place
    ]


def _file(task_id: str, file_format: Format, selection: Selection) -> ArtifactSpec:
    return export_spec(
        task_id, file_format.name, selection, embed_provenance=result_request.wants_provenance_embedded()
    )


@blueprint.post("")
def make(task_id: str) -> ResponseReturnValue:
    """Requests a file from the workers."""
    file_format = FORMATS.get(request.form.get("format", ""))
    if file_format is None:
        raise NotFound

    def begin(task: Document, summary: Summary) -> ResponseReturnValue:
        selection = result_request.requested_selection()
        if artifacts.await_artifact(summary, artifacts.TABLE, result_request.WAIT_SECONDS).is_done:
            artifacts.await_artifact(summary, _file(task_id, file_format, selection), result_request.WAIT_SECONDS)
        names = list(dict.fromkeys([*request.form.getlist("make"), file_format.name]))
        return redirect(url_for(".files_page", task_id=task_id, make=names, **_parameters(selection)), 303)

    return with_result(task_id, begin)
