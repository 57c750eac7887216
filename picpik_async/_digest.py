"""What tells a job from others: a SHA-256 over what is asked for, but not over what is drawn or counted anew each time."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

from picpik_async import _wire
from picpik_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from picpik_async._config import Dialect
    from picpik_async._images import ImageSource
    from picpik_async._requests import Job

__all__ = ["digest"]

_RANDOM_SEEDS: Final = {None, -1}


def digest(request: Job, fingerprints: Mapping[ImageSource, str], dialect: Dialect) -> str:
    """Hex SHA-256 of *request*, without keys, uuid and automatic seed.

    Args:
        request: as the user made it.
        fingerprints: stand for its images.
        dialect: has the default model.

    Raises:
        InvalidRequestError: a parameter that JSON cannot hold.
    """
    parameters = _wire.parameters(request, dialect=dialect, public_key="", request_uuid="")
    del parameters["PublicKey"], parameters["request_uuid"]
    if parameters.get("Seed") in _RANDOM_SEEDS:
        parameters.pop("Seed", None)
    asked = [parameters, getattr(request, "auto_size", None)]  # decides the size that is sent

    def stand_in(value: Any) -> str:
        return fingerprints[value]

    try:
        text = json.dumps(asked, sort_keys=True, default=stand_in)
    except (TypeError, ValueError, KeyError, RecursionError):
        msg = "a parameter cannot be written as JSON; use strings, numbers, bools, lists and maps with names that are strings"
        raise InvalidRequestError(msg, allowed="what JSON can hold") from None
    return hashlib.sha256(text.encode()).hexdigest()
