"""The bundles of styles and scripts, under URLs that browsers may cache."""

import re

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.support import ROOT
from webapp.support.static_files import BUNDLES


@pytest.mark.parametrize(("bundle", "kind"), [("dovetail.css", "css"), ("dovetail.js", "javascript")])
def test_a_bundle_holds_every_file_of_its_folder(client: FlaskClient, bundle: str, kind: str) -> None:
    with client.get(f"/static/{bundle}") as answer:
        assert answer.status_code == 200
        assert kind in answer.content_type
        text = answer.get_data(as_text=True)
    folder = ROOT / "static" / bundle.rpartition(".")[2]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    assert all(path.read_text() in text for path in files)
    assert len(text) == sum(len(path.read_text()) for path in files)


def test_the_layers_are_named_before_any_rule(client: FlaskClient) -> None:
    with client.get("/static/dovetail.css") as answer:
        assert answer.get_data(as_text=True).startswith("@layer reset, base, components, utilities;")


@pytest.mark.parametrize("bundle", sorted(BUNDLES))
def test_a_bundle_is_kept_for_a_year_and_not_sent_again(app: Flask, client: FlaskClient, bundle: str) -> None:
    with app.test_request_context():
        address = app.url_for("static", filename=bundle)
    assert re.fullmatch(rf"/static/{re.escape(bundle)}\?v=[0-9a-f]{{12}}", address)
    with client.get(address) as answer:
        assert "max-age=31536000" in answer.headers["Cache-Control"]
        tag = answer.headers["ETag"]
    assert client.get(address, headers={"If-None-Match": tag}).status_code == 304
