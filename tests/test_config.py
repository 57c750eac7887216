"""Settings: keys that never show, endpoints that are safe, values that make sense."""

from __future__ import annotations

import copy
import json
import logging
import os
import pickle
import traceback
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from picpik_async._config import Credentials, Dialect, Endpoint, Limits, PollPolicy, RetryPolicy, Secret, is_loopback
from picpik_async.errors import ConfigurationError

CANARY = "canary-private-key"
KEYS = Credentials("public", CANARY)


def test_a_secret_reveals_itself_only_on_demand() -> None:
    """`reveal()` is the one way to the value."""
    assert CANARY == Secret(CANARY).reveal()


@pytest.mark.parametrize(
    "holder", [Secret(CANARY), KEYS, [KEYS], {"keys": KEYS}, attrs.asdict(KEYS), attrs.astuple(KEYS)]
)
def test_no_text_of_a_secret_shows_it(holder: Any) -> None:
    """Neither repr, str, format nor the usual ways to dump a value give the private key away."""
    for text in (repr(holder), str(holder), f"{holder}", f"{holder!r}", f"{holder!s}", "%s %r" % (holder, holder)):  # noqa: UP031
        assert CANARY not in text


def test_a_secret_is_not_serialised() -> None:
    """Pickle, copy and JSON refuse, and pickle says what to do instead."""
    for serialise in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(ConfigurationError, match=r"Credentials.from_env\(\)") as caught:
            serialise(KEYS.private_key)
        assert CANARY not in str(caught.value)
    with pytest.raises(TypeError) as refused:
        json.dumps(attrs.asdict(KEYS))
    assert CANARY not in str(refused.value)


def test_credentials_are_not_pickled() -> None:
    """Credentials are pickled no more than their secret."""
    with pytest.raises(ConfigurationError, match="never pickled"):
        pickle.dumps(KEYS)


def test_a_secret_has_no_other_attributes() -> None:
    """There is no `__dict__` for a debugger to dump."""
    assert not hasattr(Secret(CANARY), "__dict__")


def test_a_traceback_with_locals_shows_no_key() -> None:
    """Tools that print local variables print the secret's repr."""

    def sign_badly(secret: Secret) -> None:
        msg = f"cannot sign with {secret}"
        raise RuntimeError(msg)

    with pytest.raises(RuntimeError) as caught:
        sign_badly(Secret(CANARY))

    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "secret = Secret('…')" in shown
    assert CANARY not in shown


def test_a_log_line_shows_no_key(caplog: pytest.LogCaptureFixture) -> None:
    """Logging credentials by accident is harmless."""
    logging.getLogger("somewhere").warning("using %s and %r", KEYS, KEYS.private_key)

    assert CANARY not in caplog.text


def test_credentials_compare_by_public_key() -> None:
    """Equality and hash do not touch the secret, so that nothing can be learnt by comparing."""
    other = Credentials("public", Secret("another"))

    assert other == KEYS
    assert hash(other) == hash(KEYS)


@pytest.mark.parametrize("value", ["", "  ", None, 5])
@pytest.mark.parametrize("name", ["public_key", "private_key"])
def test_empty_keys_are_refused(name: str, value: Any) -> None:
    """A missing key is found before anything is sent, and the message names it."""
    keys: dict[str, Any] = {"public_key": "a", "private_key": "b"} | {name: value}

    with pytest.raises(ConfigurationError, match=f"{name} is empty; take both keys from the PICPIK User Center"):
        Credentials(**keys)


@pytest.mark.parametrize("value", [f"{CANARY}\n", f"{CANARY}\udc80"])
@pytest.mark.parametrize("name", ["public_key", "private_key"])
def test_keys_with_a_line_break_are_refused(name: str, value: str) -> None:
    """A key read from a file with its line end, or in a broken encoding, is named but not shown."""
    keys: dict[str, Any] = {"public_key": "a", "private_key": "b"} | {name: value}

    with pytest.raises(ConfigurationError, match=f"{name} has a line break") as caught:
        Credentials(**keys)

    assert CANARY not in str(caught.value)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment without any of our variables."""
    for name in [name for name in os.environ if name.startswith("PICPIK_")]:
        monkeypatch.delenv(name)
    return monkeypatch


def test_credentials_come_from_the_environment(environment: pytest.MonkeyPatch) -> None:
    """Both keys are read from their documented variables."""
    environment.setenv("PICPIK_PUBLIC_KEY", "public")
    environment.setenv("PICPIK_PRIVATE_KEY", CANARY)

    keys = Credentials.from_env()

    assert ("public", CANARY) == (keys.public_key, keys.private_key.reveal())


@pytest.mark.parametrize(
    ("present", "missing"),
    [
        ({}, "PICPIK_PUBLIC_KEY and PICPIK_PRIVATE_KEY"),
        ({"PICPIK_PUBLIC_KEY": "a"}, "PICPIK_PRIVATE_KEY"),
        ({"PICPIK_PRIVATE_KEY": CANARY, "PICPIK_PUBLIC_KEY": ""}, "PICPIK_PUBLIC_KEY"),
    ],
)
def test_missing_variables_are_named(environment: pytest.MonkeyPatch, present: dict[str, str], missing: str) -> None:
    """The message names what is missing, and a way to try without keys."""
    for name, value in present.items():
        environment.setenv(name, value)

    with pytest.raises(ConfigurationError, match=f"set {missing} in the environment.*Emulator") as caught:
        Credentials.from_env()

    assert CANARY not in str(caught.value)


def test_the_endpoints_are_the_documented_ones() -> None:
    """Hosts of the vendor's start page."""
    assert ("https://api.picpik.ai", "https://api.picpikai.com") == (Endpoint.INTERNATIONAL.url, Endpoint.CHINA.url)


def test_the_endpoint_comes_from_the_environment(environment: pytest.MonkeyPatch) -> None:
    """`PICPIK_ENDPOINT` wins over the international service; an empty one does not."""
    assert Endpoint.INTERNATIONAL == Endpoint.from_env()

    environment.setenv("PICPIK_ENDPOINT", "")
    assert Endpoint.INTERNATIONAL == Endpoint.from_env()

    environment.setenv("PICPIK_ENDPOINT", "http://127.0.0.1:8000\n")
    assert "http://127.0.0.1:8000" == Endpoint.from_env().url


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("https://api.picpik.ai", False),
        ("HTTPS://API.PICPIK.AI/", False),
        (" https://api.picpik.ai/ ", False),
        ("https://localhost:8443", True),
        ("http://localhost:8000", True),
        ("http://127.0.0.1:8000/", True),
        ("http://127.8.9.1", True),
        ("http://[::1]:8000", True),
    ],
)
def test_safe_endpoints_are_accepted(url: str, *, local: bool) -> None:
    """Over https to anywhere, plain http to this machine; the address has no slash at its end."""
    endpoint = Endpoint(url)

    assert local == endpoint.is_loopback
    assert url.strip().rstrip("/") == endpoint.url


@pytest.mark.parametrize(
    "url",
    [
        "http://api.picpik.ai",
        "http://10.0.0.1",
        "http://0.0.0.0:8000",
        "http://localhost.evil.com",
        "http://127.0.0.1.nip.io",
    ],
)
def test_plain_http_to_another_machine_needs_a_word(url: str) -> None:
    """Signed bodies can be replayed for money, so plain http is opt-in beyond loopback."""
    with pytest.raises(ConfigurationError, match="use https, or Endpoint"):
        Endpoint(url)

    assert url == Endpoint(url, allow_insecure_http=True).url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.picpik.ai",
        "ftp://api.picpik.ai",
        "https://",
        "https:///path",
        "https://[::1",
        "https://host:0",
        "https://host:99999",
        "https://host:port",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    """The message shows how an address is written."""
    with pytest.raises(ConfigurationError, match=r"is not an address; write it like https://api\.picpik\.ai"):
        Endpoint(url)


@pytest.mark.parametrize(
    "url",
    [
        f"https://user:{CANARY}@api.picpik.ai",
        f"ftp://user:{CANARY}@api.picpik.ai",
        f"user:{CANARY}@api.picpik.ai",
        f"https://api.picpik.ai?key={CANARY}",
        f"https://api.picpik.ai#{CANARY}",
        "https://api.picpik.ai?",
    ],
)
def test_endpoints_with_more_than_an_address_are_refused(url: str) -> None:
    """A user, a query or a fragment is refused without quoting it."""
    with pytest.raises(ConfigurationError, match="without user, query or fragment") as caught:
        Endpoint(url)

    assert CANARY not in str(caught.value)


@given(st.text(max_size=30) | st.text("htps:/[]@?#.1a%", max_size=20).map("https://".__add__))
def test_any_text_is_an_endpoint_or_a_configuration_error(url: str) -> None:
    """No other error escapes, whatever stands in the variable."""
    try:
        endpoint = Endpoint(url)
    except ConfigurationError:
        return

    assert endpoint.url.lower().startswith(("https://", "http://"))


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost", True), ("127.0.0.1", True), ("::1", True), ("picpik.ai", False), ("", False), ("8.8.8.8", False)],
)
def test_loopback_hosts(host: str, *, expected: bool) -> None:
    """Only names and addresses of this machine count, and nothing is looked up."""
    assert expected == is_loopback(host)


AT_LEAST: list[tuple[Any, str, float]] = [
    (Dialect, "max_task_uids", 1),
    (PollPolicy, "age_share", 0),
    (PollPolicy, "jitter", 0),
    (PollPolicy, "unknown_task_grace", 0),
    (RetryPolicy, "attempts", 1),
    (RetryPolicy, "base_delay", 0),
    (RetryPolicy, "throttle_delay", 0),
    (RetryPolicy, "max_delay", 0),
    (RetryPolicy, "max_retry_after", 0),
    (Limits, "uploads", 1),
    (Limits, "downloads", 1),
    (Limits, "threads", 1),
    (Limits, "slice_size", 3),
    (Limits, "max_answer_bytes", 1),
    (Limits, "max_image_bytes", 1),
    (Limits, "max_image_pixels", 1),
    (Limits, "max_result_pixels", 1),
]
ABOVE_ZERO: list[tuple[Any, str]] = [
    (PollPolicy, "request_timeout"),
    (PollPolicy, "tick"),
    (PollPolicy, "max_interval"),
    (PollPolicy, "max_backoff"),
    (PollPolicy, "max_requests_per_second"),
    (Limits, "connect_timeout"),
    (Limits, "stall_timeout"),
    (Limits, "min_upload_rate"),
    (Limits, "request_timeout"),
]


@pytest.mark.parametrize(("settings", "name", "low"), AT_LEAST)
def test_settings_have_a_least_value(settings: Any, name: str, low: float) -> None:
    """A setting that could not work is refused by name, with what it must be."""
    assert low == getattr(settings(**{name: low}), name)
    for value in (low - 1, float("nan"), None, "1", True):
        with pytest.raises(ConfigurationError, match=f"{settings.__name__}.{name} is .*, but must be .*at least {low}"):
            settings(**{name: value})


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("finished_words", None, "a set of status words"),
        ("finished_words", "Finished", "a set of status words"),
        ("error_words", {1}, "a set of status words"),
        ("queuing_words", [["x"]], "a set of status words"),
        ("image_formats", {"PNG"}, "a set of 'png', 'jpeg' and 'webp'"),
        ("mask_formats", "png", "a set of 'png', 'jpeg' and 'webp'"),
        ("throttle_ret_codes", {True}, "a set of whole numbers"),
        ("throttle_ret_codes", 5, "a set of whole numbers"),
        ("path", 5, "a string"),
        ("default_model", None, "a string"),
        ("data_uri", "yes", "True or False"),
        ("server_applies_exif", 1, "True or False"),
        ("max_auto_pixels", 0, "a whole number, at least 1"),
    ],
)
def test_dialect_has_its_kinds(field: str, value: Any, allowed: str) -> None:
    """A setting of the wrong kind is refused before a task is paid for."""
    with pytest.raises(ConfigurationError, match=f"Dialect.{field} is .*, but must be {allowed}"):
        Dialect(**{field: value})


def test_dialect_takes_any_collection() -> None:
    """Lists and sets become frozen sets."""
    dialect = Dialect(finished_words=["Done", "Finished"], throttle_ret_codes=[7], mask_formats=("png",))

    assert frozenset({"Done", "Finished"}) == dialect.finished_words
    assert frozenset({7}) == dialect.throttle_ret_codes
    assert frozenset({"png"}) == dialect.mask_formats


@pytest.mark.parametrize("url", [None, 5, b"https://api.picpik.ai"])
def test_endpoint_is_text(url: Any) -> None:
    """Something else than text is no address."""
    with pytest.raises(ConfigurationError, match=r"endpoint is a .*, but must be an address"):
        Endpoint(url)


def test_counts_are_whole() -> None:
    """What is counted cannot be half."""
    with pytest.raises(ConfigurationError, match=r"Limits.uploads is 1.5, but must be a whole number, at least 1"):
        Limits(uploads=1.5)  # type: ignore[arg-type]


def test_timeout_of_a_policy() -> None:
    """The whole wait has no limit, or one that can be kept."""
    assert PollPolicy(timeout=None).timeout is None
    assert 0 == PollPolicy(timeout=0).timeout
    for value in (-1, float("nan"), "5", 10**400):
        with pytest.raises(ConfigurationError, match=r"PollPolicy.timeout is .*, but must be at least 0"):
            PollPolicy(timeout=value)  # type: ignore[arg-type]


@pytest.mark.parametrize(("settings", "name"), ABOVE_ZERO)
def test_settings_above_zero(settings: Any, name: str) -> None:
    """Times and rates that divide or wait are more than zero."""
    assert 0.001 == getattr(settings(**{name: 0.001}), name)
    for value in (0, -1, float("nan"), None):
        with pytest.raises(ConfigurationError, match=f"{settings.__name__}.{name} is .*, but must be more than 0"):
            settings(**{name: value})


@pytest.mark.parametrize("settings", [Dialect(), PollPolicy(), RetryPolicy(), Limits(), KEYS, Endpoint.CHINA])
def test_settings_are_frozen(settings: Any) -> None:
    """A session can rely on what it was given."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(settings, attrs.fields(type(settings))[0].name, None)


def test_the_default_dialect_is_what_the_pages_show() -> None:
    """Each default has its source: examples and the legacy list of status words."""
    dialect = Dialect()

    assert ("/", True, "PICPIK General") == (dialect.path, dialect.data_uri, dialect.default_model)
    assert [{"Queuing"}, {"Running"}] == [set(dialect.queuing_words), set(dialect.running_words)]
    assert [{"Finished"}, {"Error"}] == [set(dialect.finished_words), set(dialect.error_words)]


def test_threads_are_few_by_default() -> None:
    """The package's own threads leave room for others."""
    assert Limits().threads in range(1, 5)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("cdn.example.com", "cdn.example.com"),
        ("CDN.Example.com.", "cdn.example.com"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("localhost", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("[2606:4700::1111]", "2606:4700::1111"),
        ("2606:4700::ABCD", "2606:4700::abcd"),
    ],
)
def test_result_hosts_are_kept_as_they_are_compared(written: str, meant: str) -> None:
    """However a host is written, results are fetched from there."""
    assert frozenset({meant}) == Dialect(result_hosts=[written]).result_hosts


@pytest.mark.parametrize(
    "host",
    [
        "*.cdn.com",
        "https://cdn.com",
        "cdn.com:443",
        "CDN.com ",
        " cdn.com",
        "cdn.com/a",
        "cdn..com",
        ".cdn.com",
        "",
        ".",
        "[cdn.com]",
        "[::1]:443",
        "1:2",
        "b\u00fccher.example",
        "u@cdn.com",
        "cdn.com\n",
    ],
)
def test_result_hosts_that_would_never_match(host: str) -> None:
    """What is no plain host is refused, as no result would be fetched."""
    with pytest.raises(ConfigurationError, match=r"Dialect\.result_hosts contains .*, but must be a set of plain host"):
        Dialect(result_hosts={"cdn.example", host})


def test_result_hosts_that_are_no_text() -> None:
    """A host is text."""
    with pytest.raises(ConfigurationError, match=r"Dialect\.result_hosts is .*, but must be a set of plain host names"):
        Dialect(result_hosts={5})  # type: ignore[arg-type]
