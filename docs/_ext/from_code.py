"""Directives that write tables of the documentation from the code: see ``tables``.

``fields`` lists a pydantic model, ``sites`` and ``wirings`` the architecture families, ``needs`` what each built-in
analysis asks for, ``analyses`` each one's docstring and options, ``verbs`` the public names of ``dynamics``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docutils import nodes
from gallery import write_gallery
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from tables import analyses, fields, needs, sites, verbs, wirings

__all__ = ["setup"]


def plain_module_text(_app: Sphinx, what: str, _name: str, _thing: Any, _options: Any, lines: list[str]) -> None:
    """Modules' docstrings are read in a terminal too: a heading becomes bold, a bar stays a bar."""
    if what == "module":
        for number, line in enumerate(lines):
            if line and not line.strip("-="):
                lines[number - 1], lines[number] = f"**{lines[number - 1]}**", ""
            else:
                lines[number] = re.sub(r"\|", r"\\|", line)


def plain_defaults(_app: Sphinx, _context: Any, lines: list[str]) -> None:
    """A default path is written as it would be typed."""
    lines[:] = [re.sub(r"PosixPath\('([^']*)'\)", r"\1", line) for line in lines]


def write_pages(app: Sphinx, problem: Exception | None) -> None:
    """The pages to which the gallery leads."""
    if problem is None and app.builder.format == "html":
        write_gallery(Path(app.outdir) / "gallery")


def setup(app: Sphinx) -> dict[str, Any]:
    """One directive for each of the functions above."""
    app.connect("autodoc-process-docstring", plain_module_text)
    app.connect("build-finished", write_pages)
    app.connect("sphinx-click-process-options", plain_defaults)
    for name, function in (
        ("fields", fields),
        ("sites", sites),
        ("wirings", wirings),
        ("needs", needs),
        ("analyses", analyses),
        ("verbs", verbs),
    ):
        app.add_directive(name, _directive(function))
    return {"version": "1", "parallel_read_safe": True}


def _directive(function: Callable[[str], str]) -> type[SphinxDirective]:
    class FromCode(SphinxDirective):
        optional_arguments = 1

        def run(self) -> list[nodes.Node]:
            text = function(self.arguments[0] if self.arguments else "")
            return self.parse_text_to_nodes(text, allow_section_headings=True)

    return FromCode
