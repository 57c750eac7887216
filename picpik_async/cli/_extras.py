"""Optional packages: said by name when they are missing."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from picpik_async.errors import ConfigurationError

if TYPE_CHECKING:
    from picpik_async.emulator import Emulator

__all__ = ["emulator_class", "require"]


def require(extra: str, *modules: str) -> None:
    """Make sure that the *modules* of an *extra* are installed.

    Raises:
        ConfigurationError: one is not; the message holds the command that installs it.
    """
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        msg = f"{' and '.join(missing)} cannot be imported; run: pip install 'picpik-async[{extra}]'"
        raise ConfigurationError(msg)


def emulator_class() -> type[Emulator]:
    """The emulator, imported; that takes a while, so do not call this on an event loop.

    Raises:
        ConfigurationError: the `emulator` extra is not installed.
    """
    require("emulator", "cv2", "numpy")
    from picpik_async.emulator import Emulator  # noqa: PLC0415 - imports what was just required

    return Emulator
