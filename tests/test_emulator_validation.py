"""Tests of what the emulator refuses: each refusal is an answer that names the field."""

from __future__ import annotations

import base64
from typing import Any

import aiohttp
import pytest
from emulator_client import MASK, PICTURE, Client, encoded, file_of, masked_pixels, signed
from PIL import Image

from picpik_async.emulator import Emulator
from picpik_async.emulator._admission import images_of
from picpik_async.emulator._effects import Drawing
from picpik_async.emulator._validation import record

pytestmark = pytest.mark.anyio

IMAGE, MASK_FILE = encoded(file_of(PICTURE)), encoded(file_of(MASK))
MODEL = {"ModelCode": "m"}

FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"MainModel": None}, "MainModel is missing"),
    ({"Masked": None}, "Masked is missing"),
    ({"ImageAndMaskList": None}, "ImageAndMaskList is missing"),
    ({"MainModel": "m"}, "MainModel must be an object"),
    ({"MainModel": {}}, "MainModel.ModelCode is missing"),
    ({"MainModel": {"ModelCode": 1}}, "MainModel.ModelCode must be a string"),
    ({"MainModel": {**MODEL, "InferenceParams": {"Steps": 1.5}}}, "MainModel.InferenceParams.Steps must be an integer"),
    ({"MainModel": {**MODEL, "InferenceParams": {"CFGScale": True}}}, "MainModel.InferenceParams.CFGScale must be a n"),
    ({"SubModelList": MODEL}, "SubModelList must be a list"),
    (
        {"SubModelList": [MODEL, {**MODEL, "InferenceParams": {"LoraWeight": 2.5}}]},
        "SubModelList[1].InferenceParams.LoraWeight must be from -1 to 2",
    ),
    (
        {"SubModelList": [{**MODEL, "InferenceParams": {"LoraWeight": 0.125}}]},
        "SubModelList[0].InferenceParams.LoraWeight must be a multiple of 0.01",
    ),
    ({"PositivePrompts": "a cat"}, "PositivePrompts must be a list"),
    ({"NegativePrompts": [1]}, "NegativePrompts[0] must be a string"),
    ({"TranslatePrompts": 1}, "TranslatePrompts must be true or false"),
    ({"UseMainModelVAE": "true"}, "UseMainModelVAE must be true or false"),
    ({"Seed": -2}, "Seed must be from -1 to 2147483647"),
    ({"Seed": 2**31}, "Seed must be from"),
    ({"Width": 63}, "Width must be from 64 to 2560"),
    ({"Height": 2561}, "Height must be from 64 to 2560"),
    ({"Width": True}, "Width must be an integer"),
    ({"BatchSize": 0}, "BatchSize must be from 1 to 16"),
    ({"BatchSize": 17}, "BatchSize must be from 1 to 16"),
    ({"request_uuid": 7}, "request_uuid must be a string"),
    ({"Image2Image": {}}, "Image2Image.ImageIndex is missing"),
    ({"Image2Image": {"ImageIndex": 0, "ReferStrength": 1.5}}, "Image2Image.ReferStrength must be from 0 to 1"),
    ({"Image2Image": {"ImageIndex": 2}}, "Image2Image.ImageIndex must be from 0 to 1, as there are 2 images"),
    ({"Masked": {"ImageIndex": 0}}, "Masked.MaskIndex is missing"),
    ({"Masked": {"ImageIndex": 0, "MaskIndex": -1}}, "Masked.MaskIndex must be from 0 to 1"),
    ({"Masked": {"ImageIndex": 9, "MaskIndex": 1}}, "Masked.ImageIndex must be from 0 to 1"),
    ({"Masked": {"ImageIndex": 0, "MaskIndex": 1, "MaskBlur": 65}}, "Masked.MaskBlur must be from 0 to 64"),
    ({"Masked": {"ImageIndex": 0, "MaskIndex": 1, "ReferStrength": 2.5}}, "Masked.ReferStrength must be from 0 to 2"),
    ({"Masked": {"ImageIndex": 0, "MaskIndex": 1, "InvertMask": 0}}, "Masked.InvertMask must be true or false"),
    ({"ImageAndMaskList": [IMAGE, 3]}, "ImageAndMaskList[1] must be a string"),
    ({"ImageAndMaskList": [IMAGE, "data:image/png;base64,@@@"]}, "ImageAndMaskList[1] is not Base64"),
    ({"ImageAndMaskList": ["猫", MASK_FILE]}, "ImageAndMaskList[0] is not Base64"),
    ({"ImageAndMaskList": ["", MASK_FILE]}, "ImageAndMaskList[0] is not a picture"),
    ({"ImageAndMaskList": [encoded(b"no picture"), MASK_FILE]}, "ImageAndMaskList[0] is not a picture"),
    ({"ImageAndMaskList": [encoded(file_of(PICTURE)[:-100]), MASK_FILE]}, "ImageAndMaskList[0] is not a picture"),
    (
        {"ImageAndMaskList": [IMAGE, encoded(file_of(Image.new("L", (64, 96))))]},
        "Masked.MaskIndex points at a mask of another size",
    ),
]


@pytest.mark.parametrize(("changes", "message"), FIELDS, ids=[message for _, message in FIELDS])
async def test_a_wrong_field_is_named(changes: dict[str, Any], message: str) -> None:
    """A missing, mistyped or out-of-range field is refused by name, and nothing is charged."""
    async with Emulator() as emulator, aiohttp.ClientSession() as http:
        answer = await Client(emulator, http).post(signed(masked_pixels(**changes)))

    assert 201 == answer["RetCode"]
    assert answer["Message"].startswith(message)
    assert () == emulator.ledger


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ([], 201, "the body must be an object"),
        ({"PublicKey": "emulator"}, 201, "Action is missing"),
        ({"Action": 1, "PublicKey": "emulator", "Signature": ""}, 201, "Action must be a string"),
        ({"Action": "ListModels", "PublicKey": "emulator"}, 201, "Signature is missing"),
        (signed({"Action": "Dance", "PublicKey": "emulator"}), 101, "Action is unknown"),
        (signed({"Action": "ListModels", "PublicKey": "someone"}), 102, "PublicKey is unknown"),
        (signed({"Action": "ListModels", "PublicKey": "emulator"}, "wrong"), 103, "Signature does not match"),
        ({"Action": "ListModels", "PublicKey": "emulator", "Signature": "é"}, 103, "Signature does not match"),
        (signed({"Action": "ListTasksDetails", "PublicKey": "emulator"}), 201, "TaskUIDList is missing"),
        (signed({"Action": "TerminateTask", "PublicKey": "emulator"}), 201, "TaskUID is missing"),
        (signed({"Action": "TerminateTask", "PublicKey": "emulator", "TaskUID": "x"}), 401, "TaskUID is unknown"),
    ],
)
async def test_a_wrong_request_is_answered(body: Any, code: int, message: str) -> None:
    """Unknown Actions and keys, wrong signatures and unknown tasks each have a code and a message."""
    async with Emulator() as emulator, aiohttp.ClientSession() as http:
        answer = await Client(emulator, http).post(body)

    assert code == answer["RetCode"]
    assert answer["Message"].startswith(message)


async def test_what_the_documentation_allows_is_accepted() -> None:
    """The ends of all ranges, unknown fields, and Base64 with or without a prefix go through."""
    bare = base64.b64encode(file_of(PICTURE)).decode()
    params = {"Steps": 10, "Sampler": "Euler", "ClipSkip": 1, "CFGScale": 7, "LoraWeight": -0.37, "Novelty": [1]}
    model = {"ModelCode": "m", "Name": "n", "IsOfficial": True, "TriggerWordList": ["w"], "InferenceParams": params}
    mask = {"ImageIndex": 0, "MaskIndex": 1, "ReferStrength": 1.5, "MaskBlur": 64, "PromptsMoreImportant": True}
    async with Emulator() as emulator, aiohttp.ClientSession() as http:
        uid = await Client(emulator, http).submit(
            MainModel=model,
            SubModelList=[model],
            Masked=mask,
            ImageAndMaskList=[bare, MASK_FILE],
            Seed=2**31 - 1,
            PositivePrompts=["a, b"],
            NegativePrompts=[],
            Unheard={"of": []},
        )

    assert uid == emulator.ledger[0].task_uid


async def test_an_image_may_stand_in_a_field_of_its_own() -> None:
    """Images are collected from fields with one and from fields with many, in the order of the fields."""
    drawing = Drawing(check=record({}), image_fields=("RawImage", "Images", "None"), effect=lambda *_: [])
    files = images_of({"Images": [MASK_FILE], "RawImage": IMAGE}, drawing)

    assert [file_of(PICTURE), file_of(MASK)] == files
