"""Charts over training for pages: drawn in the browser as SVG, with one cursor, one axis and one zoom for all of a page.

A page takes the macros of ``charts.html.j2`` (``controls`` once, ``chart`` for each figure, ``scripts`` at its end), and
:func:`page_parts` for the style, the script and the data that they need. Whatever a run calls its curves is text.
"""

from .page import content_hash, inert_json, loader, page_parts, source
from .payload import payload

__all__ = ["content_hash", "inert_json", "loader", "page_parts", "payload", "source"]
