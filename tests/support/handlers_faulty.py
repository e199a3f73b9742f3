"""Handlers that misbehave, each kind of fault in each kind of handler; with all of `handlers.py` beside them."""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from handlers import note

from consumers import Task, handler


class Own(BaseException):
    """No `Exception`."""


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even its message can be had")


def no_json(task: Task) -> Any:
    return object()


def no_number(task: Task) -> Any:
    return {"mean": [None, float("nan")]}


def state_no_number(task: Task) -> None:
    task.set_state({"mean": float("-inf")})


def holds_itself(task: Task) -> Any:
    value: list[Any] = []
    value.append(value)
    return value


def half_a_character(task: Task) -> Any:
    return {"text": "\ud800"}


def base_exception(task: Task) -> None:
    raise Own("no exception of the usual kind")


def leave(task: Task) -> None:
    sys.exit(3)


def interrupt(task: Task) -> None:
    raise KeyboardInterrupt


def generator_exit(task: Task) -> None:
    raise GeneratorExit


def cancelled(task: Task) -> None:
    raise asyncio.CancelledError


def unprintable(task: Task) -> None:
    raise Unprintable


def state_no_json(task: Task) -> None:
    task.set_state({"now": object()})


def state_too_large(task: Task) -> None:
    task.set_state("x" * 70_000)


FAULTS: dict[str, Callable[[Task], Any]] = {
    "no_json": no_json,
    "no_number": no_number,
    "holds_itself": holds_itself,
    "half_a_character": half_a_character,
    "base_exception": base_exception,
    "exit": leave,
    "interrupt": interrupt,
    "generator_exit": generator_exit,
    "cancelled": cancelled,
    "unprintable": unprintable,
    "state_no_json": state_no_json,
    "state_no_number": state_no_number,
    "state_too_large": state_too_large,
}


def declare(name: str, act: Callable[[Task], Any]) -> None:
    def plain(task: Task) -> Any:
        note(task, "start")
        return act(task)

    async def in_loop(task: Task) -> Any:
        note(task, "start")
        await asyncio.sleep(0)
        return act(task)

    handler(f"async.{name}")(in_loop)
    handler(f"thread.{name}")(plain)
    handler(f"process.{name}", process=True)(plain)


for fault, function in FAULTS.items():
    declare(fault, function)


@handler("process.gone", process=True)
def gone(task: Task) -> None:
    note(task, "start")
    os._exit(3)


@handler("process.killed", process=True)
def killed(task: Task) -> None:
    note(task, "start")
    os.kill(os.getpid(), signal.SIGKILL)


@handler("async.blocks", timeout_s=1)
async def blocks(task: Task) -> None:
    """Keeps its event loop from anything else, for as long as the payload says; then it can be cancelled."""
    note(task, "start")
    time.sleep(task.payload)
    await asyncio.sleep(600)


@handler("async.spins", timeout_s=1)
async def spins(task: Task) -> None:
    """The same, and takes the processor while it does."""
    note(task, "start")
    until_s = time.monotonic() + task.payload
    while time.monotonic() < until_s:
        pass
    await asyncio.sleep(600)


@handler("async.never", timeout_s=1)
async def never(task: Task) -> None:
    note(task, "start")
    await asyncio.Event().wait()


@handler("async.stubborn", timeout_s=1)
async def stubborn(task: Task) -> None:
    note(task, "start")
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue


@handler("thread.never", timeout_s=1)
def thread_never(task: Task) -> None:
    note(task, "start")
    threading.Event().wait()


@handler("process.never", timeout_s=1, process=True)
def process_never(task: Task) -> None:
    """Also deaf to SIGTERM."""
    note(task, "start")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(600)
