"""Tests of the emulator's own signature."""

from __future__ import annotations

import json
from typing import Any

import pytest

from picpik_async.emulator._signature import signature

VECTORS: list[tuple[dict[str, Any], str, str]] = [
    (
        {"Action": "ListModels", "PublicKey": "abcdefg"},
        "123456",
        "4a20bc1141494035f6aaaad13224c94c5a8bc3a5",
    ),
    (
        {"Action": "StartPicpikApp", "PublicKey": "abcdefg", "AppId": "your_app_id"},
        "123456",
        "c5e65ad1936ff695436917bf807d2281db33e7a3",
    ),
    (
        {
            "prompt": "这是生成图片所需的提示词。",
            "width": 512,
            "height": 512,
            "refImage": "如果是图生图，此处填原图的base64字符串",  # noqa: RUF001 (the published text)
        },
        "ABCDEFG",
        "bb4c607024f6eeb6198d070b658b2a9270fd468d",
    ),
    (
        json.loads(
            '{"Action":"GenerateImages","PublicKey":"abcdefg","MainModel":{"ModelCode":"PICPIK General",'
            '"InferenceParams":{"Steps":10,"CFGScale":7.5,"Sampler":"Euler"}},"SubModelList":[{"ModelCode":"lora1",'
            '"InferenceParams":{"LoraWeight":1.0}}],"PositivePrompts":["a cat","一只猫"],"NegativePrompts":[],'
            '"TranslatePrompts":true,"Seed":-1,"Width":1024,"Height":1024,"BatchSize":1,"UseMainModelVAE":false,'
            '"request_uuid":"5ae03609-451b-44d7-a351-c72904df881b"}'
        ),
        "123456",
        "7d4306dc04dd19b5c29203f0f1ee3724e95ebc67",
    ),
]


@pytest.mark.parametrize(("body", "key", "expected"), VECTORS)
def test_reproduces_the_vectors(body: dict[str, Any], key: str, expected: str) -> None:
    """The published vectors, and one with every type, come out; a Signature in the body changes nothing."""
    assert expected == signature(body, key)
    assert expected == signature({**body, "Signature": "anything"}, key)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-07, "0.0000001"), (1e22, "10000000000000000000000"), (-0.0, "0"), (42.0, "42"), (None, ""), ([], "")],
)
def test_scalars_are_written_plainly(value: Any, text: str) -> None:
    """Numbers have no exponent and no zero fraction; nothing is written as nothing."""
    assert signature({"a": text}, "key") == signature({"a": value}, "key")
