"""Messages about the runs file in the words of a training job, which has arguments instead."""

from __future__ import annotations

import re

__all__ = ["in_arguments"]

_WORDS = (
    ("with `analyses` or --analyses", "with `analyses`"),
    ("beside the runs file, or installed", "that can be imported"),
    ("beside the runs file or installed", "that can be imported"),
    ("of a module beside the runs file or an installed one", "of a module that can be imported"),
    ("relative to the runs file", "relative to the working folder"),
    ("in the runs file", "among the arguments or in `settings`"),
    ("from the runs file", "from the arguments"),
)
"""What messages say of the runs file and the command line, and what it is for a training job."""


def in_arguments(text: str) -> str:
    """A message in the words of who calls :class:`LiveCollector` and has no runs file.

    >>> in_arguments("lower `batch_tokens` in the runs file")
    'lower `batch_tokens` among the arguments or in `settings`'
    """
    for words, others in _WORDS:
        text = text.replace(words, others)
    return re.sub(r"(with|or) --([a-z]+)", r"\1 `\2`", text)
