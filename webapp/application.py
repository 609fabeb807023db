"""create_app(): settings, rooms, error pages."""

from pathlib import Path
from types import ModuleType
from typing import Any

from flask import Flask, Response
from flask_wtf import CSRFProtect

from webapp.api import compat, v1
from webapp.builder import context, routes, saved
from webapp.ops import health
from webapp.presenters import check_text, column_text, join_text, task_text, value_text
from webapp.results import comparisons, downloads, result_pages, result_text
from webapp.support import errors, forms, logs, paging, static_files
from webapp.tasks import task_list, task_page
from worker_tasks.infra.settings import SettingsError, settings
from worker_tasks.results import retention

REPOSITORY = Path(__file__).resolve().parent.parent
#: Largest request that is read: a form with all the metadata that is allowed and what it was opened with, each
#: byte written as ``%xx``, twice over.
MAX_REQUEST_BYTES = 192 * 1024

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


#: What templates may use behind a bar, and what they may call, by the room that it is in.
FILTERS: dict[ModuleType, tuple[str, ...]] = {
    column_text: (
        *("can_be_looked_for", "filled_length", "describe_filled", "is_telling", "kind_and_values", "describe_others"),
        *("range_sentence", "shape_words", "describe_column", "describe_values"),
    ),
    check_text: ("cure_action", "cure_words", "expected_lines", "level_word", "pairs_words", "preview_words"),
    value_text: (
        *(
            "format_ago",
            "bson_value",
            "columns_of",
            "counted",
            "format_duration",
            "format_instant",
            "holds_documents",
            "instant_of",
        ),
        *("joined_columns", "listed", "number", "place", "quoted", "format_seconds", "format_share", "format_size"),
    ),
    join_text: ("as_curl", "as_json"),
    task_text: ("percent", "progress_words"),
    result_text: (
        *("changes_sentence", "columns_kept", "columns_words", "conditions_words", "excerpt_sentence", "file_progress"),
        *("leads_to_all_rows", "making_sentence", "measuring_sentence", "pairing_sentence", "pictures_note"),
        *("progress_of", "rows_sentence", "sorting_of"),
    ),
    context: ("input_mode", "pairs_as_json"),
    forms: ("as_written",),
}
FUNCTIONS: dict[ModuleType, tuple[str, ...]] = {
    join_text: ("describe_join_lines", "describe_join", "kind_traits", "describe_kind"),
    paging: ("pages_around",),
    task_text: (
        *("can_be_cancelled", "cancel_receipt", "icon_of", "is_final", "join_outcome", "metadata_rows", "page_title"),
        *("returned", "describe_task", "describe_state", "status_line", "timeline", "took_words", "actual_vs_expected"),
    ),
    result_text: ("partial_sentence", "two_runs"),
    retention: ("kept_until",),
    value_text: ("at_column",),
    column_text: ("bar_length", "bars", "lying_bars", "format_value"),
    forms: ("wrong",),
}


def create_app() -> Flask:
    """The web application.

    Raises:
        SettingsError: the environment lacks something.
    """
    app = Flask(__name__, root_path=str(REPOSITORY), template_folder="templates", static_folder="static")
    _configure(app)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    protection = CSRFProtect(app)
    for programs in (compat, v1):
        protection.exempt(programs.blueprint)
    for room in (routes, saved, task_page, result_pages, downloads, comparisons, task_list, compat, v1, health):
        app.register_blueprint(room.blueprint)
    errors.register(app)
    _teach_templates(app)
    static_files.register(app)
    app.after_request(_protect)
    app.url_value_preprocessor(_name_task)
    app.wsgi_app = logs.RequestIds(app.wsgi_app)  # type: ignore[method-assign]
    return app


def _configure(app: Flask) -> None:
    secret_key = settings().secret_key
    if secret_key is None:
        raise SettingsError(
            "SECRET_KEY is not set: give all web processes the same long random text, "
            "such as `python -c 'import secrets; print(secrets.token_hex())'` prints."
        )
    app.config.update(
        SECRET_KEY=secret_key.get_secret_value(),
        MAX_CONTENT_LENGTH=MAX_REQUEST_BYTES,
        SESSION_COOKIE_SECURE=settings().cookies_secure,
        SESSION_COOKIE_SAMESITE="Lax",
        # A form left open over night is still good: its token lives as long as the browser's session.
        WTF_CSRF_TIME_LIMIT=None,
        # The Referer check would refuse plain HTTP behind a TLS-ending proxy; the token is what protects.
        WTF_CSRF_SSL_STRICT=False,
    )


def _teach_templates(app: Flask) -> None:
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    for room, filters in FILTERS.items():
        for word in filters:
            app.add_template_filter(getattr(room, word), word)
    for room, functions in FUNCTIONS.items():
        for word in functions:
            app.add_template_global(getattr(room, word), word)


def _name_task(endpoint: str | None, values: dict[str, Any] | None) -> None:
    if values and "task_id" in values:
        logs.about_task(values["task_id"])


def _protect(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    if "Cache-Control" not in response.headers:
        response.headers["Cache-Control"] = "no-store"
    return response
