"""The signature: published vectors, the rule for numbers, and a second opinion on arbitrary requests."""

from __future__ import annotations

import enum
import json
import traceback
from collections import OrderedDict
from typing import Any

import plain
import pytest
from hypothesis import given
from hypothesis import strategies as st

from picpik_async._config import Secret
from picpik_async._signature import canonical, literal, sign
from picpik_async.errors import InvalidRequestError

SELF_MADE = {
    "Action": "GenerateImages",
    "PublicKey": "abcdefg",
    "MainModel": {
        "ModelCode": "PICPIK General",
        "InferenceParams": {"Steps": 10, "CFGScale": 7.5, "Sampler": "Euler"},
    },
    "SubModelList": [{"ModelCode": "lora1", "InferenceParams": {"LoraWeight": 1.0}}],
    "PositivePrompts": ["a cat", "一只猫"],
    "NegativePrompts": [],
    "TranslatePrompts": True,
    "Seed": -1,
    "Width": 1024,
    "Height": 1024,
    "BatchSize": 1,
    "UseMainModelVAE": False,
    "request_uuid": "5ae03609-451b-44d7-a351-c72904df881b",
}

# Parameters, key, text to hash, signature.
VECTORS = [
    pytest.param(  # https://picpik.ai/zh/api-docs/signature
        {"Action": "ListModels", "PublicKey": "abcdefg"},
        "123456",
        "ActionListModelsPublicKeyabcdefg",
        "4a20bc1141494035f6aaaad13224c94c5a8bc3a5",
        id="page",
    ),
    pytest.param(  # https://github.com/picpik-ai/signature-tool/blob/main/signature_rule.md
        {"Action": "StartPicpikApp", "PublicKey": "abcdefg", "AppId": "your_app_id"},
        "123456",
        "ActionStartPicpikAppAppIdyour_app_idPublicKeyabcdefg",
        "c5e65ad1936ff695436917bf807d2281db33e7a3",
        id="platform",
    ),
    pytest.param(  # the same page
        {
            "prompt": "这是生成图片所需的提示词。",
            "width": 512,
            "height": 512,
            "refImage": "如果是图生图，此处填原图的base64字符串",  # noqa: RUF001 - as published
        },
        "ABCDEFG",
        "height512prompt这是生成图片所需的提示词。refImage如果是图生图，此处填原图的base64字符串width512",  # noqa: RUF001 - as published
        "bb4c607024f6eeb6198d070b658b2a9270fd468d",
        id="service",
    ),
    pytest.param(  # not published; computed with the vendor's Python tool
        SELF_MADE,
        "123456",
        "ActionGenerateImagesBatchSize1Height1024MainModelInferenceParamsCFGScale7.5SamplerEulerSteps10ModelCodePICPIK "
        "GeneralNegativePromptsPositivePromptsa cat一只猫PublicKeyabcdefgSeed-1SubModelListInferenceParamsLoraWeight1"
        "ModelCodelora1TranslatePromptstrueUseMainModelVAEfalseWidth1024"
        "request_uuid5ae03609-451b-44d7-a351-c72904df881b",
        "7d4306dc04dd19b5c29203f0f1ee3724e95ebc67",
        id="self-made",
    ),
]

# The request example of https://picpik.ai/api-docs/api-reference/ModifyMaskedPixels; its key is not published.
EXAMPLE = """{"Action":"ModifyMaskedPixels","PublicKey":"ALLak9M4cNdHXKOJAJJ4k8Hh1hZS2EgJF1D0FlPwfl",
"TranslatePrompts":true,"request_uuid":"5ae03609-451b-44d7-a351-c72904df881b","MainModel":{"InferenceParams":
{"Steps":10},"ModelCode":"PICPIK General"},"Masked":{"ImageIndex":0,"MaskIndex":1},"NegativePrompts":[],
"PositivePrompts":[],"ImageAndMaskList":["",""]}"""


class Colour(str, enum.Enum):  # noqa: UP042 - the kind whose str() is not its value
    """A string that shows its name."""

    RED = "red"


@pytest.mark.parametrize(("parameters", "key", "text", "signature"), VECTORS)
def test_known_vectors(parameters: dict[str, Any], key: str, text: str, signature: str) -> None:
    """Every published vector of the current rules is reproduced, and so is the one that covers every type."""
    assert text == canonical(parameters)
    assert signature == sign(parameters, Secret(key))
    assert signature == plain.signature(parameters, key)  # the second opinion is a good one


def test_the_text_of_the_request_example() -> None:
    """Empty lists leave their name, and indexes and booleans their plain text."""
    assert (
        "ActionModifyMaskedPixelsImageAndMaskListMainModelInferenceParamsSteps10ModelCodePICPIK GeneralMaskedImageIndex0"
        "MaskIndex1NegativePromptsPositivePromptsPublicKeyALLak9M4cNdHXKOJAJJ4k8Hh1hZS2EgJF1D0FlPwflTranslatePrompts"
        "truerequest_uuid5ae03609-451b-44d7-a351-c72904df881b"
    ) == canonical(json.loads(EXAMPLE))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (-1, "-1"),
        (2**70, "1180591620717411303424"),
        (42.0, "42"),
        (-0.0, "0"),
        (0.29, "0.29"),
        (-7.5, "-7.5"),
        (0.1 + 0.2, "0.30000000000000004"),
        (1e-07, "0.0000001"),
        (1.5e-05, "0.000015"),
        (1e22, "10000000000000000000000"),
        (123456789.125, "123456789.125"),
        (enum.IntEnum("Size", {"LARGE": 3}).LARGE, "3"),  # type: ignore[attr-defined]
    ],
)
def test_literals(value: Any, expected: str) -> None:
    """Lower-case booleans, no zero fraction, no exponent."""
    assert expected == literal(value)


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers())
def test_a_literal_is_the_number(value: float) -> None:
    """No digit is lost and no exponent written; JSON reads the same number back."""
    text = literal(value)

    assert value == json.loads(text)
    assert set(text) <= set("-.0123456789")
    assert plain.number_text(value) == text


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        float("-inf"),
        pytest.param(10**5000, id="5000 digits"),
    ],
)
def test_numbers_that_are_none(value: float) -> None:
    """What JSON or Python cannot write is refused."""
    with pytest.raises(InvalidRequestError, match="infinity, NaN and numbers of thousands of digits") as caught:
        literal(value)

    assert "a finite number" == caught.value.allowed


@given(plain.parameters(plain.scalars()), st.text())
def test_a_second_opinion_agrees(parameters: dict[str, Any], key: str) -> None:
    """Any parameters are canonicalised and signed as an independent implementation of the page does."""
    assert plain.text_to_sign(parameters) == canonical(parameters)
    assert plain.signature(parameters, key) == sign(parameters, Secret(key))


@given(plain.parameters(plain.scalars()))
def test_the_order_of_parameters_does_not_matter(parameters: dict[str, Any]) -> None:
    """Names are sorted at every level."""
    assert canonical(parameters) == canonical(OrderedDict(reversed(parameters.items())))


def test_names_are_sorted_by_code_point() -> None:
    """Upper case comes before lower case, as in the examples, and after that by code point."""
    names = ["request_uuid", "Width", "TaskUIDList", "PublicKey", "AppId", "Action", "猫", "\uffff", "\U0001f408"]

    assert "ActionAppIdPublicKeyTaskUIDListWidthrequest_uuid猫\uffff\U0001f408" == canonical(dict.fromkeys(names, ""))


def test_a_tuple_is_a_list_and_an_enum_its_text() -> None:
    """Python's own variants of JSON's types count as what they are sent as."""
    assert "aredred" == canonical({"a": (Colour.RED, [Colour.RED])})


def test_null_leaves_its_name() -> None:
    """As in the vendor's Python tool; the pages do not say."""
    assert "abc" == canonical({"a": None, "b": {"c": None}})


def test_a_traceback_with_locals_shows_no_key() -> None:
    """Signing keeps the key out of local variables, which error trackers collect."""
    with pytest.raises(UnicodeEncodeError) as caught:
        sign({"Action": "\ud800"}, Secret(plain.PRIVATE_KEY))

    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()
    assert plain.PRIVATE_KEY not in "".join(shown)
