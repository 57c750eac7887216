"""Builders to ordered parameters, and answers to frozen types; wire names live here and nowhere else. No I/O.

The rules of the wire:

- snake_case becomes the API's CamelCase, with the exceptions in `_NAMES`; a parameter that is None is not sent;
- an image at an `…Index` position becomes its number in the Action's image list, each image once; an image at any other
  position stays, to be encoded by `_body`;
- an answer is decoded strictly where a wrong value would change what we do, and leniently elsewhere: what does not fit
  becomes None, stays in `raw`, and is logged once per field and type, since a row comes again with every poll.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import attrs
import cattrs
import orjson
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from picpik_async._details import statuses_by_word, structure_detail
from picpik_async._fields import exactly, field, fits, strings
from picpik_async._images import ImageSource
from picpik_async._requests import (
    GetCreditBalance,
    Job,
    ListModels,
    ListRunningTasks,
    ListTasksDetails,
    Query,
    Request,
    TerminateTask,
)
from picpik_async._types import CreditBalance, Image2Image, InferenceParams, Mask, Model, Models, fits_params
from picpik_async.errors import ApiError, InvalidRequestError, MalformedAnswerError, legible

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from picpik_async._config import Dialect
    from picpik_async._tasks import TaskDetail

__all__ = ["decode", "parameters", "refusal", "structure_answer", "task_uid"]

AnswerT = TypeVar("AnswerT")
_logger = logging.getLogger("picpik_async")

_MAX_UID_LENGTH: Final = 256
_SIGNATURE: Final = re.compile(r"(?<![0-9A-Fa-f])[0-9A-Fa-f]{40}(?![0-9A-Fa-f])")

_NAMES: Final = {
    "cfg_scale": "CFGScale",
    "image2image": "Image2Image",
    "task_uid": "TaskUID",
    "task_uid_list": "TaskUIDList",
    "use_main_model_vae": "UseMainModelVAE",
}
_UNSENT: Final = {"_kin", "auto_size"}
_INDEX_NAMES: Final = {"image": "ImageIndex", "mask": "MaskIndex"}


def _api_name(field: str) -> str:
    return _NAMES.get(field) or "".join(word.capitalize() for word in field.split("_"))


# --- requests ---------------------------------------------------------------------------------------------------------


def parameters(request: Request, *, dialect: Dialect, public_key: str, request_uuid: str) -> dict[str, Any]:
    """All parameters of *request* but the signature, by the API's names; leaves may be `ImageSource`s."""
    body: dict[str, Any] = _converter().unstructure(request)
    if isinstance(request, Job):
        body.setdefault("MainModel", {"ModelCode": dialect.default_model})
        images: dict[Hashable, tuple[int, ImageSource]] = {}
        try:
            body = _numbered(body, "", images)
        except RecursionError:
            msg = "parameters are nested too deeply"
            raise InvalidRequestError(msg, allowed="a flatter map") from None
        body[request.image_list] = [image for _, image in images.values()]
    return body | {"Action": request.action, "PublicKey": public_key, "request_uuid": request_uuid}


def _numbered(node: Any, name: str, images: dict[Hashable, tuple[int, ImageSource]]) -> Any:
    """*node* with numbers for the images at `…Index` names; a new one, since parts of it are the user's own."""
    if isinstance(node, Mapping):
        return {key: _numbered(value, key, images) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [_numbered(item, name, images) for item in node]
    if isinstance(node, ImageSource) and str(name).endswith("Index"):
        return images.setdefault(node.key, (len(images), node))[0]
    return node


@functools.cache
def _converter() -> cattrs.Converter:
    """The converter of requests: API names, None omitted, images left as they are."""
    converter = cattrs.Converter()

    def is_ours(cls: Any) -> bool:
        return attrs.has(cls) and (issubclass(cls, Request) or cls in {Image2Image, Mask, Model})

    def unstructure_hook(cls: Any) -> Callable[[Any], dict[str, Any]]:
        names = _INDEX_NAMES if cls in {Image2Image, Mask} else {}
        renamed = {
            field.name: override(rename=names.get(field.name) or _api_name(field.name)) for field in attrs.fields(cls)
        }
        renamed |= {name: override(omit=True) for name in _UNSENT & renamed.keys()}
        return make_dict_unstructure_fn(cls, converter, _cattrs_omit_if_default=True, **renamed)  # type: ignore[arg-type]

    converter.register_unstructure_hook_factory(is_ours, unstructure_hook)
    converter.register_unstructure_hook(ImageSource, lambda source: source)
    converter.register_unstructure_hook(InferenceParams, _unstructure_params)
    return converter


def _unstructure_params(params: InferenceParams) -> dict[str, Any]:
    known = {name: getattr(params, field) for name, field in InferenceParams.API_NAMES.items()}
    return {name: value for name, value in known.items() if value is not None} | dict(params.extra)


# --- answers ----------------------------------------------------------------------------------------------------------


def decode(body: bytes, *, action: str) -> dict[str, Any]:
    """An answer's body as a JSON object.

    Raises:
        MalformedAnswerError: it is not JSON, not an object, or has no `RetCode`.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        msg = f"{action}: the answer is not JSON ({len(body)} bytes); is the endpoint right, or a proxy in between?"
        raise MalformedAnswerError(msg) from None
    if not isinstance(document, dict):
        msg = f"{action}: the answer is a JSON {type(document).__name__}, not an object"
        raise MalformedAnswerError(msg)
    if type(document.get("RetCode")) is not int:
        msg = f"{action}: the answer's RetCode is missing or not an integer"
        raise MalformedAnswerError(msg, task_uid=_uid_of(document))
    return document


def _uid_of(document: Mapping[str, Any]) -> str | None:
    """The task an answer names; one that cannot be believed otherwise may still name one that is paid for."""
    uid = document.get("TaskUID")
    return uid if is_uid(uid) else None


def refusal(document: Mapping[str, Any], *, action: str, request_uuid: str) -> ApiError | None:
    """The error that a non-zero `RetCode` stands for; None if the service agreed."""
    for name, sent in (("Action", action), ("request_uuid", request_uuid)):
        if (echo := document.get(name)) not in (None, sent):
            # The published examples echo another Action and another uuid themselves.
            _logger.debug("%s: the answer echoes another %s: %s", action, name, legible(_words(echo), limit=80))
    ret_code = document["RetCode"]
    if ret_code == 0:
        return None
    message = legible(_words(document.get("Message")))
    return ApiError(
        f"{action}: the service refused with RetCode {ret_code}: {message or '(no message)'}",
        ret_code=ret_code,
        action=action,
        message=message,
        request_uuid=request_uuid,
        task_uid=_uid_of(document),
    )


def _words(value: Any) -> str:
    """A server's text, without signatures it may quote; another type is only named, since writing out a deep one may fail."""
    if value is None or isinstance(value, str):
        return _SIGNATURE.sub("(signature)", value or "")
    return f"({type(value).__name__})"


def is_uid(value: Any) -> bool:
    """Whether *value* can name a task; the form of a `TaskUID` is not documented."""
    return isinstance(value, str) and 0 < len(value) <= _MAX_UID_LENGTH and value.isprintable()


def task_uid(document: Mapping[str, Any], *, action: str) -> str:
    """The `TaskUID` of a submit's answer.

    Raises:
        MalformedAnswerError: there is no usable one.
    """
    uid = _uid_of(document)
    if uid is None:
        msg = f"{action}: the service agreed, but its answer has no usable TaskUID"
        raise MalformedAnswerError(msg)
    return uid


def structure_answer(query: Query[AnswerT], document: Mapping[str, Any], dialect: Dialect) -> AnswerT:
    """The typed answer of *query*.

    Raises:
        MalformedAnswerError: a part we rely on is missing or has the wrong type.
    """
    return cast("AnswerT", _STRUCTURES[type(query)](document, dialect))


def _rows(document: Mapping[str, Any], name: str, *, action: str) -> list[Any]:
    rows = document.get(name)
    if rows is None:
        return []
    if isinstance(rows, list):
        return rows
    msg = f"{action}: {name} is not a list"
    raise MalformedAnswerError(msg)


def _structure_details(document: Mapping[str, Any], dialect: Dialect) -> tuple[TaskDetail, ...]:
    rows = _rows(document, "TaskDetailList", action=ListTasksDetails.action)
    statuses = statuses_by_word(dialect)
    return tuple(
        structure_detail(row, statuses) for row in rows if isinstance(row, dict) and is_uid(row.get("TaskUID"))
    )


def _structure_running(document: Mapping[str, Any], _dialect: Dialect) -> tuple[str, ...]:
    rows = _rows(document, "TaskUIDList", action=ListRunningTasks.action)
    return tuple(uid for uid in rows if is_uid(uid))


def _structure_models(document: Mapping[str, Any], _dialect: Dialect) -> Models:
    kinds = {field.name: document.get(_api_name(field.name)) for field in attrs.fields(Models)}
    if kinds["main_models"] is None:
        msg = f"{ListModels.action}: the answer has no MainModels"
        raise MalformedAnswerError(msg)
    return Models(**{name: _structure_model_map(models) for name, models in kinds.items()})


def _structure_model_map(models: Any) -> dict[str, Model]:
    """`Map[String]Model`, which the vendor's pages show as an object here and as an array there."""
    if models is None:
        return {}
    if not isinstance(models, (dict, list)):
        msg = f"{ListModels.action}: a map of models is neither an object nor an array"
        raise MalformedAnswerError(msg)
    found = {}
    for key, entry in models.items() if isinstance(models, dict) else enumerate(models):
        try:
            model = _answers().structure(entry, Model)
        except (cattrs.BaseValidationError, TypeError):
            _logger.warning("%s: skipped model %s, which does not fit", ListModels.action, legible(key, limit=80))
        else:
            found[key if isinstance(key, str) else model.model_code] = model
    return found


def _structure_balance(document: Mapping[str, Any], _dialect: Dialect) -> CreditBalance:
    try:
        return _answers().structure(document, CreditBalance)
    except cattrs.BaseValidationError:
        msg = f"{GetCreditBalance.action}: TotalCredits or UsedCredits is missing or not an integer"
        raise MalformedAnswerError(msg) from None


_STRUCTURES: Final[dict[type[Query[Any]], Callable[[Mapping[str, Any], Dialect], Any]]] = {
    ListTasksDetails: _structure_details,
    ListRunningTasks: _structure_running,
    TerminateTask: lambda _document, _dialect: None,
    ListModels: _structure_models,
    GetCreditBalance: _structure_balance,
}


def _lenient_params(value: Any, _type: Any) -> InferenceParams | None:
    """Server-given parameters are passed back as they came: what the ranges here refuse or warn about stays in `extra`."""
    if not isinstance(value, dict):
        return None
    names = InferenceParams.API_NAMES
    known = {names[name]: item for name, item in value.items() if name in names and fits_params(names[name], item)}
    return InferenceParams(**known, extra={name: item for name, item in value.items() if names.get(name) not in known})


@functools.cache
def _answers() -> cattrs.Converter:
    """The converter of answers: exact types, the API's names, one forgiving hook per field that only informs."""
    converter = cattrs.Converter(detailed_validation=True)
    for kind, new_hook in ((Model, _model_hook), (CreditBalance, _balance_hook)):
        converter.register_structure_hook(kind, new_hook(converter))
    return converter


def _model_hook(converter: cattrs.Converter) -> Callable[[dict[str, Any], Any], Model]:
    return make_dict_structure_fn(
        Model,
        converter,
        model_code=fits("ModelCode", exactly(str)),
        name=field("Name", exactly(str)),
        is_official=field("IsOfficial", exactly(bool)),
        trigger_word_list=field("TriggerWordList", strings),
        inference_params=fits("InferenceParams", _lenient_params),
    )


def _balance_hook(converter: cattrs.Converter) -> Callable[[dict[str, Any], Any], CreditBalance]:
    return make_dict_structure_fn(
        CreditBalance,
        converter,
        total_credits=fits("TotalCredits", exactly(int)),
        used_credits=fits("UsedCredits", exactly(int)),
        expire_timestamp=field("ExpireTimestamp", exactly(int)),
    )
