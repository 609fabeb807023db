"""bin/test: the whole suite, or what the arguments say, on servers and a browser of its own."""

import os
import sys
from pathlib import Path

from development.browser import BrowserError, find_browser

# The tests start servers of their own; a developer's or a platform's must never be written to.
SERVERS = ["REDIS_URL", "CELERY_BROKER_URL", "RESULTS_REDIS_URL", "REDIS_SENTINELS", "MONGODB_URI", "MONGODB_HOST"]


def main() -> None:
    for name in SERVERS:
        os.environ.pop(name, None)
    try:
        browser = find_browser()
    except BrowserError as error:
        sys.exit(str(error))
    if browser:
        os.environ["CHROMIUM"] = browser
    # The Procfile's commands name their programs as they do on a platform: by PATH.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *sys.argv[1:]])


if __name__ == "__main__":
    main()
