"""A tab of a browser: what a reader does in it, what is seen in it, and what went wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Pages = dict[str, tuple[Path, dict[str, Any]]]


class Opened:
    """One tab, with everything that went wrong in it and everything that it asked for."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        self.tab = browser.new_page(**{"viewport": {"width": 1280, "height": 900}, **options})
        self.troubles: list[str] = []
        self.requests: list[str] = []
        self.tab.on("console", lambda m: self.troubles.append(m.text))
        self.tab.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.tab.on("dialog", lambda d: (self.troubles.append(f"dialog {d.message}"), d.dismiss()))
        self.tab.on("request", lambda r: self.requests.append(r.url))
        self.tab.clock.install()
        self.tab.goto(address)
        self.address = address

    def key(self, name: str, times: int = 1) -> None:
        for _ in range(times):
            self.tab.keyboard.press(name)

    def count(self, selector: str) -> int:
        return int(self.tab.locator(selector).count())

    def text(self, selector: str) -> str:
        return str(self.tab.locator(selector).inner_text())

    @property
    def at(self) -> int:
        return int(self.tab.locator("#slider").input_value())


def style(page: Opened, selector: str, name: str) -> list[str]:
    return list(page.tab.eval_on_selector_all(selector, f"found => found.map(e => getComputedStyle(e).{name})"))
