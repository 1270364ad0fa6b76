"""A page in a real browser: what its script finds, what the browser complains of, what is fetched.

The page lies in a frame of one that the test writes, both from a server on this machine, so that
the test's script looks into it without a line of it being changed. No other machine can be
reached; what a page asks for is in the browser's log of its requests, answered or not.
"""

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import unescape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.conditions import chromium

_SECONDS = 300  # on a machine that does something else
_WRAPPER = """<!doctype html><title>test</title><link rel="icon" href="data:,">
<iframe id="page" src="/page" width="{width}" height="800"></iframe><pre id="found"></pre><script>
addEventListener("load", () => {{
  let found;
  try {{
    const view = document.getElementById("page").contentWindow;
    found = (function (window, document) {{ {script} }})(view, view.document);
  }} catch (error) {{ found = {{ error: String(error) }}; }}
  document.getElementById("found").textContent = JSON.stringify(found);
}});
</script>"""


@dataclass(frozen=True)
class Seen:
    """What the script returned, the console's lines, and the addresses that a page asked for,
    without that of the page itself."""

    found: Any
    console: list[str]
    fetched: list[str]


def look(page: str, folder: Path, script: str, *, dark: bool = False, width: int = 1200) -> Seen:
    """Open a page, run the body of a function of `window` and `document` in it, and return what it
    returns; `folder` is the browser's own."""
    wrapper, log = _WRAPPER.format(script=script, width=width), folder / "requests.json"
    with _served({"/": wrapper, "/page": page}) as address:
        done = subprocess.run(
            [
                chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
                "--disable-background-networking", "--disable-component-update",
                "--disable-dev-shm-usage", f"--user-data-dir={folder / 'browser'}",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
                f"--blink-settings=preferredColorScheme={0 if dark else 1}",
                "--enable-logging=stderr", "--v=0", f"--log-net-log={log}",
                "--window-size=1300,900", "--dump-dom", f"{address}/",
            ],
            capture_output=True, text=True, timeout=_SECONDS, check=True,
        )  # fmt: skip
    shown = re.search(r'<pre id="found">(.+?)</pre>', done.stdout, re.DOTALL)
    assert shown, done.stdout[-2000:] + done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    asked = [url.removeprefix(address) for url in _asked(json.loads(log.read_text()))]
    assert asked.count("/page") == 1  # else the log is none of these
    return Seen(json.loads(unescape(shown[1])), console, [url for url in asked if url != "/page"])


def _asked(log: dict[str, Any]) -> Iterator[str]:
    """The addresses that pages asked for; what the browser itself asks for has no origin."""
    started = log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    for event in log["events"]:
        given = event.get("params", {})
        if event["type"] == started and given.get("initiator", "not an origin") != "not an origin":
            yield given["url"]


@contextmanager
def _served(pages: dict[str, str]) -> Iterator[str]:
    """The address of a server of these pages."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = pages.get(self.path)
            self.send_response(404 if page is None else 200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write((page or "").encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
