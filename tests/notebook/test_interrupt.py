"""The stop button, in a real kernel: nothing is left, and what still has a name goes on where it was."""

import sys

import pytest

from .conftest import Notebook

BARE = "async for b in dnc.stream(CID, **options): print('batch', flush=True)"
WAITING = "async for b in dnc.stream(CID, **options):\n    print('batch', flush=True)\n    await asyncio.sleep(0.01)"
IN_FUNCTION = """
async def train():
    batches = dnc.stream(CID, **options)
    async for b in batches:
        print('batch', flush=True)
await train()
"""
STEP = "async for b in dnc.stream(CID, **options):\n    print('batch', flush=True)\n    time.sleep(0.2)"
BLOCKING = "for b in sync.stream(CID, **options): print('batch', flush=True)"
BLOCKING_IN_FUNCTION = """
def train():
    batches = sync.stream(CID, **options)
    for b in batches: print('batch', flush=True)
train()
"""
PROCESS = "async for b in dnc.stream(CID, engine='process', **options): print('batch', flush=True)"
TASK = """
import asyncio
async def train():
    batches = dnc.stream(CID, **options)
    while True:
        await asyncio.wait_for(anext(batches), 600)
        print('batch', flush=True)
await train()
"""
STEP_IN_FUNCTION = """
import asyncio
async def train():
    batches = dnc.stream(CID, **options)
    async for b in batches:
        print('batch', flush=True)
        while True: await asyncio.sleep(0.01)
await train()
"""
BLOCKING_STEP = """
def rows():
    for b in sync.stream(CID, **options): yield b
def train():
    batches = rows()
    for b in batches:
        print('batch', flush=True)
        while True: time.sleep(0.01)
train()
"""
CODE = {
    "bare": BARE,
    "in a function": IN_FUNCTION,
    "step": STEP,
    "step in a function": STEP_IN_FUNCTION,
    "blocking": BLOCKING,
    "blocking in a function": BLOCKING_IN_FUNCTION,
    "blocking step": BLOCKING_STEP,
    "process": PROCESS,
}
if sys.version_info >= (3, 12):  # before, wait_for may lose an interrupt that comes with the batch
    CODE["wait_for"] = TASK


@pytest.mark.parametrize("code", CODE.values(), ids=CODE)
def test_interrupted_and_run_again(notebook: Notebook, code: str) -> None:
    """Interrupted and run again, three times: no thread, file or process is left of any of them."""
    for _ in range(3):
        cell = notebook.run(code, interrupt_after="batch")
        assert cell.error in ("KeyboardInterrupt", "CancelledError")
    assert notebook.left() == []


@pytest.mark.parametrize("kind", ["async", "blocking"])
def test_a_named_stream_goes_on(notebook: Notebook, kind: str) -> None:
    """One that has a name frees everything as well, and goes on with the batch that comes next."""
    loop = "async for b in batches" if kind == "async" else "for b in batches"
    make = "dnc.stream" if kind == "async" else "sync.stream"
    notebook.run(f"batches = {make}(CID, **options); seen = []")
    for _ in range(2):
        notebook.run(
            f"{loop}:\n    seen.append(int(b['x'][0, 0]) // 20_000)\n    print('batch', flush=True)",
            interrupt_after="batch",
        )
        assert notebook.left() == []
    assert "suspended" in notebook.value("repr(batches)") if kind == "async" else True
    seen = notebook.value("seen")
    assert seen == list(range(len(seen)))
    assert len(seen) >= 2
    notebook.run("await batches.aclose()" if kind == "async" else "batches.close()")
    assert notebook.left() == []


def test_download_next_goes_on(notebook: Notebook) -> None:
    """The blocking pair of calls, too."""
    notebook.run("first = int(sync.download_first(CID, **options)['x'][0, 0])")
    notebook.run("while True:\n    sync.download_next()\n    print('batch', flush=True)", interrupt_after="batch")
    assert notebook.left() == []
    assert notebook.value("int(sync.download_next()['x'][0, 0]) > first")


@pytest.mark.parametrize("make", ["dnc.stream", "sync.stream"])
def test_a_cell_that_fails(notebook: Notebook, make: str) -> None:
    """An error in the step, in a function whose frames IPython keeps: nothing is left."""
    word = "async " if make == "dnc.stream" else ""
    code = f"""
{word}def train():
    batches = {make}(CID, **options)
    {word}for b in batches: 1 / 0
{"await " if word else ""}train()
"""
    for _ in range(2):
        assert notebook.run(code).error == "ZeroDivisionError"
    assert notebook.left() == []


def test_a_background_task_goes_on(notebook: Notebook) -> None:
    """Another cell that fails, or is interrupted, is none of its business."""
    notebook.run(
        "import asyncio\nbatches, seen = dnc.stream(CID, **options), []\n"
        "async def train():\n    async for b in batches:\n        seen.append(b)\n        await asyncio.sleep(0)\n"
        "task = asyncio.create_task(train())\nwhile not seen: await asyncio.sleep(0.01)"
    )
    assert notebook.run("1 / 0").error == "ZeroDivisionError"
    assert notebook.run("print('now', flush=True)\nwhile True: await asyncio.sleep(0.01)", interrupt_after="now").error
    assert "streaming" in notebook.value("repr(batches)")
    notebook.run("before = len(seen)\nwhile len(seen) < before + 2: await asyncio.sleep(0.01)")
    assert notebook.value("[int(b['x'][0, 0]) // 20_000 for b in seen] == list(range(len(seen)))")
    notebook.run("task.cancel()")
    assert notebook.left() == []
