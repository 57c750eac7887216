"""A submit is never paid twice, and never called not taken if it was: storms against a server with a ledger."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
import trustme
from ledger_server import EARLY, LATE, LedgerProcess, LedgerServer
from storms import LOOPS, Report, Storm

from picpik_async._entries import JobState

if TYPE_CHECKING:
    from pathlib import Path

SEED = 20_240_611


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who vouches for the server."""
    return trustme.CA()


@pytest.fixture(scope="module")
def certificate(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's key and certificate."""
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(path))
    return path


@pytest.fixture(scope="module")
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    """The client's side of TLS."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_storm(scheme: str, loop: str, tmp_path: Path, certificate: Path, client_tls: ssl.SSLContext) -> None:
    """Wherever a submit breaks off, and whoever is cancelled, each charge is accounted for, and there is only one."""
    tls, file = (client_tls, certificate) if scheme == "https" else (None, None)
    with LedgerServer(tmp_path / "ledger", seed=SEED, faults=0.9, certificate=file) as server:
        report = Storm(seed=SEED, small=60, medium=40, large=2, tls=tls, loop=loop).run(server)

    assert [] == report.violations, report.text()
    assert 102 == len(report.outcomes)
    assert {"ack", "unknown", "not taken", "cancelled"} <= set(report.counts)


def test_storm_with_journals(tmp_path: Path) -> None:
    """What was charged is in a journal, too, as committed or later."""
    with LedgerServer(tmp_path / "ledger", seed=SEED, faults=0.9) as server:
        report = Storm(seed=SEED, small=80, medium=40, journals=tmp_path).run(server)

    assert [] == report.violations, report.text()
    assert 100 < len(report.entries) <= 120


def test_pictures(tmp_path: Path) -> None:
    """Each task ends in the very picture that was made for it, or in an error, although reads fail, too."""
    kinds = ("truncated", "dropped", "odd echo", "RST")
    with LedgerServer(tmp_path / "ledger", seed=SEED, faults=0.3, kinds=kinds, read_faults=0.3) as server:
        report = Storm(seed=SEED, small=60, cancelled=0, pictures=tmp_path, journals=tmp_path).run(server)

    assert [] == report.violations, report.text()
    assert 30 < sum(len(outcome.files) for outcome in report.outcomes) <= report.counts["ack"]
    assert JobState.DONE in {entry.state for entry in report.entries}


def test_calm(tmp_path: Path) -> None:
    """Without faults every submit is taken, and the ledger has each once."""
    with LedgerServer(tmp_path / "ledger") as server:
        report = Storm(seed=1, small=20, cancelled=0).run(server)

    assert [] == report.violations
    assert 20 == report.counts["ack"] == len(server.charges())


@pytest.mark.long
def test_long_storm(
    tmp_path: Path, certificate: Path, client_tls: ssl.SSLContext, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same, 6,000 times, 400 of them with a picture of 20 MB, on every transport and event loop."""
    total = Report()
    for number, (tls, loop) in enumerate((tls, loop) for tls in (None, client_tls) for loop in LOOPS):
        path, file, seed = tmp_path / f"ledger-{number}", certificate if tls else None, SEED + number
        with LedgerProcess(path, certificate=file, seed=seed, faults=0.9) as server:
            storm = Storm(
                seed=seed, small=1100, medium=300, large=100, tls=tls, loop=loop, at_once=16, journals=tmp_path
            )
            total.add(storm.run(server))
    with capsys.disabled():
        print(f"\nnever twice: {total.text()}")  # noqa: T201 - the figures are what it is run for

    assert [] == total.violations
    assert 6000 == len(total.outcomes)
    assert {*EARLY, *LATE} <= set(total.counts)
