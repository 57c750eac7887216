"""Small frozen values that configure a session.

What the vendor's documentation leaves open is a field of `Dialect`, with the source of its default beside it.
"""

from __future__ import annotations

import ipaddress
import os
from typing import ClassVar, Final
from urllib.parse import SplitResult, urlsplit

import attrs

from picpik_async._sealed import sealed_class
from picpik_async._settings import (
    above,
    at_least,
    count,
    formats,
    of_kind,
    optional_at_least,
    result_hosts,
    set_of,
    status_words,
    to_codes,
    to_hosts,
    to_words,
)
from picpik_async.errors import ConfigurationError

__all__ = ["Credentials", "Dialect", "Endpoint", "Limits", "PollPolicy", "RetryPolicy", "Secret"]

# Width and Height of https://picpik.ai/api-docs/api-reference/ModifyMaskedPixels, in pixels.
DOCUMENTED_MAX_SIDE: Final = 2560
DOCUMENTED_MIN_SIDE: Final = 64


class Secret:
    """A string that no repr, format, log or pickle shows; `reveal()` gives it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('…')"

    def __reduce__(self) -> str:
        msg = "a Secret is never pickled; make Credentials anew in the other process, e.g. with Credentials.from_env()"
        raise ConfigurationError(msg)


def _to_secret(value: str | Secret) -> Secret:
    return value if isinstance(value, Secret) else Secret(value)


def _key_problem(value: object) -> str | None:
    if not isinstance(value, str) or not value.strip():
        return "is empty; take both keys from the PICPIK User Center"
    if not value.isprintable():
        return "has a line break, or another character that is in no key; copy it again"
    return None


@sealed_class
@attrs.frozen
class Credentials:
    """The key pair of a PICPIK account.

    See https://picpik.ai/api-docs/start.

    Attributes:
        public_key: sent with every request.
        private_key: signs every request and never leaves the process; kept as a `Secret`.

    Raises:
        ConfigurationError: a key is empty, or has a line break.
    """

    PUBLIC_KEY_VARIABLE: ClassVar[str] = "PICPIK_PUBLIC_KEY"
    PRIVATE_KEY_VARIABLE: ClassVar[str] = "PICPIK_PRIVATE_KEY"

    public_key: str
    private_key: Secret = attrs.field(converter=_to_secret, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        for name, problem in (
            ("public_key", _key_problem(self.public_key)),
            ("private_key", _key_problem(self.private_key.reveal())),
        ):
            if problem is not None:
                msg = f"{name} {problem}"
                raise ConfigurationError(msg)

    @classmethod
    def from_env(cls) -> Credentials:
        """Read `PICPIK_PUBLIC_KEY` and `PICPIK_PRIVATE_KEY`.

        Raises:
            ConfigurationError: one of them is not set; the message names it.
        """
        missing = [name for name in (cls.PUBLIC_KEY_VARIABLE, cls.PRIVATE_KEY_VARIABLE) if not os.environ.get(name)]
        if missing:
            msg = (
                f"no keys: set {' and '.join(missing)} in the environment, or pass Credentials(public_key, private_key);"
                " to try without keys, use picpik_async.emulator.Emulator"
            )
            raise ConfigurationError(msg)
        return cls(os.environ[cls.PUBLIC_KEY_VARIABLE], Secret(os.environ[cls.PRIVATE_KEY_VARIABLE]))


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _without_slash(url: str) -> str:
    try:
        return str.rstrip(str.strip(url), "/")
    except TypeError:
        msg = f"endpoint is a {type(url).__name__}, but must be an address such as 'https://api.picpik.ai'"
        raise ConfigurationError(msg) from None


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        is_address = bool(parts.hostname) and parts.port != 0 and not any(char.isspace() for char in url)
    except ValueError:
        return None
    return parts if is_address else None


@sealed_class
@attrs.frozen
class Endpoint:
    """The address of the service; https, or plain http to this machine.

    Attributes:
        url: scheme, host and port; the path is `Dialect.path`.
        allow_insecure_http: accept plain http to another machine; request bodies are as good as money, so think twice.

    Raises:
        ConfigurationError: the address cannot be used.
    """

    # Hosts: step 4 of https://picpik.ai/zh/api-docs/start
    INTERNATIONAL: ClassVar[Endpoint]
    CHINA: ClassVar[Endpoint]
    VARIABLE: ClassVar[str] = "PICPIK_ENDPOINT"

    url: str = attrs.field(converter=_without_slash)
    allow_insecure_http: bool = attrs.field(default=False, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if set(self.url) & set("@?#"):  # looked at first, so that no message quotes a password
            msg = "endpoint must be scheme, host and port only, without user, query or fragment"
            raise ConfigurationError(msg)
        parts = _split(self.url)
        if parts is None or parts.scheme not in {"http", "https"}:
            msg = f"endpoint {self.url!r} is not an address; write it like https://api.picpik.ai"
            raise ConfigurationError(msg)
        if parts.scheme == "http" and not (self.is_loopback or self.allow_insecure_http):
            msg = (
                f"endpoint {self.url!r} is plain http to another machine, where anyone on the way could replay signed"
                " requests; use https, or Endpoint(url, allow_insecure_http=True) if you are sure"
            )
            raise ConfigurationError(msg)

    @property
    def is_loopback(self) -> bool:
        """Whether the service runs on this machine."""
        return is_loopback(urlsplit(self.url).hostname or "")

    @classmethod
    def from_env(cls) -> Endpoint:
        """`PICPIK_ENDPOINT`, or the international service."""
        return cls(os.environ.get(cls.VARIABLE) or cls.INTERNATIONAL.url)


Endpoint.INTERNATIONAL = Endpoint("https://api.picpik.ai")
Endpoint.CHINA = Endpoint("https://api.picpikai.com")


@attrs.frozen(kw_only=True)
class Dialect:
    """What the documentation of the service leaves open, as settings.

    Attributes:
        path: URL path of the one address for all Actions.
        data_uri: send `data:image/png;base64,…`; False sends the bare Base64.
        default_model: `ModelCode` sent when a request names no main model.
        max_auto_pixels: the most pixels `inpaint` and `outpaint` ask for on their own; cost grows with pixels.
        image_formats: formats accepted for pictures, out of `png`, `jpeg`, `webp`.
        mask_formats: formats accepted for masks.
        server_applies_exif: the service turns a picture by its EXIF orientation; False re-encodes it upright here.
        max_task_uids: task ids per `ListTasksDetails`.
        queuing_words: `Status` words of a task that waits.
        running_words: `Status` words of a task at work.
        finished_words: `Status` words that end a task well.
        error_words: `Status` words that end a task badly.
        throttle_ret_codes: `RetCode` values that only mean "slow down".
        no_credit_ret_codes: `RetCode` values that mean "not enough credits"; nothing was charged.
        rejected_ret_codes: other `RetCode` values after which a job was certainly not charged.
        result_hosts: the only hosts that results are fetched from, such as `cdn.example.com`; empty allows any public
            host. Behind a proxy, which hides where names lead, they must be given.
    """

    # Only the host is documented; a POST to the root is inferred (https://picpik.ai/zh/api-docs/start, step 4).
    path: str = attrs.field(default="/", validator=of_kind(str, "a string"))
    # Every published example is a data URI (https://picpik.ai/api-docs/api-reference/RemoveContents).
    data_uri: bool = attrs.field(default=True, validator=of_kind(bool, "True or False"))
    # The request example of https://picpik.ai/api-docs/api-reference/ModifyMaskedPixels.
    default_model: str = attrs.field(default="PICPIK General", validator=of_kind(str, "a string"))
    # Our choice: the pixels of the documented default size, 1024 × 1024.
    max_auto_pixels: int = attrs.field(default=1024 * 1024, validator=count(1))
    # Not documented; examples show PNG and JPEG, and WebP is what web backends receive.
    image_formats: frozenset[str] = attrs.field(
        default=frozenset({"png", "jpeg", "webp"}), converter=to_words, validator=formats
    )
    # Our choice: JPEG cannot hold a hard black and white edge.
    mask_formats: frozenset[str] = attrs.field(
        default=frozenset({"png", "webp"}), converter=to_words, validator=formats
    )
    # Not documented; upright pixels are right in both cases.
    server_applies_exif: bool = attrs.field(default=False, validator=of_kind(bool, "True or False"))
    # No maximum is documented (https://picpik.ai/api-docs/api-reference/ListTasksDetails); our choice.
    max_task_uids: int = attrs.field(default=100, validator=count(1))
    # Only the legacy page lists words: …/api-docs/deprecated/old-api-reference/ListGenerateTaskDetail.
    queuing_words: frozenset[str] = attrs.field(
        default=frozenset({"Queuing"}), converter=to_words, validator=status_words
    )
    running_words: frozenset[str] = attrs.field(
        default=frozenset({"Running"}), converter=to_words, validator=status_words
    )
    finished_words: frozenset[str] = attrs.field(
        default=frozenset({"Finished"}), converter=to_words, validator=status_words
    )
    error_words: frozenset[str] = attrs.field(default=frozenset({"Error"}), converter=to_words, validator=status_words)
    # No RetCode but 0 is documented.
    throttle_ret_codes: frozenset[int] = attrs.field(
        default=frozenset(), converter=to_codes, validator=set_of(int, "a set of whole numbers")
    )
    no_credit_ret_codes: frozenset[int] = attrs.field(
        default=frozenset(), converter=to_codes, validator=set_of(int, "a set of whole numbers")
    )
    rejected_ret_codes: frozenset[int] = attrs.field(
        default=frozenset(), converter=to_codes, validator=set_of(int, "a set of whole numbers")
    )
    # No host of results is documented.
    result_hosts: frozenset[str] = attrs.field(default=frozenset(), converter=to_hosts, validator=result_hosts)


@attrs.frozen(kw_only=True)
class PollPolicy:
    """How the one poller of a session waits; all times in seconds.

    A task of age *a* is asked about every `a * age_share` seconds, but at least every `max_interval` and at most once a
    `tick`. Due tasks share requests, and those due next fill them up. At ages at which tasks of the same Action, model and
    size did not end lately it is asked about every `max_interval` only, from the first poll on, unless somebody follows it
    with `Task.updates`.

    Attributes:
        timeout: default limit of a whole wait; None waits for ever.
        request_timeout: the longest a status request may take before its tasks are asked about again.
        tick: requests leave on this grid, so that tasks share them.
        age_share: share of a task's age to wait between polls.
        max_interval: the longest time between two polls of a task.
        jitter: each wait is lengthened by a random share of itself, up to this one.
        max_backoff: the longest pause after failed polls.
        unknown_task_grace: how long a task may be missing from answers before `TaskVanishedError`.
        max_requests_per_second: cap on status requests of the session.
    """

    timeout: float | None = attrs.field(default=30 * 60.0, validator=optional_at_least(0))
    request_timeout: float = attrs.field(default=10.0, validator=above(0))
    tick: float = attrs.field(default=0.5, validator=above(0))
    age_share: float = attrs.field(default=0.05, validator=at_least(0))
    max_interval: float = attrs.field(default=5.0, validator=above(0))
    jitter: float = attrs.field(default=0.1, validator=at_least(0))
    max_backoff: float = attrs.field(default=20.0, validator=above(0))
    unknown_task_grace: float = attrs.field(default=30.0, validator=at_least(0))
    max_requests_per_second: float = attrs.field(default=20.0, validator=above(0))


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How reads and downloads are retried, and submits that the service certainly did not take.

    The pause before retry *n* is random between 0 and `min(max_delay, base_delay * 2**n)`, or what the server asks for.

    Attributes:
        attempts: how often a read or a download is tried in all.
        base_delay: seconds.
        throttle_delay: seconds, in the place of *base_delay* if the server is too busy: HTTP 425, 429 and 503, and
            `Dialect.throttle_ret_codes`.
        max_delay: seconds.
        max_retry_after: the longest pause, in seconds, the server may ask for.
        submit_attempts: how often a submit is tried in all, as long as the service has certainly not taken it.
        submit_pause: seconds after which one submit is tried again, when too many had an unknown outcome.
    """

    attempts: int = attrs.field(default=5, validator=count(1))
    base_delay: float = attrs.field(default=0.2, validator=at_least(0))
    throttle_delay: float = attrs.field(default=1.0, validator=at_least(0))
    max_delay: float = attrs.field(default=20.0, validator=at_least(0))
    max_retry_after: float = attrs.field(default=60.0, validator=at_least(0))
    submit_attempts: int = attrs.field(default=3, validator=count(1))
    submit_pause: float = attrs.field(default=30.0, validator=at_least(0))


def _default_threads() -> int:
    return min(4, os.cpu_count() or 1)


@attrs.frozen(kw_only=True)
class Limits:
    """Bounds on time, memory and concurrency; times in seconds, sizes in bytes.

    An HTTP exchange fails at the first limit it reaches: on the way to a connection, while it is sent, until the head of
    the answer has arrived, and until its body has. How long an upload may take in all depends on its size.

    Attributes:
        connect_timeout: looking up the name, connecting, and the TLS handshake, through the proxy if there is one.
        stall_timeout: the longest time without progress: until the next slice has left, or more of the answer has come.
        min_upload_rate: bytes per second; a server that takes less in the long run is given up.
        request_timeout: the answer: how long its head may take once the request has left, and then its body.
        uploads: submits that are sent at the same time; others wait, their pictures opened.
        downloads: pictures fetched at the same time; others wait.
        threads: worker threads that open, decode and write; one more decodes large results, one after the other, and one
            less encode, hash and send, besides one for small requests.
        slice_size: bytes of a picture encoded and sent in one go, or twice as many where threads send them, which is over
            plain HTTP; the memory of an upload, or of each of those threads, is a few times this.
        reuse_memory: the most memory for pictures that are encoded once for all `variations` of a request; larger ones are
            hashed once, and encoded each time.
        max_answer_bytes: the longest answer of the API, after decompression.
        max_image_bytes: the largest picture, sent or fetched.
        max_image_pixels: the most pixels of a picture that is sent.
        max_result_pixels: the most pixels of a picture that is fetched. Each is decoded once to see that it is whole, which
            takes up to 16 bytes per pixel (WebP; JPEG 10, rare kinds of PNG 4, others none): of those that have more than their share, one for
            each of `threads`, one is decoded at a time; so all together have at most twice the limit.
    """

    connect_timeout: float = attrs.field(default=15.0, validator=above(0))
    stall_timeout: float = attrs.field(default=30.0, validator=above(0))
    min_upload_rate: float = attrs.field(default=16_000.0, validator=above(0))
    request_timeout: float = attrs.field(default=60.0, validator=above(0))
    uploads: int = attrs.field(default=32, validator=count(1))
    downloads: int = attrs.field(default=8, validator=count(1))
    threads: int = attrs.field(factory=_default_threads, validator=count(1))
    slice_size: int = attrs.field(default=384 * 1024, validator=count(3))
    reuse_memory: int = attrs.field(default=64 * 1024**2, validator=count(0))
    max_answer_bytes: int = attrs.field(default=8 * 1024**2, validator=count(1))
    max_image_bytes: int = attrs.field(default=64 * 1024**2, validator=count(1))
    max_image_pixels: int = attrs.field(default=64_000_000, validator=count(1))
    # Our choice: more than twice the documented maximum, 2560 × 2560.
    max_result_pixels: int = attrs.field(default=16_000_000, validator=count(1))
