"""Outside the sandbox: passing signals on, hearing reports, until all is over."""

import asyncio
import signal
from collections.abc import Callable

from fadelab.link.report import DeviceReport, LinksReport, TimingReport
from fadelab.local.children import Message
from fadelab.local.launch import Sandboxed
from fadelab_emulation.backends.choice import Choice

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def attend(sandboxed: Sandboxed, hear: Callable[[Message], None]) -> list[Message]:
    """Wait for the end of a sandbox and return all that was heard from it.

    SIGINT, SIGTERM and SIGHUP are passed on each time; SIGQUIT ends everything at once.

    Raises:
        FadelabError: if the work inside failed, in its own words.

    """
    heard: list[Message] = []

    async def listen() -> None:
        while (message := await sandboxed.channel.receive_async()) is not None:
            heard.append(message)
            sandboxed.note(message)
            hear(message)

    async def follow() -> None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(sandboxed.descriptor, ended.set)
        for number in PASSED_ON:
            loop.add_signal_handler(number, sandboxed.stop, number)
        loop.add_signal_handler(signal.SIGQUIT, sandboxed.stop, signal.SIGKILL)
        listening = asyncio.create_task(listen())
        await ended.wait()
        loop.remove_reader(sandboxed.descriptor)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)

    asyncio.run(follow())
    sandboxed.wait()
    return heard + sandboxed.messages


def report_of(messages: list[Message], choice: Choice) -> LinksReport | None:
    """Put a report together from what :meth:`LinkDriver.tell` sent; None if nothing came."""
    devices: list[DeviceReport] = []
    timing: TimingReport | None = None
    for message in messages:
        if "device_report" in message:
            devices.append(DeviceReport.model_validate(message["device_report"]))
        if "timing" in message:
            timing = TimingReport.model_validate(message["timing"])
    if timing is None:
        return None
    return LinksReport(variant=choice.variant, why=choice.why, timing=timing, devices=devices)
