"""``fadelab server`` and ``fadelab agent``: one process each, for deployments built by hand."""

import asyncio
from pathlib import Path
from typing import Annotated, Self, TypeVar

import typer
from pydantic import BaseModel, Field, ValidationError, model_validator

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.local.children import exit_code_of
from fadelab.mistakes import describe
from fadelab_agent.agent import AgentConfig, run_agent
from fadelab_agent.workbench_config import WorkbenchConfig
from fadelab_proto.config import StrictModel
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


def server(
    config: Annotated[Path, typer.Argument(help="JSON file; see docs/schemas.")],
    resume: Annotated[
        bool, typer.Option(help="Continue from the checkpoint in the file's checkpoint_dir.")
    ] = False,
) -> None:
    """Run an aggregation server until its run is over.

    Example: fadelab server server.json --resume
    """
    checked = _read(config, ServerConfig)
    for task in checked.tasks:
        if not task.initial.is_file():
            raise FadelabError(
                ExitCode.USAGE,
                f"{config}: there is no initial model of {task.name}: {task.initial}",
            )
    # gRPC's health service is not installed where agents alone run.
    from fadelab_server.app import serve  # noqa: PLC0415

    with _sentences():
        asyncio.run(serve(checked, resume=checked.checkpoint_dir if resume else None))


def agent(
    config: Annotated[Path, typer.Argument(help="JSON file; see docs/schemas.")],
) -> None:
    """Run one device agent until its run is over.

    Example: fadelab agent agent.json
    """
    checked = _read(config, AgentFile)
    with _sentences():
        # torch takes seconds to import, and only here is it needed.
        from fadelab_agent.workbench import Workbench  # noqa: PLC0415

        bench = Workbench(checked.work)
        asyncio.run(run_agent(checked.agent, [bench.device(checked.agent.device)]))


class _sentences:  # noqa: N801 -- used like a function
    """Turn a component's known errors into a FadelabError."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        code = None if error is None else exit_code_of(error)
        if code is not None:
            raise FadelabError(code, str(error)) from None


def _read(path: Path, model: type[_Model]) -> _Model:
    try:
        return model.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise FadelabError(ExitCode.USAGE, describe(error, str(path), model)) from None
    except OSError as error:
        raise FadelabError(ExitCode.USAGE, f"cannot read {path}: {error.strerror}") from None
