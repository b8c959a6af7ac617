"""From the server's configuration to the desk at which local periods are scheduled."""

from collections.abc import Callable, Coroutine, Sequence

from fadelab_proto.clock import Clock
from fadelab_proto.events import EventLog
from fadelab_server.config import DmaFlConfig, ServerConfig
from fadelab_server.periods.desk import NoPeriods, PeriodDesk
from fadelab_server.task_state import TaskState


def build_periods(
    config: ServerConfig,
    tasks: Sequence[TaskState],
    *,
    clock: Clock,
    log: EventLog,
    attend: Callable[[Coroutine[None, None, None]], None],
    excused: Callable[[], None],
) -> PeriodDesk | NoPeriods:
    """Return the run's desk, or one that schedules nothing."""
    if config.scheduling is None:
        return NoPeriods()
    rule = config.aggregation
    mixing = rule.alpha if isinstance(rule, DmaFlConfig) else 1.0
    return PeriodDesk(
        config.scheduling,
        tasks,
        mixing=mixing,
        clock=clock,
        log=log,
        attend=attend,
        excused=excused,
    )
