"""All verbs of the command line."""

from importlib import import_module

import typer
from typer.core import TyperGroup

from fadelab.exit_codes import ExitCode, FadelabError

_VERBS = {
    "run": "fadelab.cli.run:run",
    "report": "fadelab.cli.run:report",
    "sweep": "fadelab.cli.sweep:sweep",
    "compare": "fadelab.cli.compare:compare",
    "replay": "fadelab.cli.replay:replay",
    "doctor": "fadelab.cli.machine:doctor",
    "server": "fadelab.cli.processes:server",
    "agent": "fadelab.cli.processes:agent",
    "validator": "fadelab.cli.processes:validator",
    "begin": "fadelab.cli.begin:begin",
    "emulate": "fadelab.cli.emulate:emulate",
    "health": "fadelab.cli.health:health",
    "link": "fadelab.cli.link:link",
    "node": "fadelab.cli.node:node",
    "stack": "fadelab.cli.stack:stack",
    "collect": "fadelab.cli.stack:collect",
    "compose": "fadelab.cli.compose:compose",
    "boards": "fadelab.cli.boards:boards",
    "images": "fadelab.cli.images:images",
    "certs": "fadelab.cli.certs:certs",
}


class Verbs(TyperGroup):
    """Verbs that are imported when they are used.

    A server's or an agent's installation lacks the packages of all others.
    """

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # noqa: ARG002
        """Return the verbs that this installation has the packages for."""
        return [verb for verb in _VERBS if _missing_package(verb) is None]

    def get_command(self, ctx: typer.Context, cmd_name: str):  # type: ignore[no-untyped-def, override]  # noqa: ANN201, ARG002
        """Return one verb.

        Raises:
            FadelabError: ENVIRONMENT, if a package that it needs is not installed.

        """
        if cmd_name not in _VERBS:
            return None
        missing = _missing_package(cmd_name)
        if missing is not None:
            raise FadelabError(
                ExitCode.ENVIRONMENT,
                f"`fadelab {cmd_name}` needs the Python package {missing}, which is not installed "
                "here: `pip install 'fadelab[deploy]'` has all",
            )
        module, _, name = _VERBS[cmd_name].partition(":")
        verb = getattr(import_module(module), name)
        if not isinstance(verb, typer.Typer):
            alone = typer.Typer(add_completion=False, rich_markup_mode=None)
            alone.command()(verb)
            verb = alone
        command = typer.main.get_command(verb)
        command.name = cmd_name
        return command


def _missing_package(verb: str) -> str | None:
    try:
        import_module(_VERBS[verb].partition(":")[0])
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("fadelab"):
            raise
        return error.name
    return None


app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def fadelab() -> None:
    """Federated learning over wireless links, on real sockets."""
