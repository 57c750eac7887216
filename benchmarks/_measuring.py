"""One measurement of uploads: a client in a process of its own, against a sink in a process of its own."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import attrs
import trustme

from benchmarks._harness import python_figures
from benchmarks._pictures import find_mask, find_pictures
from benchmarks._serving import serving
from benchmarks._signature import signature
from benchmarks._work import Work

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["COLUMNS", "measuring"]

COLUMNS = {
    "rate": "requests/s",
    "cpu": "CPU ms/request",
    "peak": "peak MB",
    "idle": "idle MB",
    "stall": "worst stall ms",
    "p999": "p99.9 stall ms",
}


def measuring(way: str, folder: Path, **how: object) -> Callable[[], dict[str, float]]:
    """A function that measures a `Work` once; `tls=True` is over TLS, `journal=True` keeps one."""
    tls, journal = how.pop("tls", False), how.pop("journal", False)
    work = Work(way=way, folder=str(folder), journal=str(folder) if journal else "", **how)  # type: ignore[arg-type]
    return lambda: _measure(work, folder, tls=bool(tls))


def _measure(work: Work, folder: Path, *, tls: bool) -> dict[str, float]:
    for path in find_pictures(folder):
        path.read_bytes()  # so that no run waits for the disk
    kept = folder / "kept.json"
    kept.unlink(missing_ok=True)
    arguments = [str(kept), str(work.at_once // 2)]
    if tls:
        work = attrs.evolve(work, certificate=str(folder / "authority.pem"))
        arguments.append(_certify(folder))
    with serving("benchmarks._sink", *arguments, scheme="https" if tls else "http") as endpoint:
        work = attrs.evolve(work, endpoint=endpoint)
        figures = python_figures("benchmarks._client", json.dumps(attrs.asdict(work)))
    _check(kept.read_bytes(), folder)
    return figures


def _certify(folder: Path) -> str:
    """Make an authority, and a certificate for the sink; gives the path of the latter."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "sink.pem")
    return str(folder / "sink.pem")


def _check(body: bytes, folder: Path) -> None:
    """Raise unless the *body* is signed as the vendor wants it, with a picture and the mask of *folder* in it."""
    parameters = json.loads(body)
    claimed = parameters.pop("Signature")
    picture, mask = (base64.b64decode(uri.partition(",")[2]) for uri in parameters["ImageAndMaskList"])
    genuine = any(picture == path.read_bytes() for path in find_pictures(folder))
    if claimed != signature(parameters) or not genuine or mask != find_mask(folder).read_bytes():
        msg = "the request that was kept is not what should have been sent"
        raise ValueError(msg)
