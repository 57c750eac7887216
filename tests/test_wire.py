"""Names and shapes on the wire: requests as the pages show them, answers decoded strictly where it matters."""

from __future__ import annotations

import json
import logging
import warnings
from typing import Any

import anyio
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobs import THREADS
from plain import signature as plain_signature
from plain import values

from picpik_async import (
    Dialect,
    GetCreditBalance,
    Image2Image,
    ImageSource,
    InferenceParams,
    ListModels,
    ListRunningTasks,
    ListTasksDetails,
    Mask,
    Model,
    ModifyMaskedPixels,
    TaskDetail,
    TaskStatus,
    TerminateTask,
)
from picpik_async._blobs import MemoryBlob
from picpik_async._body import Body
from picpik_async._config import Secret
from picpik_async._details import odd_detail, plain_detail, statuses_by_word, structure_detail
from picpik_async._fields import tell_misfit
from picpik_async._layout import lay_out
from picpik_async._opened import OpenImage
from picpik_async._types import CreditBalance, Models
from picpik_async._wire import (
    decode,
    is_uid,
    parameters,
    refusal,
    structure_answer,
    task_uid,
)
from picpik_async.errors import MalformedAnswerError, PicpikError

UUID = "5ae03609-451b-44d7-a351-c72904df881b"
PUBLIC_KEY = "ALLak9M4cNdHXKOJAJJ4k8Hh1hZS2EgJF1D0FlPwfl"
COMMON = {"PublicKey": PUBLIC_KEY, "request_uuid": UUID}

# The request example of https://picpik.ai/api-docs/api-reference/ModifyMaskedPixels, without signature and pictures.
EXAMPLE: dict[str, Any] = {
    "Action": "ModifyMaskedPixels",
    "TranslatePrompts": True,
    "MainModel": {"InferenceParams": {"Steps": 10}, "ModelCode": "PICPIK General"},
    "Masked": {"ImageIndex": 0, "MaskIndex": 1},
    "NegativePrompts": [],
    "PositivePrompts": [],
    **COMMON,
}


def sent(request: Any, *, dialect: Dialect | None = None) -> dict[str, Any]:
    """The parameters of a request, pictures still as sources."""
    found = parameters(request, dialect=dialect or Dialect(), public_key=PUBLIC_KEY, request_uuid=UUID)
    as_lists: dict[str, Any] = with_lists(found)
    return as_lists


def with_lists(value: Any) -> Any:
    """The value with a list for each tuple, as in JSON."""
    if isinstance(value, dict):
        return {name: with_lists(inner) for name, inner in value.items()}
    return [with_lists(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def answer(**fields: Any) -> dict[str, Any]:
    """A successful answer."""
    return {"RetCode": 0, "Action": "A", "Message": "", **fields}


def rows(*rows: Any) -> tuple[TaskDetail, ...]:
    """The decoded rows of an answer to ListTasksDetails."""
    return structure_answer(ListTasksDetails(task_uid_list=["t"]), answer(TaskDetailList=list(rows)), Dialect())


def row(**fields: Any) -> TaskDetail:
    """One row, decoded."""
    (detail,) = rows({"TaskUID": "t", **fields})
    return detail


def models(**fields: Any) -> Models:
    """The decoded answer to ListModels."""
    return structure_answer(ListModels(), answer(**fields), Dialect())


@pytest.fixture(autouse=True)
def _nothing_told() -> None:
    """What one test was told is news to the next."""
    tell_misfit.cache_clear()


# --- requests ---------------------------------------------------------------------------------------------------------


def test_the_request_example_is_reproduced() -> None:
    """The published example comes out name by name and value by value, with the pictures where it leaves them empty."""
    image, mask = ImageSource.of(b"image"), ImageSource.of(b"mask")
    request = ModifyMaskedPixels(
        main_model=Model("PICPIK General", inference_params=InferenceParams(steps=10)),
        masked=Mask(image=image, mask=mask),
        positive_prompts=[],
        negative_prompts=[],
        translate_prompts=True,
    )

    assert EXAMPLE | {"ImageAndMaskList": [image, mask]} == sent(request)


def test_the_wire_json_of_the_request_example() -> None:
    """The very bytes: names sorted, no white space, pictures as data URIs, the signature last."""
    image, mask = ImageSource.of(b"image"), ImageSource.of(b"mask")
    images = {
        source: OpenImage(format="png", width=1, height=1, blob=MemoryBlob(data))
        for source, data in ((image, b"image"), (mask, b"mask"))
    }
    layout = lay_out(EXAMPLE | {"ImageAndMaskList": [image, mask]}, images, data_uri=True)
    texts = ["data:image/png;base64,aW1hZ2U=", "data:image/png;base64,bWFzaw=="]
    signature = plain_signature(EXAMPLE | {"ImageAndMaskList": texts}, "123456")
    body = Body(layout, Secret("123456"), slice_size=999, executor=THREADS)

    async def sent() -> bytes:
        return b"".join([data async for data in body.head()]) + body.tail()

    assert (
        b'{"Action":"ModifyMaskedPixels","ImageAndMaskList":["data:image/png;base64,aW1hZ2U=","data:image/png;base64,bWFzaw=="],'
        b'"MainModel":{"InferenceParams":{"Steps":10},"ModelCode":"PICPIK General"},"Masked":{"ImageIndex":0,"MaskIndex":1},'
        b'"NegativePrompts":[],"PositivePrompts":[],"PublicKey":"ALLak9M4cNdHXKOJAJJ4k8Hh1hZS2EgJF1D0FlPwfl",'
        b'"TranslatePrompts":true,"request_uuid":"5ae03609-451b-44d7-a351-c72904df881b",'
        b'"Signature":"%b"}' % signature.encode()
    ) == anyio.run(sent)


def test_every_parameter_has_its_documented_name() -> None:
    """All of them at once, each where the page puts it."""
    request = ModifyMaskedPixels(
        main_model=Model(
            "m", name="n", is_official=True, trigger_word_list=["w"], inference_params=InferenceParams(extra={"Eta": 1})
        ),
        sub_model_list=[
            Model(
                "s",
                inference_params=InferenceParams(
                    steps=10,
                    sampler="Euler",
                    clip_skip=2,
                    cfg_scale=7.5,
                    lora_weight=0.29,
                    resolution=512,
                    control_weight=1,
                    starting_step=0,
                    ending_step=1,
                ),
            )
        ],
        positive_prompts="p",
        negative_prompts="n",
        translate_prompts=False,
        seed=1,
        width=64,
        height=128,
        batch_size=2,
        use_main_model_vae=True,
        masked=Mask(
            image=b"i", mask=b"m", refer_strength=1.5, invert_mask=True, mask_blur=3, prompts_more_important=True
        ),
        image2image=Image2Image(image=b"r", refer_strength=0.5),
        auto_size=True,
    )

    assert sent(request) == {
        "Action": "ModifyMaskedPixels",
        "MainModel": {
            "ModelCode": "m",
            "Name": "n",
            "IsOfficial": True,
            "TriggerWordList": ["w"],
            "InferenceParams": {"Eta": 1},
        },
        "SubModelList": [
            {
                "ModelCode": "s",
                "InferenceParams": {
                    "Steps": 10,
                    "Sampler": "Euler",
                    "ClipSkip": 2,
                    "CFGScale": 7.5,
                    "LoraWeight": 0.29,
                    "Resolution": 512,
                    "ControlWeight": 1,
                    "StartingStep": 0,
                    "EndingStep": 1,
                },
            },
        ],
        "PositivePrompts": ["p"],
        "NegativePrompts": ["n"],
        "TranslatePrompts": False,
        "Seed": 1,
        "Width": 64,
        "Height": 128,
        "BatchSize": 2,
        "UseMainModelVAE": True,
        "Masked": {
            "ImageIndex": 0,
            "MaskIndex": 1,
            "ReferStrength": 1.5,
            "InvertMask": True,
            "MaskBlur": 3,
            "PromptsMoreImportant": True,
        },
        "Image2Image": {"ImageIndex": 2, "ReferStrength": 0.5},
        "ImageAndMaskList": list(request.images().values()),
        **COMMON,
    }


def test_only_what_is_set_is_sent() -> None:
    """Beyond the common parameters, the model and the pictures, nothing; the model is the default of the dialect."""
    expected = {"MainModel", "Masked", "ImageAndMaskList", "Action", "PublicKey", "request_uuid"}

    assert expected == set(sent(ModifyMaskedPixels.inpaint(b"i", b"m")))


@pytest.mark.parametrize(
    ("dialect", "code"), [(Dialect(), "PICPIK General"), (Dialect(default_model="PICPIK Anime"), "PICPIK Anime")]
)
def test_the_main_model_is_always_sent(dialect: Dialect, code: str) -> None:
    """It is required, so an unset one is the default of the dialect; one that is set stays."""
    request = ModifyMaskedPixels.inpaint(b"i", b"m")

    assert {"ModelCode": code} == sent(request, dialect=dialect)["MainModel"]
    assert {"ModelCode": "mine"} == sent(request.with_model("mine"), dialect=dialect)["MainModel"]


def test_the_same_picture_is_sent_once() -> None:
    """The same object, or an equal path, has one number wherever it stands."""
    data = b"picture"
    request = ModifyMaskedPixels.inpaint("room.jpg", data).with_reference("./room.jpg")

    body = sent(request)

    assert (0, 1, 0) == (
        body["Masked"]["ImageIndex"],
        body["Masked"]["MaskIndex"],
        body["Image2Image"]["ImageIndex"],
    )
    assert ["<ImageSource room.jpg>", "<ImageSource bytes, 7 bytes>"] == list(map(repr, body["ImageAndMaskList"]))
    assert 1 == len(sent(ModifyMaskedPixels.inpaint(data, data))["ImageAndMaskList"])


def test_equal_bytes_are_two_pictures() -> None:
    """Contents are never compared: that would mean reading them."""
    first, second = bytes([1, 2, 3]), bytes([1, 2, 3, 4])[:3]

    assert 2 == len(sent(ModifyMaskedPixels.inpaint(first, second))["ImageAndMaskList"])


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (ListTasksDetails(task_uid_list=["a", "b"]), {"Action": "ListTasksDetails", "TaskUIDList": ["a", "b"]}),
        (ListRunningTasks(), {"Action": "ListRunningTasks"}),
        (TerminateTask(task_uid="a"), {"Action": "TerminateTask", "TaskUID": "a"}),
        (ListModels(), {"Action": "ListModels"}),
        (GetCreditBalance(), {"Action": "GetCreditBalance"}),
    ],
)
def test_queries_have_their_documented_names(query: Any, expected: dict[str, Any]) -> None:
    """No model and no list of pictures in a query."""
    assert expected | COMMON == sent(query)


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON (0 bytes)"),
        (b"<html><body>secret</body></html>", "not JSON (32 bytes)"),
        (b'{"RetCode":0', "not JSON"),
        (b'{"RetCode":0} trailing', "not JSON"),
        (b'{"RetCode":NaN}', "not JSON"),
        (b'{"RetCode":0,"Message":"\xff"}', "not JSON"),
        (b'{"RetCode":0,"Message":"\\ud800"}', "not JSON"),
        pytest.param(b"[" * 100_000, "not JSON", id="depth"),
        (b"[]", "a JSON list, not an object"),
        (b"null", "a JSON NoneType, not an object"),
        (b'"text"', "a JSON str, not an object"),
        (b"{}", "RetCode is missing or not an integer"),
        (b'{"RetCode":null}', "RetCode is missing or not an integer"),
        (b'{"RetCode":true}', "RetCode is missing or not an integer"),
        (b'{"RetCode":false}', "RetCode is missing or not an integer"),
        (b'{"RetCode":0.4}', "RetCode is missing or not an integer"),
        (b'{"RetCode":0.0}', "RetCode is missing or not an integer"),
        (b'{"RetCode":"0"}', "RetCode is missing or not an integer"),
        pytest.param(b'{"RetCode":' + b"9" * 5000 + b"}", "the answer", id="digits"),
        (b'{"retcode":0}', "RetCode is missing or not an integer"),
    ],
)
def test_malformed_answers(body: bytes, words: str) -> None:
    """Only an object with an integer RetCode is an answer; the message names the Action and quotes nothing."""
    with pytest.raises(MalformedAnswerError) as caught:
        decode(body, action="ListModels")

    assert str(caught.value).startswith("ListModels: ")
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_good_answer_is_decoded() -> None:
    """Unknown fields and a byte order are no matter."""
    assert {"Other": 1, "RetCode": -5} == decode(b'\n{"Other":1, "RetCode":-5}\n', action="A")


def test_ret_code_zero_is_no_refusal() -> None:
    """Zero is success, whatever the message says."""
    assert refusal(answer(Message="hm"), action="A", request_uuid=UUID) is None


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("no credits", "no credits"),
        ("", ""),
        (None, ""),
        ("two\nlines \x1b[31m", r"two\nlines \x1b[31m"),
        ("x" * 1000, "x" * 499 + "…"),
        ({"a": 1}, "(dict)"),
        (7, "(int)"),
    ],
)
def test_a_refusal_has_the_services_words(message: Any, shown: str) -> None:
    """RetCode, Action, uuid and the message, made safe to print."""
    error = refusal(answer(RetCode=210, Message=message), action="ListModels", request_uuid=UUID)

    assert error is not None
    assert (210, "ListModels", shown, UUID) == (error.ret_code, error.action, error.message, error.request_uuid)
    assert f"ListModels: the service refused with RetCode 210: {shown or '(no message)'}" == str(error)


def test_a_message_as_deep_as_json_allows_is_harmless() -> None:
    """Writing it out would exhaust the stack."""
    document = decode(b'{"RetCode":1,"Action":%b,"Message":%b}' % ((b"[" * 1000 + b"]" * 1000,) * 2), action="A")

    error = refusal(document, action="A", request_uuid=UUID)

    assert error is not None
    assert "(list)" == error.message


@pytest.mark.parametrize(
    ("fields", "lines"),
    [
        ({"Action": "A", "request_uuid": UUID}, 0),
        ({"Action": None}, 0),
        ({"Action": "RestoreFaces", "request_uuid": "432c57d3"}, 2),
        ({"Action": "\x1b[31m"}, 1),
        ({"Action": 5}, 1),
    ],
)
def test_another_echo_is_a_log_line(caplog: pytest.LogCaptureFixture, fields: dict[str, Any], lines: int) -> None:
    """The published examples echo another Action and uuid themselves, so it is no error."""
    with caplog.at_level(logging.DEBUG, "picpik_async"):
        assert refusal(answer(**fields), action="A", request_uuid=UUID) is None

    assert lines == len(caplog.messages)
    assert all(message.isprintable() for message in caplog.messages)


@pytest.mark.parametrize("uid", ["ckt3uqlrh4miq8mr9lgg", "taskUId1", "x", "猫", "x" * 256, "a b"])
def test_task_uids_of_any_form_are_taken(uid: str) -> None:
    """Their form is not documented."""
    assert is_uid(uid)
    assert uid == task_uid(answer(TaskUID=uid), action="A")


@pytest.mark.parametrize("uid", [None, "", 5, True, ["a"], {"a": 1}, "a\nb", "a\x00", "\u202e", "\ud800", "x" * 257])
def test_what_is_no_task_uid(uid: Any) -> None:
    """A job without a usable id cannot be followed; the message does not quote it."""
    assert not is_uid(uid)
    with pytest.raises(MalformedAnswerError, match=r"^A: the service agreed, but its answer has no usable TaskUID$"):
        task_uid(answer(TaskUID=uid), action="A")


def test_a_missing_task_uid() -> None:
    """The same holds if there is none at all."""
    with pytest.raises(MalformedAnswerError, match="no usable TaskUID"):
        task_uid(answer(), action="A")


# --- rows -------------------------------------------------------------------------------------------------------------


def test_a_row_is_decoded() -> None:
    """Every documented field has its place, and the row itself stays beside them."""
    fields = {
        "Action": "ModifyMaskedPixels",
        "Status": "Finished",
        "ImgList": ["https://host/1.png"],
        "Seed": 7,
        "TxtList": ["a sofa"],
        "ConsumeApiPoint": 12,
        "ErrorCode": 0,
        "ErrorMassage": "",
        "Progress": 100,
    }
    detail = row(**fields)

    assert detail == TaskDetail(
        task_uid="t",
        action="ModifyMaskedPixels",
        status=TaskStatus.FINISHED,
        status_word="Finished",
        image_urls=("https://host/1.png",),
        seed=7,
        texts=("a sofa",),
        cost=12,
        error_code=0,
        error_message="",
    )
    assert {"TaskUID": "t", **fields} == detail.raw


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("Queuing", TaskStatus.QUEUING),
        ("Running", TaskStatus.RUNNING),
        ("Finished", TaskStatus.FINISHED),
        ("Error", TaskStatus.ERROR),
        ("finished", TaskStatus.UNKNOWN),
        ("Reticulating", TaskStatus.UNKNOWN),
        ("", TaskStatus.UNKNOWN),
        (None, TaskStatus.UNKNOWN),
    ],
)
def test_status_words(word: Any, status: TaskStatus) -> None:
    """Known words have a meaning; any other is kept as it is and means that we do not know."""
    detail = row(Status=word)

    assert (status, word) == (detail.status, detail.status_word)


def test_status_words_are_a_setting() -> None:
    """Which word means what is up to the dialect."""
    detail = structure_detail(
        {"TaskUID": "t", "Status": "Done"}, statuses_by_word(Dialect(finished_words=frozenset({"Done"})))
    )

    assert TaskStatus.FINISHED is detail.status


def test_a_row_with_nothing_but_its_id() -> None:
    """Every other field is optional; a status that is missing is unknown."""
    assert TaskDetail(task_uid="t") == row()


def test_null_is_the_same_as_absent() -> None:
    """Null for a list is an empty list, null for anything else is nothing."""
    names = ["Action", "Status", "ImgList", "Seed", "TxtList", "ConsumeApiPoint", "ErrorCode", "ErrorMassage"]

    assert TaskDetail(task_uid="t") == row(**dict.fromkeys(names))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"ErrorMassage": "sic"}, "sic"),
        ({"ErrorMessage": "right"}, "right"),
        ({"ErrorMassage": "sic", "ErrorMessage": "right"}, "sic"),
        ({"ErrorMassage": None, "ErrorMessage": "right"}, "right"),
        ({"ErrorMassage": 5, "ErrorMessage": "right"}, None),
        ({"ErrorMessage": 5}, None),
        ({}, None),
    ],
)
def test_both_spellings_of_the_error_message(fields: dict[str, Any], expected: str | None) -> None:
    """The documented `ErrorMassage` (sic) goes first; the row as it came is not touched."""
    detail = row(**fields)

    assert expected == detail.error_message
    assert {"TaskUID": "t", **fields} == detail.raw


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("Action", "action", 5),
        ("Seed", "seed", "7"),
        ("Seed", "seed", True),
        ("Seed", "seed", 7.0),
        ("ConsumeApiPoint", "cost", "12"),
        ("ConsumeApiPoint", "cost", []),
        ("ErrorMassage", "error_message", {"a": 1}),
        ("TxtList", "texts", "text"),
        ("TxtList", "texts", [5]),
    ],
)
def test_fields_that_only_inform_may_be_odd(
    caplog: pytest.LogCaptureFixture, name: str, field: str, value: Any
) -> None:
    """What does not fit becomes nothing, is logged by its type, and stays in `raw`; the rest of the row counts."""
    with caplog.at_level(logging.DEBUG, "picpik_async"):
        detail = row(**{"Status": "Finished", name: value})

    assert not getattr(detail, field)
    assert TaskStatus.FINISHED is detail.status
    assert value == detail.raw[name]
    kind = type(value).__name__
    assert [f"an answer's {name} is not of the documented type ({kind}); ignored"] == caplog.messages


@pytest.mark.parametrize(
    "fields",
    [
        {"Status": 5},
        {"Status": ["Finished"]},
        {"ImgList": "https://host/1.png"},
        {"ImgList": [5]},
        {"ImgList": {"0": "https://host/1.png"}},
        {"ErrorCode": "0"},
        {"ErrorCode": True},
        {"ErrorCode": 0.5},
    ],
)
def test_fields_that_decide_must_fit(caplog: pytest.LogCaptureFixture, fields: dict[str, Any]) -> None:
    """A row whose status, pictures or error code do not fit tells no more than its status word, and is asked about again."""
    ((name, value),) = fields.items()
    detail = row(**{"Status": "Finished", "Seed": 7, **fields})

    assert TaskDetail(task_uid="t", status_word=None if name == "Status" else "Finished") == detail
    assert (False, False) == (detail.finished, detail.failed)
    assert 7 == detail.raw["Seed"]
    kind = type(value).__name__
    assert [f"an answer's {name} is not of the documented type ({kind}); asking again"] == caplog.messages


def test_what_comes_with_every_poll_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """A field that does not fit is logged once for each type it has, however often and for however many tasks."""
    with caplog.at_level(logging.DEBUG, "picpik_async"):
        for _ in range(10):
            rows(*({"TaskUID": uid, "ErrorCode": "0", "ImgList": [5], "Seed": "7"} for uid in "abc"))
            rows({"TaskUID": "a", "ErrorCode": 0.5})

    assert [
        "an answer's ErrorCode is not of the documented type (float); asking again",
        "an answer's ErrorCode is not of the documented type (str); asking again",
        "an answer's ImgList is not of the documented type (list); asking again",
        "an answer's Seed is not of the documented type (str); ignored",
    ] == sorted(caplog.messages)


def test_one_bad_row_leaves_its_neighbours_alone() -> None:
    """Rows are decoded one by one; what has no legible id is no row."""
    bad: list[Any] = [
        None,
        5,
        "t",
        [],
        {},
        {"TaskUID": ""},
        {"TaskUID": None, "Status": "Finished"},
        {"TaskUID": "bad", "Status": 5},
    ]
    details = rows({"TaskUID": "first", "Status": "Running"}, *bad, {"TaskUID": "last", "Status": "Finished"})

    assert [("first", "Running"), ("bad", None), ("last", "Finished")] == [
        (detail.task_uid, detail.status_word) for detail in details
    ]


@pytest.mark.parametrize("query", [ListTasksDetails(task_uid_list=["t"]), ListRunningTasks()])
def test_lists_may_be_null_or_missing(query: Any) -> None:
    """Both are an empty list; anything else is no answer."""
    name = {"ListTasksDetails": "TaskDetailList", "ListRunningTasks": "TaskUIDList"}[query.action]

    assert () == structure_answer(query, answer(), Dialect())
    assert () == structure_answer(query, answer(**{name: None}), Dialect())
    assert () == structure_answer(query, answer(**{name: []}), Dialect())
    odd: list[Any] = [{}, "t", 5, False]
    for value in odd:
        with pytest.raises(MalformedAnswerError, match=f"^{query.action}: {name} is not a list$"):
            structure_answer(query, answer(**{name: value}), Dialect())


def test_running_tasks_are_ids() -> None:
    """What cannot be an id is left out."""
    document = answer(TaskUIDList=["a", "", None, 5, "b"])

    assert ("a", "b") == structure_answer(ListRunningTasks(), document, Dialect())


def test_terminating_answers_nothing() -> None:
    """The common fields are all there is."""
    assert structure_answer(TerminateTask(task_uid="t"), answer(), Dialect()) is None


# --- models -----------------------------------------------------------------------------------------------------------

OFFICIAL = {
    "Name": "General",
    "ModelCode": "PICPIK General",
    "IsOfficial": True,
    "TriggerWordList": None,
    "InferenceParams": {"Steps": 10, "CFGScale": 7.5, "Sampler": "Euler", "ClipSkip": 1},
}
LORA = {"ModelCode": "lora", "TriggerWordList": ["sks"], "InferenceParams": {"LoraWeight": 1}, "Cover": "https://host"}


@pytest.mark.parametrize("as_array", [False, True])
def test_models_come_as_object_or_array(*, as_array: bool) -> None:
    """The vendor's pages show `Map[String]Model` both ways; an array is keyed by the code."""
    main, loras = ([OFFICIAL], [LORA]) if as_array else ({"PICPIK General": OFFICIAL}, {"lora": LORA})

    found = models(MainModels=main, LoraModels=loras, EmbeddingModels=None)

    general = found.main_models["PICPIK General"]
    assert general == Model(
        "PICPIK General",
        name="General",
        is_official=True,
        inference_params=InferenceParams(steps=10, cfg_scale=7.5, sampler="Euler", clip_skip=1),
    )
    assert (("sks",), 1.0) == (
        found.lora_models["lora"].trigger_word_list,
        getattr(found.lora_models["lora"].inference_params, "lora_weight", None),
    )
    assert ({}, {}) == (found.embedding_models, found.hypernetwork_models)


def test_the_key_of_an_object_is_the_services_own() -> None:
    """It may be another one than the code."""
    assert {"1": Model("m")} == models(MainModels={"1": {"ModelCode": "m"}}).main_models


@pytest.mark.parametrize(
    "params",
    [
        {"Steps": 10, "CFGScale": 7.5, "Sampler": "Euler", "ClipSkip": 1, "LoraWeight": 0.29},
        {"Steps": 500, "CFGScale": 0.1, "ClipSkip": 99, "Resolution": 100, "LoraWeight": 0.005, "ControlWeight": 9},
        {"Steps": "10", "Sampler": "", "ClipSkip": None, "CFGScale": [7.5], "EndingStep": True, "StartingStep": {}},
        {"Eta": 0.1, "steps": 5, "猫": {"a": [1]}},
        {},
    ],
)
@pytest.mark.parametrize("as_array", [False, True])
def test_a_model_of_the_service_goes_back_as_it_came(params: dict[str, Any], *, as_array: bool) -> None:
    """Also with parameters our ranges would refuse or warn about: the service knows its models better."""
    given = OFFICIAL | {"TriggerWordList": ["a"], "InferenceParams": params}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (model,) = models(MainModels=[given] if as_array else {"m": given}).main_models.values()
        body = sent(ModifyMaskedPixels.inpaint(b"i", b"m").with_model(model).with_sub_model(model))

    assert given == body["MainModel"]
    assert [body["MainModel"]] == body["SubModelList"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"Name": 5, "IsOfficial": 1, "TriggerWordList": "a", "InferenceParams": []}, Model("m")),
        ({"Name": None, "IsOfficial": None, "TriggerWordList": None, "InferenceParams": None}, Model("m")),
        ({"Name": "", "TriggerWordList": []}, Model("m", name="", trigger_word_list=())),
    ],
)
def test_odd_fields_of_a_model_are_left_out(fields: dict[str, Any], expected: Model) -> None:
    """Only the code is relied on."""
    assert {"m": expected} == models(MainModels={"m": {"ModelCode": "m", **fields}}).main_models


@pytest.mark.parametrize("bad", [None, 5, "m", [], {}, {"ModelCode": None}, {"ModelCode": ""}, {"ModelCode": []}])
@pytest.mark.parametrize("as_array", [False, True])
def test_a_bad_model_is_skipped(caplog: pytest.LogCaptureFixture, bad: Any, *, as_array: bool) -> None:
    """The others can be used; a log line says which one is missing."""
    entries = {"first": {"ModelCode": "first"}, "bad\n": bad, "last": {"ModelCode": "last"}}

    found = models(MainModels=list(entries.values()) if as_array else entries)

    assert ["first", "last"] == list(found.main_models)
    position = "1" if as_array else r"bad\n"
    assert [f"ListModels: skipped model {position}, which does not fit"] == caplog.messages


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "the answer has no MainModels"),
        ({"MainModels": None}, "the answer has no MainModels"),
        ({"MainModels": "m"}, "a map of models is neither an object nor an array"),
        ({"MainModels": {}, "LoraModels": 5}, "a map of models is neither an object nor an array"),
    ],
)
def test_an_answer_without_models_is_malformed(fields: dict[str, Any], words: str) -> None:
    """The main models are required, and every kind is a map or a list."""
    with pytest.raises(MalformedAnswerError, match=f"^ListModels: {words}$"):
        models(**fields)


# --- credits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expiry", "expected"), [(1727331226, 1727331226), (None, None), ("2024-09-26", None), (True, None), (1.5, None)]
)
def test_the_balance_is_decoded(expiry: Any, expected: int | None) -> None:
    """The published example, and an expiry of another type, which only informs."""
    document = answer(TotalCredits=804_000, UsedCredits=4_641, ExpireTimestamp=expiry)

    assert CreditBalance(total_credits=804_000, used_credits=4_641, expire_timestamp=expected) == structure_answer(
        GetCreditBalance(), document, Dialect()
    )


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"TotalCredits": 5},
        {"UsedCredits": 5},
        {"TotalCredits": "5", "UsedCredits": 5},
        {"TotalCredits": 5, "UsedCredits": True},
        {"TotalCredits": 5, "UsedCredits": None},
        {"TotalCredits": 5.5, "UsedCredits": 5},
    ],
)
def test_a_balance_without_its_numbers_is_malformed(fields: dict[str, Any]) -> None:
    """Both are required, and nothing is guessed."""
    with pytest.raises(MalformedAnswerError, match="TotalCredits or UsedCredits is missing or not an integer"):
        structure_answer(GetCreditBalance(), answer(**fields), Dialect())


# --- anything ---------------------------------------------------------------------------------------------------------

QUERIES: list[Any] = [
    ListTasksDetails(task_uid_list=["t"]),
    ListRunningTasks(),
    TerminateTask(task_uid="t"),
    ListModels(),
    GetCreditBalance(),
]
NAMES = [
    *["RetCode", "Action", "Message", "request_uuid", "TaskUID", "TaskDetailList", "TaskUIDList", "Status", "ImgList"],
    *["Seed", "TxtList", "ConsumeApiPoint", "ErrorCode", "ErrorMassage", "ErrorMessage", "MainModels", "LoraModels"],
    *["EmbeddingModels", "HypernetworkModels", "ModelCode", "Name", "IsOfficial", "TriggerWordList", "InferenceParams"],
    *["Steps", "Sampler", "LoraWeight", "TotalCredits", "UsedCredits", "ExpireTimestamp"],
]
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["Finished", "Queuing", "t"])
)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES) | st.text(), inner, max_size=6),
    max_leaves=20,
)


def digest(body: bytes) -> None:
    """Do all that a session does with an answer."""
    document = decode(body, action="A")
    refusal(document, action="A", request_uuid=UUID)
    for query in QUERIES:
        try:
            structure_answer(query, document, Dialect())
        except PicpikError:
            continue
    task_uid(document, action="A")


@given(st.dictionaries(st.sampled_from(NAMES), ANYTHING), st.integers(-2, 2))
def test_any_answer_gives_a_value_or_our_own_error(document: dict[str, Any], ret_code: int) -> None:
    """Whatever JSON the service sends, nothing foreign escapes."""
    try:
        digest(orjson.dumps(document | {"RetCode": ret_code}))
    except PicpikError as error:
        assert str(error).isprintable()  # noqa: PT017 - most examples end here, and not all


@given(st.binary() | values(LEAVES).map(lambda value: json.dumps(value).encode()))
def test_any_bytes_give_a_value_or_our_own_error(body: bytes) -> None:
    """Whatever the service sends, JSON or not, nothing foreign escapes."""
    try:
        digest(body)
    except PicpikError:
        return


@given(st.dictionaries(st.sampled_from(NAMES), ANYTHING))
def test_any_row_is_a_detail_of_its_task(fields: dict[str, Any]) -> None:
    """A row with a legible id never counts as missing, and nothing of it is lost."""
    detail = structure_detail(fields | {"TaskUID": "t"}, statuses_by_word(Dialect()))

    assert ("t", fields | {"TaskUID": "t"}) == (detail.task_uid, detail.raw)
    assert isinstance(detail.status, TaskStatus)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "inner", [b"[" * 1000 + b"]" * 1000, b'{"a":' * 1000 + b"0" + b"}" * 1000, b"9" * 4000, b"1e308"]
)
def test_depth_and_digits_are_harmless(name: str, inner: bytes) -> None:
    """In any field, as deep and as long as the decoder lets through."""
    for body in (
        b'{"RetCode":0,"%b":%b}',
        b'{"RetCode":0,"TaskDetailList":[{"TaskUID":"t","%b":%b}]}',
        b'{"RetCode":0,"MainModels":[{"ModelCode":"t","%b":%b}]}',
    ):
        try:
            digest(body % (name.encode(), inner))
        except PicpikError:
            continue


@given(st.dictionaries(st.sampled_from(NAMES), LEAVES | st.lists(st.text(max_size=3), max_size=2)))
def test_the_short_way_reads_the_same(fields: dict[str, Any]) -> None:
    """A row that is read in one go says what it says field by field."""
    row: dict[str, Any] = fields | {"TaskUID": "t"}
    statuses = statuses_by_word(Dialect())

    plain = plain_detail(row, b"{}", statuses)

    if plain is not None:
        assert plain == odd_detail(row, b"{}", statuses)
