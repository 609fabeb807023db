"""Security headers, cookies and templates without inline code."""

import re

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.support import ROOT
from webapp.application import create_app
from worker_tasks.infra.settings import SettingsError, settings


@pytest.mark.parametrize("path", ["/", "/tasks", "/task/none", "/nothing", "/static/dovetail.css"])
def test_every_response_has_a_content_security_policy(client: FlaskClient, servers: None, path: str) -> None:
    with client.get(path) as answer:
        headers = answer.headers
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"


@pytest.mark.parametrize("template", [str(path.relative_to(ROOT)) for path in (ROOT / "templates").rglob("*.html")])
def test_no_template_has_inline_scripts_or_styles(template: str) -> None:
    text = (ROOT / template).read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)", text)
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:|\|\s*safe\b", text)


def test_only_versioned_files_are_cached(client: FlaskClient, servers: None) -> None:
    page = client.get("/")
    assert page.headers["Cache-Control"] == "no-store"
    style = re.search(r'href="(/static/dovetail\.css\?v=[0-9a-f]{12})"', page.text)
    assert style
    with client.get(style[1]) as answer:
        assert "max-age=31536000" in answer.headers["Cache-Control"]


def test_the_cookie_is_limited_to_this_site(app: Flask, client: FlaskClient) -> None:
    cookie = client.get("/").headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Secure" not in cookie  # the tests speak plain HTTP, and say so by COOKIES_SECURE


@pytest.mark.parametrize("named", [False, True])
def test_the_cookie_requires_tls_unless_configured_otherwise(monkeypatch: pytest.MonkeyPatch, *, named: bool) -> None:
    monkeypatch.delenv("COOKIES_SECURE")
    if named:
        monkeypatch.setenv("COOKIES_SECURE", "true")
    settings.cache_clear()
    try:
        assert create_app().config["SESSION_COOKIE_SECURE"] is True
    finally:
        settings.cache_clear()


def test_a_missing_secret_key_is_an_error_with_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SECRET_KEY")
    settings.cache_clear()
    try:
        with pytest.raises(SettingsError, match="SECRET_KEY is not set: give all web processes the same"):
            create_app()
    finally:
        settings.cache_clear()
