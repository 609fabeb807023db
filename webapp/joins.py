"""Ask: the form for a user's orders, and the one for the practice task."""

from datetime import timedelta
from typing import Any

from celery import Task
from flask import Blueprint, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from webapp.forms import PracticeForm, TaskForm, UserOrdersForm
from worker_tasks.errors import ServiceUnavailable
from worker_tasks.settings import settings
from worker_tasks.submission import submit
from worker_tasks.tasks import join_users_orders, long_running_task

blueprint = Blueprint("joins", __name__)


@blueprint.get("/")
def ask() -> ResponseReturnValue:
    return _page("joins/user_orders.html", UserOrdersForm(request.args))


@blueprint.post("/")
def ask_user_orders() -> ResponseReturnValue:
    form = UserOrdersForm()
    return _submit("joins/user_orders.html", form, join_users_orders, form.user_id.data)


@blueprint.get("/practice")
def practice() -> ResponseReturnValue:
    return _page("joins/practice.html", PracticeForm(request.args))


@blueprint.post("/practice")
def start_practice() -> ResponseReturnValue:
    form = PracticeForm()
    return _submit("joins/practice.html", form, long_running_task, form.task_input.data)


def _submit(template: str, form: TaskForm, task: Task, *args: Any) -> ResponseReturnValue:
    """Submits what the form asks for, or shows the form again with what was typed and what is wrong."""
    if "add_row" in request.form:
        form.add_metadata_row()
        return _page(template, form)
    if not form.validate():
        return _page(template, form), 422
    try:
        task_id = submit(task, *args, metadata=form.collected_metadata())
    except ServiceUnavailable as error:
        return _page(template, form, trouble=str(error)), 503
    return redirect(url_for("status.task_page", task_id=task_id), 303)


def _page(template: str, form: TaskForm, trouble: str | None = None) -> str:
    return render_template(
        template,
        form=form,
        trouble=trouble,
        result_ttl=timedelta(seconds=settings().result_ttl_seconds),
        practice_time=timedelta(seconds=settings().long_task_seconds),
    )
