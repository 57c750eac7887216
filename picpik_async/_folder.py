"""The folder a map saves to: made and tried before anything is paid for."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

from picpik_async.errors import InvalidRequestError, legible

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["prepare_folder"]


def prepare_folder(folder: Path, *, field: str = "save_to") -> None:
    """Make *folder*, if need be, and make sure that files can be written there; blocking.

    Raises:
        InvalidRequestError: they cannot; *field* is what the user calls it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:  # a path with a NUL is a ValueError
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number else type(error).__name__
        msg = f"{field}: nothing can be written to {legible(folder)} ({reason}), and nothing was sent; give another folder"
        raise InvalidRequestError(msg, field=field, value=str(folder), allowed="a folder that can be written") from None
