"""What a client that uploads is told."""

from __future__ import annotations

import attrs

__all__ = ["Work"]


@attrs.frozen(kw_only=True)
class Work:
    """What a client does.

    Attributes:
        way: `sdk`, `usual` or `floor`: the module `benchmarks._sdk`, ….
        folder: of the pictures, which are uploaded over and over.
        at_once: uploads in flight; when one ends the next begins.
        seconds: after which none begins; but each of *at_once* has one turn at least.
        endpoint: of the sink.
        certificate: of the authority that vouches for the sink: TLS; empty is plain HTTP.
        journal: a folder for journals; empty is none.
        uvloop: run on uvloop.
        slice_size: `Limits.slice_size`; 0 is the default.
    """

    way: str
    folder: str
    at_once: int
    seconds: float
    endpoint: str = ""
    certificate: str = ""
    journal: str = ""
    uvloop: bool = False
    slice_size: int = 0
