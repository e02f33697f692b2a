"""What a page with charts is made of: style, script, data that cannot be anything else, and their hashes for its policy."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import BaseLoader, ChoiceLoader, PackageLoader
from markupsafe import Markup

__all__ = ["content_hash", "inert_json", "loader", "page_parts", "source"]


def loader(package: str) -> BaseLoader:
    """Of a package's own templates, and of those of the charts."""
    return ChoiceLoader([PackageLoader(package), PackageLoader("dynamics.charting")])


def source(package: str, name: str) -> str:
    """The text of a file among the templates of a package."""
    from importlib.resources import files

    return (files(package) / "templates" / name).read_text(encoding="utf-8")


def page_parts(data: Mapping[str, Any], *, style: str = "", scripts: Sequence[str] = ()) -> dict[str, Any]:
    """Style and script of a page with charts, its data, and hashes of both for ``Content-Security-Policy``.

    Args:
        data: what :func:`.payload.payload` makes, and whatever the page's own scripts need.
        style: the page's own.
        scripts: sources of the page's own scripts; they share the names of ``charts.js``, and run before the first drawing.

    Returns:
        ``data``, ``style``, ``script``, ``style_hash``, ``script_hash``.
    """
    style = f"{style}\n{source('dynamics.charting', 'charts.css')}"
    parts = "\n".join([source("dynamics.charting", "charts.js"), *scripts, "redraw();"])
    script = f'"use strict";\n(() => {{\n{parts}\n}})();\n'
    return {
        "data": inert_json(data),
        "style": Markup(style),
        "script": Markup(script),
        "style_hash": content_hash(style),
        "script_hash": content_hash(script),
    }


def content_hash(text: str) -> str:
    """How a ``Content-Security-Policy`` names an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def inert_json(value: Any) -> Markup:
    """JSON that cannot end the element that it stands in, nor begin another.

    >>> print(inert_json(["</script>&\\u2028"]))
    ["\\u003c/script\\u003e\\u0026\\u2028"]
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
