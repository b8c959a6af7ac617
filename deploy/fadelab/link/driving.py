"""Driving links in named namespaces, for programs that live there on their own."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.link.attendance import PASSED_ON, attend, report_of
from fadelab.link.driver import LinkDriver
from fadelab.link.job import LinkJob
from fadelab.link.named import Held
from fadelab.link.recording import make_folder
from fadelab.link.report import LinksReport
from fadelab.local.children import Channel, Message
from fadelab.local.launch import Sandboxed, sockets_dir
from fadelab_emulation.backends.factory import make_backend
from fadelab_emulation.sandbox import enter_network
from fadelab_proto.clock import SystemClock


def drive_links(
    job: LinkJob,
    namespaces: Held,
    *,
    duration_s: float | None = None,
    record: Path | None = None,
    in_force: Callable[[], None] = lambda: None,
) -> LinksReport:
    """Make links in namespaces, carry the job's timeline out, and remove the links again.

    It ends after ``duration_s`` or with SIGINT, SIGTERM or SIGHUP. Must be called from the main
    thread of a process that has no other.

    Args:
        job: what the links do; for as many devices as there are namespaces.
        namespaces: where they are made.
        duration_s: wall seconds; None for no end.
        record: a folder to be made for the schedule, what was achieved and the events.
        in_force: called once the links exist and the timeline has begun.

    Raises:
        FadelabError: if something is missing or went wrong.

    """
    choice = job.choose_backend()
    if record is not None:
        make_folder(record)

    def hear(message: Message) -> None:
        if "in_force" in message:
            in_force()

    with sockets_dir() as folder:

        def work(outside: Channel) -> None:
            enter_network(namespaces.hub)
            # What a killed process left would be in the way.
            namespaces.remove_links()
            try:
                plan, clock = job.plan(), SystemClock()
                backend = make_backend(choice.variant, plan, clock, namespaces.devices)
                try:
                    driver = LinkDriver(job, backend, record or folder)
                    asyncio.run(_drive(driver, duration_s, outside))
                    driver.tell(outside)
                finally:
                    backend.close()
            finally:
                namespaces.remove_links()

        report = report_of(attend(Sandboxed("links", work), hear), choice)
    if report is None:
        raise FadelabError(ExitCode.COMPONENT_FAILED, "the links ended without a report")
    return report


async def _drive(driver: LinkDriver, duration_s: float | None, outside: Channel) -> None:
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in PASSED_ON:
        loop.add_signal_handler(number, over.set)

    def begin() -> None:
        outside.send(in_force=True)
        if duration_s is not None:
            loop.call_later(duration_s, over.set)

    await driver.drive(over, begin)
