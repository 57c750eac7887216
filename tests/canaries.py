"""Secrets that are easily told, and every place where one could come out: errors, tracebacks, logs, reprs, pickles, files."""

from __future__ import annotations

import base64
import copy
import io
import itertools
import logging
import pickle
import re
import struct
import traceback
import urllib.parse
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator

PRIVATE_KEY: Final = "Zp5private%Key&9f3c"
PROXY_PASSWORD: Final = "Zp6proxyPass-71d2"
URL_QUERY: Final = "Zp7urlSignature-c04e"
IMAGE_TOKEN: Final = b"Zq7xKw"  # its Base64 repeats every 8 characters, so that any short cut of the text shows it
TESTS: Final = str(Path(__file__).parent)


def marked_picture(side: int = 64, *, size: int = 12_000, mode: str = "RGB") -> bytes:
    """A PNG that consists, but for a little, of the image's canary."""
    image = Image.new(mode, (side, side))
    image.paste(255 if mode == "L" else (255, 0, 0), (0, 0, side // 2, side))
    file = io.BytesIO()
    image.save(file, "PNG")
    data, text = file.getvalue(), b"Comment\0" + IMAGE_TOKEN * (size // len(IMAGE_TOKEN))
    chunk = struct.pack(">I", len(text)) + b"tEXt" + text + struct.pack(">I", zlib.crc32(b"tEXt" + text))
    return data[:33] + chunk + data[33:]  # behind the signature and IHDR


def with_checksums(png: bytes) -> bytes:
    """A PNG with the checksums that its chunks should have."""
    data, start = png[:8], 8
    while start < len(png):
        end = start + 12 + int.from_bytes(png[start : start + 4])
        data += png[start : end - 4] + struct.pack(">I", zlib.crc32(png[start + 4 : end - 4]))
        start = end
    return data


def _rotations(token: bytes) -> set[bytes]:
    return {token[i:] + token[:i] for i in range(len(token))}


def spellings(secret: bytes) -> set[bytes]:
    """The ways in which a secret may be written: as it is, hex, URL-encoded, JSON, Base64 at any alignment."""
    found = {secret, secret.hex().encode(), secret.hex().upper().encode(), repr(secret)[2:-1].encode()}
    found |= {urllib.parse.quote(secret).encode(), urllib.parse.quote_plus(secret).encode()}
    for shift in range(3):
        text = base64.b64encode(bytes(shift) + secret)
        whole = text[4 if shift else 0 : len(text) // 4 * 4 - 4]
        found |= {whole, whole.replace(b"+", b"-").replace(b"/", b"_")}
    return found


def needles(signatures: set[str]) -> dict[bytes, str]:
    """What to look for, and what it would give away."""
    found: dict[bytes, str] = {}
    secrets = {"private key": PRIVATE_KEY, "proxy password": PROXY_PASSWORD, "URL query": URL_QUERY}
    for name, secret in itertools.chain(secrets.items(), (("signature", text) for text in signatures)):
        found |= dict.fromkeys(spellings(secret.encode()), name)
    for token in _rotations(IMAGE_TOKEN):
        found[token] = "image, raw"
        found |= dict.fromkeys(_rotations(token.hex().encode()), "image, hex")
        found |= dict.fromkeys(_rotations(base64.b64encode(token)), "image, Base64")
    return found


@attrs.define(eq=False)
class Sinks(logging.Handler):
    """Collects whatever a user, a log or a crash report would see.

    Attributes:
        texts: label and text of each.
    """

    texts: list[tuple[str, bytes]] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        logging.Handler.__init__(self, logging.DEBUG)

    def add(self, label: str, text: object) -> None:
        """Take a text, or bytes."""
        data = text if isinstance(text, bytes) else str(text).encode(errors="surrogatepass")
        self.texts.append((label, data))

    def emit(self, record: logging.LogRecord) -> None:
        """Take a log record with all that hangs on it."""
        label = f"log {record.name}"
        self.add(label, f"{record.getMessage()} {record.args!r} {record.__dict__!r}")
        if record.exc_info is not None and record.exc_info[1] is not None:
            self.add_error(label, record.exc_info[1])

    def add_error(self, label: str, error: BaseException) -> None:
        """Take an error, and those behind it, each with the locals of all frames that are not a test's own."""
        for each in chain(error):
            name = f"{label}: {type(each).__module__}.{type(each).__name__}"
            self.add(name, f"{each} {each!r} {each:} {each.args!r} {_public(each)!r}")
            for frame, line in traceback.walk_tb(each.__traceback__):
                file = frame.f_code.co_filename
                if not file.startswith(TESTS):
                    values = {key: _repr(value) for key, value in frame.f_locals.items()}
                    self.add(f"{name} in {file}:{line} {frame.f_code.co_name}", values)
            self._add_pickle(name, each)

    def add_value(self, label: str, value: Any) -> None:
        """Take a public object: its texts, its parts, and its copies."""
        self.add(f"{label}, text", f"{value!r} {value} {value:}")
        if attrs.has(type(value)):
            self.add(f"{label}, asdict", attrs.asdict(value))
            self.add(f"{label}, astuple", attrs.astuple(value))
        try:
            self.add(f"{label}, copy", repr(copy.copy(value)))
            self.add(f"{label}, deep copy", repr(copy.deepcopy(value)))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is looked at
            self.add_error(f"{label}, copy", error)
        self._add_pickle(label, value)

    def _add_pickle(self, label: str, value: object) -> None:
        try:
            self.add(f"{label}, pickle", pickle.dumps(value))
        except Exception as error:  # noqa: BLE001 - what cannot be pickled leaks nothing, but for its message
            self.add(f"{label}, pickle", f"{error!r}")

    def hits(self, signatures: set[str]) -> list[str]:
        """Where a secret is to be seen."""
        wanted = needles(signatures)
        pattern = re.compile(b"|".join(map(re.escape, wanted)))
        return sorted({f"{wanted[hit[0]]} in {label}" for label, text in self.texts for hit in pattern.finditer(text)})


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and all behind it, also those a traceback would not print."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        each = left.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        left += [each.__cause__, each.__context__, *getattr(each, "exceptions", ())]


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 - half-made objects have none
        return repr(error)


def _public(error: BaseException) -> dict[str, Any]:
    return vars(error) | {name: getattr(error, name, None) for name in ("doc", "object", "__notes__")}
