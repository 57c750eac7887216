"""Status requests as the schedule plans them, and the halves of one that was refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from picpik_async._watched import Watched

__all__ = ["Ask", "Pair"]


class Ask:
    """The tasks of one status request.

    Attributes:
        tasks: what it asks about.
        answers: count of good answers when it was made.
        pair: the bisection it is a half of.
        sent: the tick at which it left.
    """

    __slots__ = ("answers", "pair", "sent", "tasks")

    def __init__(self, tasks: list[Watched], *, answers: int, pair: Pair | None = None) -> None:
        self.tasks = tasks
        self.answers = answers
        self.pair = pair
        self.sent = 0


class Pair:
    """Two halves of a refused list, judged when both have their verdict; *answers* is that of the list."""

    __slots__ = ("answers", "refused", "undecided")

    def __init__(self, answers: int) -> None:
        self.answers = answers
        self.undecided = 2
        self.refused: list[Ask] = []
