"""What every answer carries to protect its reader, and what no template holds."""

import re

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.support import ROOT
from webapp.application import create_app
from worker_tasks.infra.settings import SettingsError, settings


@pytest.mark.parametrize("path", ["/", "/tasks", "/task/none", "/nothing", "/static/dovetail.css"])
def test_every_answer_says_what_may_run_in_it(client: FlaskClient, servers: None, path: str) -> None:
    with client.get(path) as answer:
        headers = answer.headers
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"


@pytest.mark.parametrize("template", [str(path.relative_to(ROOT)) for path in (ROOT / "templates").rglob("*.html")])
def test_no_template_holds_script_or_style(template: str) -> None:
    text = (ROOT / template).read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)", text)
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:|\|\s*safe\b", text)


def test_what_changes_is_not_kept_and_what_is_versioned_is(client: FlaskClient, servers: None) -> None:
    page = client.get("/")
    assert page.headers["Cache-Control"] == "no-store"
    style = re.search(r'href="(/static/dovetail\.css\?v=[0-9a-f]{12})"', page.text)
    assert style
    with client.get(style[1]) as answer:
        assert "max-age=31536000" in answer.headers["Cache-Control"]


def test_the_cookie_is_for_forms_of_this_site_alone(app: Flask, client: FlaskClient) -> None:
    cookie = client.get("/").headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Secure" not in cookie  # the tests speak plain HTTP, and say so by COOKIES_SECURE


@pytest.mark.parametrize("named", [False, True])
def test_the_cookie_travels_over_tls_alone_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, *, named: bool
) -> None:
    monkeypatch.delenv("COOKIES_SECURE")
    if named:
        monkeypatch.setenv("COOKIES_SECURE", "true")
    settings.cache_clear()
    try:
        assert create_app().config["SESSION_COOKIE_SECURE"] is True
    finally:
        settings.cache_clear()


def test_without_a_secret_key_the_application_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SECRET_KEY")
    settings.cache_clear()
    try:
        with pytest.raises(SettingsError, match="SECRET_KEY is not set: give all web processes the same"):
            create_app()
    finally:
        settings.cache_clear()
