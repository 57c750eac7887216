"""A client of the emulator in as few lines as possible, with its own signature: it shares no code with the package."""

from __future__ import annotations

import base64
import hashlib
import io
from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    import aiohttp

    from picpik_async.emulator import Emulator

KEY = "emulator-private-key"


def text_of(value: Any) -> str:
    """A value as it is signed."""
    if isinstance(value, dict):
        return "".join(name + text_of(value[name]) for name in sorted(value))
    if isinstance(value, list):
        return "".join(map(text_of, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def signed(body: dict[str, Any], key: str = KEY) -> dict[str, Any]:
    """The body with its signature."""
    digest = hashlib.sha1((text_of(body) + key).encode(), usedforsecurity=False)
    return {**body, "Signature": digest.hexdigest()}


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def encoded(file: bytes) -> str:
    """The file as a data URI."""
    return "data:image/png;base64," + base64.b64encode(file).decode()


PICTURE = Image.effect_noise((96, 64), 60).convert("RGB")
MASK = Image.new("L", (96, 64))
MASK.paste(255, (40, 20, 60, 40))


def masked_pixels(**changes: Any) -> dict[str, Any]:
    """A valid, unsigned ModifyMaskedPixels; None takes a field out."""
    body = {
        "Action": "ModifyMaskedPixels",
        "PublicKey": "emulator",
        "MainModel": {"ModelCode": "PICPIK General"},
        "Masked": {"ImageIndex": 0, "MaskIndex": 1},
        "ImageAndMaskList": [encoded(file_of(PICTURE)), encoded(file_of(MASK))],
        "Width": 96,
        "Height": 64,
        **changes,
    }
    return {name: value for name, value in body.items() if value is not None}


class Client:
    """Requests to one emulator."""

    def __init__(self, emulator: Emulator, http: aiohttp.ClientSession) -> None:
        self.url = emulator.url
        self.http = http

    async def post(self, body: Any) -> dict[str, Any]:
        """Send a body as it is."""
        async with self.http.post(self.url + "/", json=body) as response:
            assert 200 == response.status
            answer: dict[str, Any] = await response.json()
            return answer

    async def call(self, action: str, **fields: Any) -> dict[str, Any]:
        """Send a signed request."""
        return await self.post(signed({"Action": action, "PublicKey": "emulator", **fields}))

    async def submit(self, **changes: Any) -> str:
        """Send a valid ModifyMaskedPixels; returns the TaskUID."""
        answer = await self.post(signed(masked_pixels(**changes)))
        assert (0, "") == (answer["RetCode"], answer["Message"])
        uid: str = answer["TaskUID"]
        return uid

    async def details(self, *uids: str) -> list[dict[str, Any]]:
        """The rows of ListTasksDetails."""
        rows: list[dict[str, Any]] = (await self.call("ListTasksDetails", TaskUIDList=list(uids)))["TaskDetailList"]
        return rows

    async def ended(self, uid: str) -> dict[str, Any]:
        """Ask until the task neither waits nor runs."""
        while True:
            [row] = await self.details(uid)
            if row["Status"] not in {"Queuing", "Running"}:
                return row

    async def results(self, uid: str) -> list[bytes]:
        """The pictures of a task, waited for."""
        files = []
        for url in (await self.ended(uid))["ImgList"]:
            async with self.http.get(url) as response:
                assert (200, "image/png") == (response.status, response.content_type)
                files.append(await response.read())
        return files
