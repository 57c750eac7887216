"""The `picpik` command; needs the `cli` extra, and the `emulator` extra for `demo`, `emulator` and `--emulator`.

```text
argv ─► _app ─► _run (session, exit code) ─► _jobs, _demo, _batch, _journal ─► _progress (stderr), _output (stdout, errors)
```
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from picpik_async.cli._extras import require
from picpik_async.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `picpik` command.

    Args:
        argv: the arguments; left out they are those of the process.

    Returns:
        The exit code: 0, 1 (failed), 2 (usage, settings, missing packages) or 130 (interrupted).
    """
    try:
        require("cli", "cyclopts", "rich")
    except ConfigurationError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - rich, which would print it, is what may be missing
        return 2
    from picpik_async.cli._app import dispatch  # noqa: PLC0415 - imports what was just required

    return dispatch(sys.argv[1:] if argv is None else argv)
