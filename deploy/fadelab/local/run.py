"""One local run from the outside: launch, show, wait, sum up, report."""

import asyncio
import shutil
import signal
from pathlib import Path

from fadelab.exit_codes import FadelabError
from fadelab.experiment import Experiment
from fadelab.follow import Finished, Observer, finish, watch_emulator, watch_server
from fadelab.local.launch import Sandboxed, sockets_dir, write_json
from fadelab.local.plan import LinksOfRun, LocalPlan
from fadelab.local.supervisor import supervise
from fadelab.manifest import Deployment, build_manifest
from fadelab_emulation.backends.choice import SKILLS


def run_locally(
    experiment: Experiment, links: LinksOfRun, run_dir: Path, observer: Observer
) -> Finished:
    """Run an experiment on this machine and leave everything in ``run_dir``.

    Must be called from the main thread, before this process starts any other thread.
    """
    with sockets_dir() as sockets:
        plan = LocalPlan.create(experiment, links, run_dir, sockets)
        manifest = build_manifest(
            plan,
            Deployment.LOCAL,
            command_mono_s=links.command_mono_s,
            backend=SKILLS[links.choice.variant].backend,
        )
        write_json(run_dir / "manifest.json", manifest)
        run = Sandboxed("launcher", lambda channel: supervise(plan, channel))
        failure = None
        try:
            asyncio.run(_follow(run, plan, observer))
        finally:
            try:
                run.wait()
            except FadelabError as error:
                failure = error
                write_json(run_dir / "manifest.json", {**manifest, "failure": str(error)})
            shutil.rmtree(plan.state_dir, ignore_errors=True)
    summary = finish(run_dir)
    return Finished(run_dir, summary, failure)


async def _follow(run: Sandboxed, plan: LocalPlan, observer: Observer) -> None:
    """Show the run until its processes have ended; pass Ctrl-C on, insist on the second."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(run.descriptor, ended.set)
    asked = False

    def stop() -> None:
        nonlocal asked
        run.stop(signal.SIGKILL if asked else signal.SIGTERM)
        asked = True

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    watchers = [
        asyncio.create_task(work)
        for work in (
            _messages(run, observer),
            watch_server(plan, observer),
            watch_emulator(plan, observer),
        )
    ]
    await ended.wait()
    loop.remove_reader(run.descriptor)
    for watcher in watchers:
        watcher.cancel()
    await asyncio.gather(*watchers, return_exceptions=True)


async def _messages(run: Sandboxed, observer: Observer) -> None:
    while (message := await run.channel.receive_async()) is not None:
        run.note(message)
        if "phase" in message:
            observer.phase(str(message["phase"]), float(str(message["since_command_s"])))
