"""The builders: one frozen class per Action, no I/O."""

from picpik_async._requests._base import Job, Query, Request
from picpik_async._requests._generation import GenerationJob, ModifyMaskedPixels
from picpik_async._requests._queries import (
    GetCreditBalance,
    ListModels,
    ListRunningTasks,
    ListTasksDetails,
    TerminateTask,
)

__all__ = [
    "GenerationJob",
    "GetCreditBalance",
    "Job",
    "ListModels",
    "ListRunningTasks",
    "ListTasksDetails",
    "ModifyMaskedPixels",
    "Query",
    "Request",
    "TerminateTask",
]
