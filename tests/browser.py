"""Pages in headless Chromium, cut off from any network; without it such tests are skipped."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="needs chromium (Debian package chromium)"
)


def seen(folder: Path, text: str, script: str, address: str = "") -> tuple[Any, str]:
    """What a script (the body of an async function) returns in a page, and the console's messages.

    `address` is what follows the page's path, such as a fragment.
    """
    done = f"(async () => {{ {script} }})().catch((error) => `failed: ${{error.stack}}`)"
    probe = f"{done}.then((value) => {{ document.title = JSON.stringify(value); }})"
    page = folder / "probe.html"
    added = f"<script>addEventListener('load', () => {{ {probe} }})</script></body>"
    head, _, tail = text.rpartition("</body>")  # scripts can hold others
    page.write_text(head + added + tail, encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}"]
    flags += ["--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--v=0"]
    command = [CHROMIUM, *flags, "--virtual-time-budget=10000", "--dump-dom"]
    result = subprocess.run(
        [*command, page.as_uri() + address], capture_output=True, text=True, timeout=120
    )
    title = result.stdout.split("<title>")[1].split("</title>")[0]
    console = [line for line in result.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(title.replace("&amp;", "&").replace("&lt;", "<")), "\n".join(console)
