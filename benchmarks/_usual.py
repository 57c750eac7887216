"""Uploading as one would without the SDK: Base64, sign, `json=`."""

from __future__ import annotations

import base64
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

from benchmarks._pictures import find_mask
from benchmarks._signature import PUBLIC_KEY, signature
from benchmarks._workers import uploads_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks._work import Work
    from benchmarks._workers import UploadAll


@contextlib.asynccontextmanager
async def uploading(work: Work) -> AsyncIterator[UploadAll]:
    """A client, open."""
    mask = find_mask(Path(work.folder))
    async with aiohttp.ClientSession() as client:

        async def submit(picture: Path) -> None:
            await _submit(client, work.endpoint, picture, mask)

        yield uploads_of(submit, work.at_once)


async def _submit(client: aiohttp.ClientSession, endpoint: str, picture: Path, mask: Path) -> str:
    parameters = {
        "Action": "ModifyMaskedPixels",
        "PublicKey": PUBLIC_KEY,
        "MainModel": {"Type": "MainModel", "Code": "PICPIK General"},
        "Masked": {"ImageIndex": 0, "MaskIndex": 1},
        "ImageAndMaskList": [_data_uri(picture), _data_uri(mask)],
        "PositivePrompts": ["a sofa"],
        "Width": 1024,
        "Height": 1024,
    }
    parameters["Signature"] = signature(parameters)
    async with client.post(endpoint, json=parameters) as response:
        answer = await response.json()
        return str(answer["TaskUID"])


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
