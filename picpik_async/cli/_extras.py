"""Optional packages: said by name when they are missing."""

from __future__ import annotations

import importlib.util

from picpik_async.errors import ConfigurationError

__all__ = ["require"]


def require(extra: str, *modules: str) -> None:
    """Make sure that the *modules* of an *extra* are installed.

    Raises:
        ConfigurationError: one is not; the message holds the command that installs it.
    """
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        msg = f"{' and '.join(missing)} cannot be imported; run: pip install 'picpik-async[{extra}]'"
        raise ConfigurationError(msg)
