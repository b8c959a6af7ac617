"""The processes of a run on boards that are on this machine: server and validator."""

import asyncio
import contextlib
import sys
from asyncio.subprocess import Process
from pathlib import Path

import numpy as np

from fadelab.boards.files import server_file
from fadelab.boards.inventory import Inventory
from fadelab.local.launch import write_json
from fadelab.local.plan import RunPlan
from fadelab_agent.workbench import Workbench

_GRACE_S = 10.0


async def start_server(
    plan: RunPlan, inventory: Inventory, stack: contextlib.AsyncExitStack
) -> Process:
    """Start server and validator, which end with ``stack`` at the latest; return the server."""
    bench = await asyncio.to_thread(Workbench, plan.workbench(), plan.data_dir)
    plan.initial_path.parent.mkdir(parents=True, exist_ok=True)
    np.save(plan.initial_path, bench.initial, allow_pickle=False)
    config = plan.server(
        dimension=bench.model.dimension, layout_hash=bench.layout_hash, layers=bench.layers
    )
    config = server_file(plan, inventory, config)
    path = plan.run_dir / "config" / "server.json"
    path.parent.mkdir()
    path.write_text(config.model_dump_json(indent=2) + "\n")
    validator = path.with_name("validator.json")
    write_json(
        validator,
        {
            "operator_socket": str(plan.operator_socket),
            "events_dir": str(plan.events_dir),
            "time_scale": plan.time_scale,
            "work": plan.workbench().model_dump(mode="json"),
        },
    )
    server = await _start(plan, stack, "server", path)
    await _start(plan, stack, "validator", validator)
    return server


async def _start(
    plan: RunPlan, stack: contextlib.AsyncExitStack, verb: str, config: Path
) -> Process:
    # What libraries have to say goes to a file: the terminal shows the run.
    log = stack.enter_context((plan.run_dir / f"{verb}.log").open("wb"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fadelab", verb, str(config)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    stack.push_async_callback(_end_here, process)
    return process


async def _end_here(process: Process) -> None:
    """End a process of this machine: ask, wait, insist."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _GRACE_S)
    except TimeoutError:
        process.kill()
        await process.wait()
