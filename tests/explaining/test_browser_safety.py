"""The page in a browser: hostile texts do nothing, and nothing else is asked for."""

from __future__ import annotations

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.tabs import Opened, Pages

pytestmark = pytest.mark.slow


def test_hostile_texts_are_shown_and_do_nothing(opened: Any, pages: Pages) -> None:
    page, explanation = opened("hostile"), pages["hostile"][1]
    assert page.text("h1").startswith("<script>alert(1)</script>: what")
    assert "<script>alert(1)</script></script><!--⟨U+202E⟩gnp.exe" in page.text(".prompt")
    for place in range(len(explanation["checkpoints"])):
        page.tab.locator("#slider").fill(str(place))
    page.tab.locator(".node.on .box").first.hover()
    assert page.text("#tip")
    assert "<script>alert(1)</script>" in page.tab.locator("#top").inner_text()
    assert "</script><b>" in page.text("#more")
    assert page.count("script") == 2 and page.count("img") == 0 and page.count("b") == 0
    page.tab.locator("#slider").fill("0")
    assert page.text("#message") == "Not measurable: <script>alert(1)</script>⟨U+2029⟩"


def test_hostile_examples_of_features_are_shown_and_do_nothing(opened: Any, pages: Pages) -> None:
    page, explanation = opened("hostile-features"), pages["hostile-features"][1]
    seen = []
    for i, *_ in explanation["checkpoints"][-1]["split"]["active"]:
        page.tab.locator(f"[data-node='{i}']").focus()
        seen.append(page.text("#tip"))
    told = "\n".join(seen)
    assert "<script>alert(1)</script>" in told or "</script>" in told
    assert "\u202e" not in told and "\x00" not in told
    assert page.count("script") == 2 and page.count("img") == 0
    assert "<script>alert(1)</script>" in page.text("#splits") and "<script>alert(1)</script>" in page.text(".reading")


def test_injected_code_would_be_stopped_by_the_policy(chromium: Any, pages: Pages) -> None:
    """The second wall: even markup that got in does not run and asks for nothing."""
    page = Opened(chromium, pages["organism"][0].as_uri())
    page.tab.evaluate("""() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1';
      document.body.append(s); const i = document.createElement('img'); i.src = 'http://127.0.0.1:9/x.png';
      document.body.append(i); document.body.insertAdjacentHTML('beforeend', '<b onclick="window.ran = 1">x</b>');
      document.querySelector('b').click(); }""")
    assert page.tab.evaluate("window.ran") is None
    assert sum("Content Security Policy" in trouble for trouble in page.troubles) == 3
    page.tab.close()


def test_served_by_a_web_server_the_page_is_all_that_is_asked_for(chromium: Any, pages: Pages) -> None:
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(pages["organism"][0].parent)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        page = Opened(chromium, f"http://127.0.0.1:{server.server_port}/organism.html")
        page.key("Home")
        page.tab.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert page.troubles == [] and asked == ["/organism.html"]
