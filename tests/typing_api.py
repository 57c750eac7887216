"""The public API as type checkers see it: checked by mypy and pyright, never run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_type

import numpy as np
from PIL import Image

from picpik_async import (
    Credentials,
    CreditBalance,
    Dialect,
    Endpoint,
    Eta,
    GetCreditBalance,
    Image2Image,
    ImageSource,
    InferenceParams,
    JobState,
    JournalEntry,
    Limits,
    ListModels,
    ListRunningTasks,
    ListTasksDetails,
    Mask,
    Model,
    Models,
    ModifyMaskedPixels,
    PicpikError,
    PicpikSession,
    PollPolicy,
    ResultImage,
    RetryPolicy,
    Task,
    TaskDetail,
    TaskResult,
    TaskStatus,
    TerminateTask,
    errors,
    masks,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Upload:
    """What web frameworks hand over."""

    async def read(self, size: int = -1) -> bytes:
        """Some bytes."""
        return bytes(size)


async def stream() -> AsyncIterator[bytes]:
    """A stream of bytes."""
    yield b""


def pictures() -> None:
    """Every kind of input is taken wherever a picture stands."""
    for picture in (
        "room.jpg",
        Path("room.jpg"),
        b"data",
        bytearray(b"data"),
        memoryview(b"data"),
        io.BytesIO(b"data"),
        Image.new("RGB", (8, 8)),
        np.zeros((8, 8, 3), np.uint8),
        Upload(),
        stream(),
        ImageSource.of("room.jpg"),
    ):
        assert_type(ImageSource.of(picture), ImageSource)
        assert_type(ModifyMaskedPixels.inpaint(picture, picture), ModifyMaskedPixels)
        assert_type(ModifyMaskedPixels.outpaint(picture, left=8), ModifyMaskedPixels)
        assert_type(ModifyMaskedPixels().with_mask(picture, image=picture, mask_blur=3), ModifyMaskedPixels)
        assert_type(ModifyMaskedPixels().with_reference(picture), ModifyMaskedPixels)
        assert_type(Mask(image=picture, mask=picture).image, ImageSource | None)
        assert_type(Image2Image(image=picture).image, ImageSource | None)


def builders() -> ModifyMaskedPixels:
    """Each method gives the same kind of request back; fields have their types."""
    request = (
        ModifyMaskedPixels.inpaint("room.jpg", mask="sofa.png", prompts=["a green velvet sofa"], seed=7)
        .with_prompts("a green velvet sofa", negative="text, watermark")
        .with_prompts("a sofa", "a cat", negative=["text"])
        .with_model("PICPIK General")
        .with_model(Model("PICPIK General", inference_params={"Steps": 10}))
        .with_lora("lora", 0.29)
        .with_sub_model("embedding")
        .with_sub_model(Model("lora", inference_params=InferenceParams(lora_weight=1)))
        .with_size(1024, 768)
        .with_seed(7)
        .with_batch(2)
        .with_mask(masks.from_boxes("room.jpg", (0, 0, 8, 8)))
        .with_reference("green.jpg", refer_strength=0.3)
    )
    assert_type(request, ModifyMaskedPixels)
    assert_type(request.seed, int | None)
    assert_type(request.positive_prompts, tuple[str, ...] | None)
    assert_type(request.main_model, Model | None)
    assert_type(request.sub_model_list, tuple[Model, ...] | None)
    assert_type(request.masked, Mask | None)
    return request


def plain_constructor() -> None:
    """Codes stand for models, one string for a list of prompts, mappings for parameters."""
    request = ModifyMaskedPixels(
        main_model="PICPIK General",
        sub_model_list=["lora", Model("other", trigger_word_list=["sks"])],
        positive_prompts="a sofa",
        negative_prompts=["text", "watermark"],
        translate_prompts=True,
        seed=-1,
        width=1024,
        height=1024,
        batch_size=1,
        use_main_model_vae=False,
        masked=Mask(image="room.jpg", mask=b"mask", refer_strength=1.5, mask_blur=12, invert_mask=False),
        image2image=Image2Image(image="green.jpg", refer_strength=0.5),
    )
    assert_type(request, ModifyMaskedPixels)
    params = InferenceParams(steps=10, sampler="Euler", cfg_scale=7.5, extra={"Eta": 0.1})
    assert_type(params.steps, int | None)
    assert_type(InferenceParams.of({"Steps": 10}), InferenceParams)
    assert_type(Model("m", inference_params=params).inference_params, InferenceParams | None)


def wrong_types() -> None:
    """What would be refused at run time is refused by type checkers, too."""
    Model()  # type: ignore[call-arg]
    Model(5)  # type: ignore[arg-type]
    Mask("room.jpg")  # type: ignore[call-arg]
    InferenceParams(steps="10")  # type: ignore[arg-type]
    ModifyMaskedPixels(seed="7")  # type: ignore[arg-type]
    ModifyMaskedPixels(masked="room.jpg")  # type: ignore[arg-type]
    ModifyMaskedPixels(positive_prompts=5)  # type: ignore[arg-type]
    ModifyMaskedPixels(main_model=5)  # type: ignore[arg-type]
    ModifyMaskedPixels().with_prompts(5)  # type: ignore[arg-type]
    TerminateTask()  # type: ignore[call-arg]
    Credentials("public")  # type: ignore[call-arg]


async def session() -> None:
    """The README's path, from keys to saved pictures."""
    async with PicpikSession() as picpik:
        assert_type(picpik, PicpikSession)
        result = await picpik.run(builders(), timeout=300)
        assert_type(result, TaskResult)
        assert_type(await result.save("out/"), list[Path])
        assert_type(await result.show(), None)
        assert_type(result.images, tuple[ResultImage, ...])
        assert_type(result.texts, tuple[str, ...])
        assert_type(result.seed, int | None)
        assert_type(result.cost, int | None)
        for image in result.images:
            assert_type(image.url, str)
            assert_type(await image.read(), bytes)
            assert_type(await image.save(Path("out")), Path)
            assert_type(await image.pil(), Image.Image)

        assert_type(await picpik.run(builders(), timeout=None, request_uuid="u"), TaskResult)
        task = await picpik.submit(builders())
        assert_type(task, Task)
        assert_type(picpik.task(task.uid), Task)
        assert_type(picpik.tasks, tuple[Task, ...])
        assert_type(await task, TaskResult)
        assert_type(await task.wait(timeout=5), TaskResult)
        assert_type(await task.detail(), TaskDetail)
        assert_type(task.eta(), Eta | None)
        assert_type(await task.terminate(), None)
        async for detail in task.updates(timeout=None):
            assert_type(detail.status, TaskStatus)
            assert_type(detail.image_urls, tuple[str, ...])
            assert_type(detail.error_code, int | None)
            assert_type(detail.raw, dict[str, Any])


async def queries(picpik: PicpikSession) -> None:
    """Each query gives its own kind of answer."""
    assert_type(await picpik.call(ListTasksDetails(task_uid_list=["a", "b"])), tuple[TaskDetail, ...])
    assert_type(await picpik.call(ListTasksDetails(task_uid_list="a")), tuple[TaskDetail, ...])
    assert_type(await picpik.call(ListRunningTasks()), tuple[str, ...])
    assert_type(await picpik.call(TerminateTask(task_uid="a")), None)
    assert_type(await picpik.call(ListModels()), Models)
    assert_type(await picpik.call(GetCreditBalance()), CreditBalance)
    models = await picpik.models()
    assert_type(models.main_models, dict[str, Model])
    assert_type(builders().with_model(models.main_models["PICPIK General"]), ModifyMaskedPixels)
    assert_type(await picpik.running_tasks(), tuple[Task, ...])
    assert_type((await picpik.balance()).remaining_credits, int)


async def configured() -> PicpikSession:
    """Every setting has its place, and an address will do for an endpoint."""
    keys = Credentials("public", "private")
    assert_type(Credentials.from_env(), Credentials)
    assert_type(Endpoint.INTERNATIONAL, Endpoint)
    PicpikSession(endpoint="https://api.picpik.ai")
    PicpikSession(keys, endpoint=Endpoint("http://10.0.0.1", allow_insecure_http=True))
    return PicpikSession(
        keys,
        endpoint=Endpoint.CHINA,
        dialect=Dialect(data_uri=False, finished_words=frozenset({"Finished", "Done"})),
        poll=PollPolicy(timeout=None, tick=0.5),
        retry=RetryPolicy(attempts=3),
        limits=Limits(uploads=8, threads=2),
    )


def journalled(entry: JournalEntry) -> None:
    """What the journal tells of a job."""
    assert_type(entry.state, JobState)
    assert_type(entry.state.open, bool)
    assert_type(entry.files, tuple[Path, ...])
    assert_type(entry.task_uid, str | None)
    assert_type(entry.moved(JobState.DONE, files=(Path("a.png"),)), JournalEntry)


async def mistakes(picpik: PicpikSession) -> None:
    """Every error is below one root, and carries its data."""
    try:
        await picpik.run(builders())
    except errors.InvalidRequestError as error:
        assert_type(error.field, str | None)
        assert_type(error.allowed, str | None)
    except errors.SubmitOutcomeUnknownError as error:
        assert_type(error.request_uuid, str | None)
        assert_type(error.reason, str | None)
    except errors.ApiError as error:
        assert_type(error.ret_code, int)
    except errors.HttpStatusError as error:
        assert_type(error.retry_after, float | None)
    except errors.TaskError as error:
        assert_type(error.detail, TaskDetail | None)
    except PicpikError as error:
        assert_type(error.task_uid, str | None)


async def making_masks() -> None:
    """Masks are sources, made from any picture."""
    assert_type(masks.from_boxes("room.jpg", (0, 0, 8, 8), (8, 8, 16, 16)), ImageSource)
    assert_type(masks.from_alpha(b"data"), ImageSource)
    assert_type(masks.threshold("grey.png", level=100), ImageSource)
    assert_type(masks.invert("mask.png"), ImageSource)
    assert_type(masks.fit("mask.png", "room.jpg"), ImageSource)
    assert_type(masks.outpaint("room.jpg", left=64), tuple[ImageSource, ImageSource])
    assert_type(await masks.check("mask.png", "room.jpg"), None)
