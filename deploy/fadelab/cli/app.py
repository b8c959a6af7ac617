"""All verbs of the command line."""

from importlib import import_module

import typer
from typer.core import TyperCommand, TyperGroup

from fadelab.cli.verbs import VERBS
from fadelab.exit_codes import ExitCode, FadelabError
from fadelab_proto import collector


class Verbs(TyperGroup):
    """Verbs that are imported when they are used.

    A server's or an agent's installation lacks the packages of all others.
    """

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # noqa: ARG002
        """Return the verbs that this installation has the packages for."""
        return [name for name, verb in VERBS.items() if verb.missing_package() is None]

    def format_commands(self, ctx, formatter) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
        """Write the list of verbs, which takes none of their modules."""
        listed = [TyperCommand(name, help=VERBS[name].summary) for name in self.list_commands(ctx)]
        TyperGroup(commands=listed).format_commands(ctx, formatter)

    def get_command(self, ctx: typer.Context, cmd_name: str):  # type: ignore[no-untyped-def, override]  # noqa: ANN201, ARG002
        """Return one verb.

        Raises:
            FadelabError: ENVIRONMENT, if a package that it needs is not installed.

        """
        if cmd_name not in VERBS:
            return None
        missing = VERBS[cmd_name].missing_package()
        if missing is not None:
            raise FadelabError(
                ExitCode.ENVIRONMENT,
                f"`fadelab {cmd_name}` needs the Python package {missing}, which is not installed "
                "here: `pip install 'fadelab[deploy]'` has all",
            )
        module, _, name = VERBS[cmd_name].place.partition(":")
        with collector.importing():
            verb = getattr(import_module(module), name)
        if not isinstance(verb, typer.Typer):
            alone = typer.Typer(add_completion=False, rich_markup_mode=None)
            alone.command()(verb)
            verb = alone
        command = typer.main.get_command(verb)
        command.name = cmd_name
        return command


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
