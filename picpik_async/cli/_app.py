"""The commands, as people type them."""

from __future__ import annotations

import asyncio
import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import attrs
from cyclopts import App, CycloptsError, Parameter, validators

from picpik_async import masks
from picpik_async._folder import prepare_folder
from picpik_async._images import ImageSource
from picpik_async._requests import ModifyMaskedPixels
from picpik_async.cli import _demo, _journal, _serve
from picpik_async.cli._batch import run_batch
from picpik_async.cli._jobs import document_of, ended, follow, submit, summary_of
from picpik_async.cli._jobs_file import JobsFile
from picpik_async.cli._options import COMMON, DRAWING, WAITING, Common, Drawing, Waiting, box_of, choice_of
from picpik_async.cli._output import Output
from picpik_async.cli._run import USAGE, attend, run
from picpik_async.errors import InvalidRequestError, legible

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from picpik_async._tasks import Task
    from picpik_async.cli._run import Desk

__all__ = ["dispatch"]

app = App(
    name="picpik",
    help="Inpainting and outpainting with PICPIK. Keys come from PICPIK_PUBLIC_KEY and PICPIK_PRIVATE_KEY.",
    version=lambda: importlib.metadata.version("picpik-async"),
    default_parameter=Parameter(negative=(), show_default=False),
    help_format="plaintext",
    result_action="return_value",
)
task_app = App(name="task", help="Look after a task that was submitted before.")
app.command(task_app)
journal_app = App(name="journal", help="Look after the journal of a batch, or of a session.")
app.command(journal_app)

ExistingFile = Annotated[Path, Parameter(validator=validators.Path(exists=True, dir_okay=False))]
NewFile = Annotated[Path, Parameter(validator=validators.Path(dir_okay=False))]


def dispatch(tokens: Sequence[str]) -> int:
    """Run the command that *tokens* spell, and return its exit code."""
    try:
        code: int | None = app(tokens, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        text = legible(" ".join(str(error).split()).rstrip("."))
        hint = f"see: {' '.join(['picpik', *(error.command_chain or ())])} --help"
        Output(as_json="--json" in tokens).error(type(error).__name__, text, hint=hint)
        return USAGE
    return code or 0


@app.command
def demo(
    *,
    out: Annotated[Path, Parameter(validator=validators.Path(file_okay=False))] = Path("picpik-demo"),
    json: bool = False,
) -> int:
    """Repair and widen a photograph on an emulated service; needs no keys.

    Args:
        out: folder for the pictures, by default picpik-demo.
        json: print one JSON document on standard output, for scripts.
    """
    return run(lambda desk: _demo.show(desk, out), as_json=json, emulator=True)


@app.command
def inpaint(
    image: Path,
    mask: Path | None = None,
    /,
    *,
    box: tuple[str, ...] = (),
    mask_blur: int | None = None,
    invert_mask: bool = False,
    drawing: Drawing = DRAWING,
) -> int:
    """Redraw the white part of a mask, or boxes, in a picture.

    Args:
        image: the picture: PNG, JPEG or WebP.
        mask: black and white, of the picture's size: PNG or WebP; white is redrawn.
        box: LEFT,TOP,RIGHT,BOTTOM in pixels, instead of a mask; may be repeated.
        mask_blur: feathering of the mask's edge in pixels, 0 to 64.
        invert_mask: redraw the black part instead.
        drawing: shared options.
    """

    def build() -> ModifyMaskedPixels:
        if mask is not None and not box:
            source = ImageSource.of(mask, field="masked.mask")
        elif box and mask is None:
            source = masks.from_boxes(image, *map(box_of, box))
        else:
            msg = "give either a MASK or --box LEFT,TOP,RIGHT,BOTTOM, which is redrawn"
            raise InvalidRequestError(msg, field="mask")
        request = ModifyMaskedPixels.inpaint(image, source, **drawing.parameters())
        return request.with_mask(source, mask_blur=mask_blur, invert_mask=invert_mask or None)

    return _draw(build, drawing, job=f"inpaint {image.name}")


@app.command
def outpaint(
    image: Path,
    /,
    *,
    left: int = 0,
    right: int = 0,
    top: int = 0,
    bottom: int = 0,
    drawing: Drawing = DRAWING,
) -> int:
    """Widen a picture; give at least one margin.

    Args:
        image: the picture: PNG, JPEG or WebP.
        left: pixels to add at the left.
        right: pixels to add at the right.
        top: pixels to add above.
        bottom: pixels to add below.
        drawing: shared options.
    """

    def build() -> ModifyMaskedPixels:
        parameters = drawing.parameters()
        return ModifyMaskedPixels.outpaint(image, left=left, right=right, top=top, bottom=bottom, **parameters)

    return _draw(build, drawing, job=f"outpaint {image.name}")


@task_app.command
def show(uid: str, /, *, common: Common = COMMON) -> int:
    """Tell the state of a task, now.

    Args:
        uid: the TaskUID.
        common: shared options.
    """

    async def command(desk: Desk) -> None:
        detail = await desk.picpik.task(uid).detail()
        document = {
            "task_uid": detail.task_uid,
            "status": detail.status.value,
            "status_word": detail.status_word,
            "action": detail.action,
            "pictures": len(detail.image_urls),
            "seed": detail.seed,
            "cost": detail.cost,
            "error_code": detail.error_code,
            "error_message": detail.error_message,
        }
        facts = [f"{name}: {legible(value)}" for name, value in document.items() if value not in {None, ""}]
        desk.output.result(document, facts)

    return run(command, as_json=common.json, emulator=common.emulator)


@task_app.command
def wait(uid: str, /, *, waiting: Waiting = WAITING) -> int:
    """Wait for a task and save its pictures.

    Args:
        uid: the TaskUID.
        waiting: shared options.
    """

    async def command(desk: Desk) -> None:
        task = desk.picpik.task(uid)
        desk.known.add(uid)
        job = f"task {legible(uid)}"
        with desk.progress, ended(desk.progress, job):
            document, files = await _collect(desk, task, waiting, job=job)
        desk.output.result(document, files)  # after the progress, which would write over it

    return run(command, as_json=waiting.json, emulator=waiting.emulator)


@task_app.command
def terminate(uid: str, /, *, common: Common = COMMON) -> int:
    """Stop a task; whether credits come back is not documented.

    Args:
        uid: the TaskUID.
        common: shared options.
    """

    async def command(desk: Desk) -> None:
        await desk.picpik.task(uid).terminate()
        desk.output.result({"task_uid": uid, "status": "terminated"}, [f"task {legible(uid)} terminated"])

    return run(command, as_json=common.json, emulator=common.emulator)


@app.command
def batch(
    jobs: ExistingFile,
    /,
    *,
    journal: NewFile | None = None,
    not_charged_ret_code: tuple[int, ...] = (),
    waiting: Waiting = WAITING,
) -> int:
    """Run a file of jobs; the same command again goes on where it was, and pays for nothing twice.

    A line of the file is a JSON object, such as {"key": "room-1", "image":
    "room.jpg", "mask": "mask.png", "prompts": ["a sofa"]}.

    Instead of a mask: "boxes": [[left, top, right, bottom], ...], or margins to
    add: "left", "right", "top", "bottom". Optional: "key", "negative", "seed",
    "mask_blur", "width", "height", "batch_size", "model". Relative paths start at
    the current folder. Empty lines and those that start with # are skipped. All
    lines are checked before anything is sent, and what is in the pictures when
    their turn comes.

    Args:
        jobs: the file.
        journal: file that keeps what is paid, by default JOBS.journal; with --emulator there is none by default.
        not_charged_ret_code: a RetCode of refusals that were certainly not charged, so that such jobs are sent again; may be repeated.
        waiting: shared options.
    """
    given = JobsFile(jobs)
    total = 0

    def check() -> None:
        nonlocal total
        total = given.check()
        prepare_folder(waiting.out, field="--out")

    if journal is None and not waiting.emulator:  # what an emulator has drawn is not to be taken for the real thing
        journal = jobs.with_name(f"{jobs.name}.journal")
    settings: Any = {"journal": journal, "not_charged": not_charged_ret_code}
    placed = attrs.evolve(waiting, out=waiting.out.absolute())
    return attend(check, Output(as_json=waiting.json)) or run(
        lambda desk: run_batch(desk, given, total=total, waiting=placed, **settings),
        as_json=waiting.json,
        emulator=waiting.emulator,
        **settings,
    )


@journal_app.command(name="show")
def show_journal(file: ExistingFile, /, *, json: bool = False) -> int:
    """Tell what the journal knows of every job, those first that are open; needs no keys.

    Args:
        file: the journal.
        json: print one JSON document on standard output, for scripts.
    """
    output = Output(as_json=json)
    return attend(lambda: asyncio.run(_journal.show(file, output)), output)


@journal_app.command
def recover(file: ExistingFile, /, *, waiting: Waiting = WAITING) -> int:
    """Save the pictures of every job that is paid, and tell which others are open.

    Args:
        file: the journal.
        waiting: shared options.
    """
    return run(
        lambda desk: _journal.recover(desk, file, waiting),
        as_json=waiting.json,
        emulator=waiting.emulator,
        journal=file,
    )


@journal_app.command
def reconcile(
    file: ExistingFile, /, *, adopt: bool = False, adopt_task: tuple[str, ...] = (), common: Common = COMMON
) -> int:
    """Look among the running tasks for those of jobs whose outcome is unknown.

    Args:
        file: the journal.
        adopt: take over the tasks that can only be the job's own.
        adopt_task: KEY=UID, take over this task for the job of that key, which you know to be right; may be repeated.
        common: shared options.
    """
    return run(
        lambda desk: _journal.reconcile(desk, file, adopt=adopt, chosen=tuple(map(choice_of, adopt_task))),
        as_json=common.json,
        emulator=common.emulator,
        journal=file,
    )


@app.command
def balance(*, common: Common = COMMON) -> int:
    """Tell the credits of the account."""

    async def command(desk: Desk) -> None:
        answer = await desk.picpik.balance()
        document = {
            "remaining_credits": answer.remaining_credits,
            "used_credits": answer.used_credits,
            "total_credits": answer.total_credits,
            "expire_timestamp": answer.expire_timestamp,
        }
        line = f"{answer.remaining_credits} of {answer.total_credits} credits left, {answer.used_credits} used"
        desk.output.result(document, [line])

    return run(command, as_json=common.json, emulator=common.emulator)


@app.command
def emulator(
    *,
    port: Annotated[int, Parameter(validator=validators.Number(gte=0, lte=65535))] = 8080,
    fault: tuple[str, ...] = (),
    seed: int = 0,
    ledger: NewFile | None = None,
) -> int:
    """Serve an emulated PICPIK on this machine until Ctrl-C, and print the settings that lead to it.

    What --fault can let go wrong, beside HTTP statuses from 400 to 599:

    submits, which are not taken: reset, hang, garbage, html, no-credits;
    submits, taken and charged: lose-answer, truncate, drip, taken-hang,
    taken-garbage, taken-html, taken-400 to taken-599;
    polls: vanish, poison, missing-row, unknown-word;
    downloads: wrong-bytes, redirect;
    with poll. or download. before it: reset, hang, garbage, html, truncate,
    drip, 400 to 599.

    Args:
        port: TCP port, by default 8080; 0 chooses a free one.
        fault: [ON.]NAME[@AFTER][:SHARE][xCOUNT], such as lose-answer:0.05 (one in twenty), reset@1000x3 (after 1000 bytes, thrice) or poll.503@5 (come again after 5 s); may be repeated.
        seed: another one lets faults strike other requests.
        ledger: file for a line of JSON per charge, written before the submit is answered.
    """
    return _serve.serve(port=port, faults=fault, seed=seed, ledger_file=ledger)


def _draw(build: Callable[[], ModifyMaskedPixels], drawing: Drawing, *, job: str) -> int:
    def check() -> None:
        if not drawing.detach:
            prepare_folder(drawing.out, field="--out")

    async def command(desk: Desk) -> None:
        if drawing.detach and drawing.emulator:
            msg = "--detach needs a service that outlives this command; run picpik emulator in another terminal"
            raise InvalidRequestError(msg, field="detach")
        request = build()
        with desk.progress, ended(desk.progress, job):
            task = await submit(desk, request, job=job)
            if drawing.detach:
                desk.progress.tell(job, "submitted", last=True)
                document: dict[str, Any] = {"task_uid": task.uid, "status": "submitted"}
                lines: list[Any] = [task.uid]
            else:
                document, lines = await _collect(desk, task, drawing, job=job)
        desk.output.result(document, lines)

    return attend(check, Output(as_json=drawing.json)) or run(command, as_json=drawing.json, emulator=drawing.emulator)


async def _collect(desk: Desk, task: Task, waiting: Waiting, *, job: str) -> tuple[dict[str, Any], list[Path]]:
    result = await follow(desk, task, job=job, timeout=waiting.timeout)
    desk.progress.tell(job, "saving")
    files = await result.save(waiting.out)
    desk.progress.tell(job, summary_of(result, files), last=True)
    return document_of(result, files), files
