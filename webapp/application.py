"""Creates the application with its settings, blueprints, template functions, error pages and response headers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Flask, Response
from flask_wtf import CSRFProtect

from webapp.api import compat, v1
from webapp.builder import context, routes, saved
from webapp.ops import health
from webapp.presenters import check_text, column_text, join_text, outcome_text, task_text, value_text
from webapp.results import comparisons, downloads, result_pages, result_text
from webapp.support import errors, forms, logs, paging, static_files
from webapp.tasks import task_list, task_page
from worker_tasks.infra.settings import SettingsError, settings
from worker_tasks.results import retention

REPOSITORY = Path(__file__).resolve().parent.parent
#: Twice the size of the largest form, which submits up to 16 KiB of metadata both before and after editing.
#: Percent-encoding can triple its size.
MAX_REQUEST_BYTES = 192 * 1024

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

#: Modules whose blueprints serve API clients, which send no CSRF token.
API_MODULES = (compat, v1)
PAGE_MODULES = (routes, saved, task_page, result_pages, downloads, comparisons, task_list, health)

#: Functions that templates use as filters of the same name.
FILTERS: tuple[Callable[..., Any], ...] = (
    check_text.cure_action,
    check_text.describe_cure,
    check_text.describe_expected,
    check_text.describe_pairs,
    check_text.describe_preview,
    check_text.level_label,
    column_text.describe_column,
    column_text.describe_filled,
    column_text.describe_kind_and_values,
    column_text.describe_others,
    column_text.describe_range,
    column_text.describe_shape,
    column_text.describe_values,
    column_text.filled_length,
    column_text.has_frequent_values,
    column_text.is_searchable,
    context.input_mode,
    context.pairs_as_json,
    forms.metadata_as_fields,
    join_text.as_curl,
    join_text.as_json,
    result_text.describe_chart_scope,
    result_text.describe_changes,
    result_text.describe_file_preparation,
    result_text.describe_file_progress,
    result_text.describe_measuring,
    result_text.describe_pairing,
    result_text.describe_rows,
    result_text.describe_selection,
    result_text.format_column_count,
    result_text.format_condition_count,
    result_text.kept_columns,
    result_text.offers_all_rows,
    result_text.progress_attributes,
    result_text.sorting_of,
    task_text.describe_progress,
    task_text.percent,
    value_text.are_documents,
    value_text.bson_value,
    value_text.columns_of,
    value_text.compact_json,
    value_text.format_ago,
    value_text.format_count,
    value_text.format_duration,
    value_text.format_instant,
    value_text.format_list,
    value_text.format_number,
    value_text.format_quoted,
    value_text.format_seconds,
    value_text.format_share,
    value_text.format_size,
    value_text.instant_of,
    value_text.joined_columns,
    value_text.ordinal,
)
#: Functions that templates call by the same name.
FUNCTIONS: tuple[Callable[..., Any], ...] = (
    column_text.bar_length,
    column_text.bars,
    column_text.format_value,
    column_text.horizontal_bars,
    forms.error_attributes,
    join_text.describe_join,
    join_text.describe_join_lines,
    join_text.describe_kind,
    join_text.kind_traits,
    paging.pages_around,
    result_text.describe_comparison,
    result_text.describe_partial,
    retention.kept_until,
    outcome_text.actual_vs_expected,
    task_text.can_be_cancelled,
    outcome_text.cancel_receipt,
    task_text.decode_result,
    task_text.describe_state,
    task_text.describe_status,
    task_text.describe_task,
    task_text.describe_timeline,
    task_text.format_run_time,
    task_text.icon_of,
    task_text.is_final,
    task_text.join_outcome,
    task_text.metadata_rows,
    task_text.page_title,
    value_text.value_at,
)


def create_app() -> Flask:
    """Creates the web application.

    Raises:
        SettingsError: a required setting is missing.
    """
    app = Flask(__name__, root_path=str(REPOSITORY), template_folder="templates", static_folder="static")
    _configure(app)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    _register_blueprints(app)
    errors.register(app)
    _register_template_functions(app)
    static_files.register(app)
    app.after_request(_add_headers)
    app.url_value_preprocessor(_bind_task)
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
        # A form left open overnight stays valid, because its token lives as long as the browser's session.
        WTF_CSRF_TIME_LIMIT=None,
        # The Referer check refuses plain HTTP behind a proxy that terminates TLS. The CSRF token protects forms.
        WTF_CSRF_SSL_STRICT=False,
    )


def _register_blueprints(app: Flask) -> None:
    protection = CSRFProtect(app)
    for module in API_MODULES:
        protection.exempt(module.blueprint)
    for module in PAGE_MODULES + API_MODULES:
        app.register_blueprint(module.blueprint)


def _register_template_functions(app: Flask) -> None:
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    for function in FILTERS:
        app.add_template_filter(function)
    for function in FUNCTIONS:
        app.add_template_global(function)


def _bind_task(endpoint: str | None, values: dict[str, Any] | None) -> None:
    if values and "task_id" in values:
        logs.bind_task(values["task_id"])


def _add_headers(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    if "Cache-Control" not in response.headers:
        response.headers["Cache-Control"] = "no-store"
    return response
