"""The Actions that only ask, and the one that stops a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import attrs

from picpik_async._ranges import one_text, refused, to_texts
from picpik_async._requests._base import Query
from picpik_async._tasks import TaskDetail
from picpik_async._types import CreditBalance, Models

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["GetCreditBalance", "ListModels", "ListRunningTasks", "ListTasksDetails", "TerminateTask"]


def _to_uid(value: str) -> str:
    uid = one_text(value, "task_uid")
    if not uid.isprintable():
        raise refused(field="task_uid", value=uid, allowed="printable text, as the service gave it")
    return uid


def _to_uids(values: str | Iterable[str]) -> tuple[str, ...]:
    return to_texts(values, "task_uid_list")


@attrs.frozen(kw_only=True)
class ListTasksDetails(Query[tuple[TaskDetail, ...]]):
    """The state of tasks; ids the service does not know are missing from the answer.

    See https://picpik.ai/api-docs/api-reference/ListTasksDetails.

    Attributes:
        task_uid_list: ids of tasks; no maximum is documented.
    """

    action: ClassVar[str] = "ListTasksDetails"
    task_uid_list: tuple[str, ...] = attrs.field(converter=_to_uids)


@attrs.frozen(kw_only=True)
class ListRunningTasks(Query[tuple[str, ...]]):
    """Ids of running tasks; whether queued ones count is not documented.

    See https://picpik.ai/api-docs/api-reference/ListRunningTasks.
    """

    action: ClassVar[str] = "ListRunningTasks"


@attrs.frozen(kw_only=True)
class TerminateTask(Query[None]):
    """Stop one task; whether credits come back is not documented.

    See https://picpik.ai/api-docs/api-reference/TerminateTask.

    Attributes:
        task_uid: the id of the task.
    """

    action: ClassVar[str] = "TerminateTask"
    task_uid: str = attrs.field(converter=_to_uid)


@attrs.frozen(kw_only=True)
class ListModels(Query[Models]):
    """The models of the account.

    See https://picpik.ai/api-docs/api-reference/ListModels.
    """

    action: ClassVar[str] = "ListModels"


@attrs.frozen(kw_only=True)
class GetCreditBalance(Query[CreditBalance]):
    """The credits of the account.

    See https://picpik.ai/api-docs/api-reference/GetCreditBalance.
    """

    action: ClassVar[str] = "GetCreditBalance"
