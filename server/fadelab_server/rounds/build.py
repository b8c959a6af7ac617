"""From the server's configuration to the desk that devices report to."""

from collections.abc import Callable, Mapping

from fadelab_proto.clock import Clock
from fadelab_proto.events import EventLog
from fadelab_server.assembly import UpdateAssembly
from fadelab_server.checkpoint import CheckpointError
from fadelab_server.config import ServerConfig
from fadelab_server.journal.records import Granted
from fadelab_server.rounds.base import AllocationError
from fadelab_server.rounds.cell_free import CellFreeAllocator
from fadelab_server.rounds.desk import NoDesk, ReportDesk
from fadelab_server.rounds.radio_access import RadioAccess
from fadelab_server.state_keeper import StateKeeper
from fadelab_server.task_state import TaskState


def build_desk(
    config: ServerConfig,
    task: TaskState,
    keeper: StateKeeper,
    *,
    clock: Clock,
    log: EventLog,
    stop: Callable[[str], None],
    excused: Callable[[], None],
) -> ReportDesk | NoDesk:
    """Return the first task's desk, or one that refuses reports where nothing is allocated.

    Args:
        config: the server's.
        task: the one task.
        keeper: has the uploads under way, and journals what is decided.
        clock: of the run.
        log: the server's.
        stop: ends the run, for a reason.
        excused: called when the devices that a round waits for are others than before.

    """
    if config.allocation is None:
        return NoDesk()
    assert config.radio_socket is not None
    uploads = keeper.uploads

    async def note(granted: Granted) -> None:
        # Before devices are told: a server that is restarted must know what they know.
        try:
            await keeper.log.durable(keeper.decide(granted))
        except CheckpointError as error:
            raise AllocationError(str(error)) from error

    def arrived(device: int) -> float:
        upload = uploads.get((0, device))
        announced = 0 if upload is None else upload.header.payload_bytes
        return upload.payload_bytes / announced if upload is not None and announced else 0.0

    return ReportDesk(
        CellFreeAllocator(
            config.allocation,
            RadioAccess(config.radio_socket),
            devices=config.devices,
            book=keeper.book,
            note=note,
            clock=clock,
            log=log,
        ),
        roster=lambda: expected_reports(task, uploads),
        newest=lambda: task.store.newest.number,
        arrived=arrived,
        takes_silence=task.rule.takes_silence,
        log=log,
        stop=stop,
        excused=excused,
    )


def expected_reports(
    task: TaskState, uploads: Mapping[tuple[int, int], UpdateAssembly]
) -> frozenset[int]:
    """Return the devices that have an update of this round to report.

    After a restart of the server, some have uploaded already or are about to: they report no more.
    """
    newest = task.store.newest.number
    return frozenset(
        device
        for device in task.roster
        if (0, device) not in uploads and task.refuse(device=device, base_version=newest) is None
    )
