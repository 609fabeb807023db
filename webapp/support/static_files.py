"""Static files under URLs that change with their content. Styles and scripts are bundled into one file each."""

import hashlib
from io import BytesIO
from pathlib import Path
from typing import Any

from flask import Flask, Response, send_file

YEAR_SECONDS = 365 * 24 * 3600

#: Built at start, so that a page needs one request for styles and one for scripts. The files of one pattern are
#: sorted by name; filters.css and result.css rely on this order to override fields.css and buttons.css.
BUNDLES = {
    "dovetail.css": (
        "css/layers.css",
        "css/tokens.css",
        "css/reset.css",
        "css/base.css",
        "css/components/*.css",
        "css/utilities.css",
    ),
    "dovetail.js": ("js/*.js",),
}


def register(app: Flask) -> None:
    """Adds content hashes to static URLs, serves the bundles, and lets browsers cache both for a year."""
    app.config["SEND_FILE_MAX_AGE_DEFAULT"] = YEAR_SECONDS
    folder = Path(app.static_folder or "")
    bundles = {name: _bundle(folder, patterns) for name, patterns in BUNDLES.items()}
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    versions = {name: hashlib.sha256(content).hexdigest()[:12] for name, content in (files | bundles).items()}

    @app.url_defaults
    def add_version(endpoint: str, values: dict[str, Any]) -> None:
        if endpoint == "static" and values.get("filename") in versions:
            values["v"] = versions[values["filename"]]

    def bundle(name: str) -> Response:
        return send_file(BytesIO(bundles[name]), download_name=name, etag=versions[name])

    for name in bundles:
        app.add_url_rule(f"{app.static_url_path}/{name}", "bundle", bundle, defaults={"name": name})


def _bundle(folder: Path, patterns: tuple[str, ...]) -> bytes:
    return b"".join(path.read_bytes() for pattern in patterns for path in sorted(folder.glob(pattern)))
