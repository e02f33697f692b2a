"""Writing small chunks where they are asked for: zarr hands each to a thread of its own, which takes longer than writing it."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.storage import LocalStore

__all__ = ["DirectStore"]

SMALL = 2**16
"""Bytes up to which a file is written without a thread: larger ones are written several at a time."""


class DirectStore(LocalStore):
    """A folder in which small files are written, and metadata read, without a thread for each."""

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """See the base class."""
        if byte_range is not None or not key.endswith("zarr.json"):
            return await super().get(key, prototype, byte_range)
        try:
            content = (self.root / key).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        return (prototype or default_buffer_prototype()).buffer.from_bytes(content)

    async def set(self, key: str, value: Buffer) -> None:
        """See the base class."""
        if len(value) > SMALL:
            await super().set(key, value)
            return
        self._check_writable()
        file = self.root / key
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f"{file.name}.{uuid.uuid4().hex}.partial")
        try:
            partial.write_bytes(value.to_bytes())
            os.replace(partial, file)
        except OSError:
            with suppress(OSError):
                partial.unlink()
            raise
