"""``fadelab server``, ``agent`` and ``validator``: one process each, for deployments by hand."""

import asyncio
from pathlib import Path
from typing import Annotated, Self, TypeVar

import grpc
import typer
from pydantic import BaseModel, Field, ValidationError, model_validator

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.local.children import exit_code_of
from fadelab.mistakes import describe
from fadelab_agent.agent import run_agent
from fadelab_agent.agent_config import AgentConfig
from fadelab_agent.validator import Validator
from fadelab_agent.work import TaskWork
from fadelab_agent.workbench_config import WorkbenchConfig
from fadelab_proto import collector
from fadelab_proto.clock import SystemClock
from fadelab_proto.config import StrictModel
from fadelab_proto.events import EventLog
from fadelab_server.checkpoint import FILE_NAME as CHECKPOINT
from fadelab_server.config import ServerConfig

_Model = TypeVar("_Model", bound=BaseModel)


class AgentFile(StrictModel):
    """What ``fadelab agent`` reads."""

    agent: AgentConfig
    work: WorkbenchConfig = Field(description="Task, partition and training, as on all devices.")

    @model_validator(mode="after")
    def _device_has_a_part(self) -> Self:
        if self.agent.device >= self.work.devices:
            raise ValueError(
                f"agent.device is {self.agent.device}, but work.devices is {self.work.devices}: "
                "devices count from 0"
            )
        return self


class ValidatorFile(StrictModel):
    """What ``fadelab validator`` reads."""

    operator_socket: Path = Field(description="The server's local socket.")
    events_dir: Path
    time_scale: float = Field(1.0, gt=0, description="As in the server's configuration.")
    work: WorkbenchConfig = Field(description="Task and model, as on all devices.")


def server(
    config: Annotated[Path, typer.Argument(help="JSON file; see docs/schemas.")],
    resume: Annotated[
        bool, typer.Option(help="Continue from the checkpoint in the file's checkpoint_dir.")
    ] = False,
    resume_if_any: Annotated[
        bool, typer.Option("--resume-if-any", help="The same, if there is a checkpoint.")
    ] = False,
) -> None:
    """Run an aggregation server until its run is over.

    Example: fadelab server server.json --resume
    """
    checked = read_file(config, ServerConfig)
    for task in checked.tasks:
        if not task.initial.is_file():
            raise FadelabError(
                ExitCode.USAGE,
                f"{config}: there is no initial model of {task.name}: {task.initial}",
            )
    # gRPC's health service is not installed where agents alone run.
    from fadelab_server.app import serve  # noqa: PLC0415

    with sentences():
        found = resume_if_any and (checked.checkpoint_dir / CHECKPOINT).is_file()
        folder = checked.checkpoint_dir if resume or found else None
        serve(checked, resume=folder, watch_handshakes=True)


def agent(
    config: Annotated[Path, typer.Argument(help="JSON file; see docs/schemas.")],
) -> None:
    """Run one device agent until its run is over.

    Example: fadelab agent agent.json
    """
    checked = read_file(config, AgentFile)
    with sentences():
        with collector.importing():
            # torch takes seconds to import, and only here is it needed.
            from fadelab_agent.workbench import Workbench  # noqa: PLC0415

        bench = Workbench(checked.work)
        asyncio.run(run_agent(checked.agent, [bench.device(checked.agent.device)]))


def validator(
    config: Annotated[Path, typer.Argument(help="JSON file; see docs/containers.md.")],
) -> None:
    """Report loss and metric of every version to a server on this machine until its run is over.

    Example: fadelab validator validator.json
    """
    checked = read_file(config, ValidatorFile)
    with sentences():
        with collector.importing():
            # torch takes seconds to import, and only here is it needed.
            from fadelab_agent.workbench import Workbench  # noqa: PLC0415

        work = Workbench(checked.work).validator()
        try:
            asyncio.run(_validate(checked, work))
        except grpc.aio.AioRpcError as error:
            raise FadelabError(
                ExitCode.COMPONENT_FAILED, f"the server stopped answering: {error.details()}"
            ) from None


async def _validate(checked: ValidatorFile, work: TaskWork) -> None:
    clock = SystemClock(checked.time_scale)
    with EventLog(checked.events_dir, "validator", "0", clock) as log:
        await Validator(work, 0, socket=checked.operator_socket, clock=clock, log=log).run()


class sentences:  # noqa: N801 -- used like a function
    """Turn a component's known errors into a FadelabError."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        code = None if error is None else exit_code_of(error)
        if code is not None:
            raise FadelabError(code, str(error)) from None


def read_file(path: Path, model: type[_Model]) -> _Model:
    """Return a process's configuration.

    Raises:
        FadelabError: USAGE, naming the file, the key, what was given and what is allowed.

    """
    try:
        return model.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise FadelabError(ExitCode.USAGE, describe(error, str(path), model)) from None
    except OSError as error:
        raise FadelabError(ExitCode.USAGE, f"cannot read {path}: {error.strerror}") from None
