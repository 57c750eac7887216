"""Uploading as one would without the SDK: Base64, sign, `json=`."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING

import aiohttp

from benchmarks._signature import PUBLIC_KEY, signature

if TYPE_CHECKING:
    from pathlib import Path


async def upload_all(endpoint: str, pictures: list[Path], mask: Path, rounds: int) -> None:
    """Submit every picture, all at once, *rounds* times."""
    async with aiohttp.ClientSession() as client:
        for _ in range(rounds):
            await asyncio.gather(*[_submit(client, endpoint, picture, mask) for picture in pictures])


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
