"""The nursery: load torch, data and model once, warm up, then fork every agent from here."""

import asyncio
import contextlib
import ctypes
import gc
import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fadelab.local.children import Channel, how_it_ended, run_child
from fadelab.local.plan import LocalPlan
from fadelab_agent.policy import build_policy
from fadelab_emulation import linux
from fadelab_proto import collector
from fadelab_proto.clock import SystemClock
from fadelab_proto.events import EventLog

if TYPE_CHECKING:
    from fadelab_agent.workbench import Workbench

_VALIDATOR_NICENESS = 10
# mallopt(3): the number of malloc arenas; each further one costs every agent a megabyte or more.
_M_ARENA_MAX = -8
# The kernel passes at most 253 descriptors in one message (SCM_MAX_FD).
_DESCRIPTORS_AT_ONCE = 200
_VALIDATOR = "validator"


def nursery(plan: LocalPlan, namespaces: Channel, channel: Channel) -> None:
    """Live as the nursery: report the model, take the namespaces, fork agents, watch over them.

    Messages to the parent: ``warm`` once the model is known, ``forked``, ``agent_ended`` for an
    agent that ended by itself. Messages from the parent: ``fork`` and ``end``.
    """
    with collector.importing():
        # Only this process needs torch.
        from fadelab_agent.workbench import Workbench  # noqa: PLC0415

    # The folder of each task's data, as seen from where the command was given.
    benches = [Workbench(config, config.task.data_dir.absolute()) for config in plan.workbenches()]
    for bench in benches:
        bench.warm_up()
    # What a policy loads when it is made, agents share as they do torch.
    build_policy(plan.experiment.method.pieces().policy)
    for bench in benches:
        path = plan.initial_path_of(bench.config.task_name)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, bench.initial, allow_pickle=False)
    channel.send(
        warm=True,
        dimensions=[bench.model.dimension for bench in benches],
        layers=[list(bench.layers) for bench in benches],
        layout_hashes=[bench.layout_hash for bench in benches],
    )
    count = plan.experiment.devices.count
    descriptors = receive_descriptors(namespaces, count)
    message = channel.receive()
    if message is None or "fork" not in message:
        return
    _keep_memory_shared()
    reports, reporter = Channel.pair()
    brood = {_fork(_VALIDATOR, reporter, _validator(plan, benches)): _VALIDATOR}
    # Agents wait at a gate until the last one is forked: while they run, they copy pages that
    # they share with this process, which makes each further fork slower.
    gate, opener = os.pipe()
    for device in range(count):
        body = _agent(plan, benches, device, descriptors)
        waiting = _behind_gate(body, gate, opener)
        brood[_fork(f"agent {device}", reporter, waiting)] = f"agent {device}"
    for descriptor in (*descriptors, gate, opener):
        os.close(descriptor)
    channel.send(forked=True)
    asyncio.run(_watch_over(brood, reports, channel))


def grace_s(agents: int) -> float:
    """Return how long so many agents may take to log their last figures and leave."""
    return 5.0 + 0.03 * agents


def send_descriptors(channel: Channel, descriptors: list[int]) -> None:
    """Pass open descriptors to another process; one that is gone does not matter."""
    for start in range(0, len(descriptors), _DESCRIPTORS_AT_ONCE):
        group = descriptors[start : start + _DESCRIPTORS_AT_ONCE]
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(channel.socket, [b"d"], group)


def receive_descriptors(channel: Channel, count: int) -> list[int]:
    """Take ``count`` descriptors.

    Raises:
        EOFError: if the sender ended before it had sent them all.

    """
    taken: list[int] = []
    while len(taken) < count:
        data, descriptors, _, _ = socket.recv_fds(channel.socket, 1, _DESCRIPTORS_AT_ONCE)
        if not data:
            raise EOFError("the emulator ended before it passed on the namespaces")
        taken.extend(descriptors)
    return taken


def _keep_memory_shared() -> None:
    """Keep the forked agents' memory common for as long as can be."""
    gc.collect()
    # What is alive now leaves the collector's sight: its marks would copy every page it is on.
    gc.freeze()
    ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def _fork(name: str, reporter: Channel, body: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        run_child(name, reporter, lambda _: body())
    return pid


def _behind_gate(body: Callable[[], None], gate: int, opener: int) -> Callable[[], None]:
    """Return ``body`` preceded by waiting until the last copy of ``opener`` is closed."""

    def wait_first() -> None:
        os.close(opener)
        os.read(gate, 1)
        os.close(gate)
        body()

    return wait_first


def _agent(
    plan: LocalPlan, benches: Sequence["Workbench"], device: int, descriptors: list[int]
) -> Callable[[], None]:
    from fadelab_agent.agent import run_agent  # noqa: PLC0415
    from fadelab_agent.workbench import after_fork  # noqa: PLC0415

    def body() -> None:
        linux.setns(descriptors[device], linux.CLONE_NEWNET)
        for descriptor in descriptors:
            os.close(descriptor)
        # Agents get what the others leave: an emulator that comes late distorts every link. Even
        # at niceness 19 a running agent may keep a waking process waiting for tens of milliseconds.
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        after_fork()
        works = [bench.device(device) for bench in benches]
        asyncio.run(run_agent(plan.agent(device), works))

    return body


def _validator(plan: LocalPlan, benches: Sequence["Workbench"]) -> Callable[[], None]:
    from fadelab_agent.validator import validate  # noqa: PLC0415
    from fadelab_agent.workbench import after_fork  # noqa: PLC0415

    def body() -> None:
        os.nice(_VALIDATOR_NICENESS)
        clock = SystemClock(plan.time_scale)
        with EventLog(plan.events_dir, _VALIDATOR, "0", clock) as log:
            after_fork()
            works = [bench.validator() for bench in benches]
            asyncio.run(validate(works, socket=plan.operator_socket, clock=clock, log=log))

    return body


async def _watch_over(brood: dict[int, str], reports: Channel, channel: Channel) -> None:
    """Reap children, tell the parent who ended how, end them when it says so."""
    loop = asyncio.get_running_loop()
    all_gone = asyncio.Event()
    last_words: dict[str, str] = {}
    ending = False

    def reap() -> None:
        for message in reports.drain():
            last_words[str(message["name"])] = str(message["failed"])
        while brood:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            name = brood.pop(pid)
            how = how_it_ended(os.waitstatus_to_exitcode(status))
            # Whoever leaves without an error has heard that the run is over.
            expected = ending or status == 0
            if not expected or name in last_words:
                channel.send(agent_ended=name, how=last_words.get(name, how))
        all_gone.set()

    def signal_agents(number: signal.Signals, *, validator: bool) -> None:
        for pid, name in brood.items():
            if validator or name != _VALIDATOR:
                os.kill(pid, number)

    async def obey() -> None:
        nonlocal ending
        message = await channel.receive_async()
        ending = True
        signal_agents(signal.SIGTERM, validator=message is None)
        await asyncio.sleep(grace_s(len(brood)))
        signal_agents(signal.SIGKILL, validator=message is None)

    loop.add_signal_handler(signal.SIGCHLD, reap)
    loop.add_signal_handler(signal.SIGTERM, lambda: signal_agents(signal.SIGTERM, validator=True))
    reap()
    obeying = asyncio.create_task(obey())
    await all_gone.wait()
    obeying.cancel()
