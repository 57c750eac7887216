"""The async-first SDK for PICPIK: one `await` from an image and a mask to finished pictures.

```text
path, bytes, …                                                              TaskResult, ResultImage
     │                                                                            ▲
 _images ─► _requests ─► _wire ─► _signature/_body ─► _transport ─► _wire ─► _poller ─► _results/_downloads
  open      frozen       order     one-pass bytes        HTTP       decode    wait
                        └──────────────────── _session joins these ──────────┘
```
"""

import logging

from picpik_async import errors, masks
from picpik_async._config import Credentials, Dialect, Endpoint, Limits, PollPolicy, RetryPolicy
from picpik_async._durations import Eta
from picpik_async._entries import JobState, JournalEntry
from picpik_async._images import ImageSource
from picpik_async._inputs import ImageInput
from picpik_async._map import Outcomes
from picpik_async._outcomes import Outcome, Progress
from picpik_async._recovery import Proposal
from picpik_async._requests import (
    GetCreditBalance,
    ListModels,
    ListRunningTasks,
    ListTasksDetails,
    ModifyMaskedPixels,
    TerminateTask,
)
from picpik_async._results import ResultImage, TaskResult
from picpik_async._session import PicpikSession
from picpik_async._tasks import Task, TaskDetail, TaskStatus
from picpik_async._types import CreditBalance, Image2Image, InferenceParams, Mask, Model, Models
from picpik_async.errors import PicpikError

__all__ = [
    "Credentials",
    "CreditBalance",
    "Dialect",
    "Endpoint",
    "Eta",
    "GetCreditBalance",
    "Image2Image",
    "ImageInput",
    "ImageSource",
    "InferenceParams",
    "JobState",
    "JournalEntry",
    "Limits",
    "ListModels",
    "ListRunningTasks",
    "ListTasksDetails",
    "Mask",
    "Model",
    "Models",
    "ModifyMaskedPixels",
    "Outcome",
    "Outcomes",
    "PicpikError",
    "PicpikSession",
    "PollPolicy",
    "Progress",
    "Proposal",
    "ResultImage",
    "RetryPolicy",
    "Task",
    "TaskDetail",
    "TaskResult",
    "TaskStatus",
    "TerminateTask",
    "errors",
    "masks",
]

logging.getLogger("picpik_async").addHandler(logging.NullHandler())  # quiet unless the application sets up logging
