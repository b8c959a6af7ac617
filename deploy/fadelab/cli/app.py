"""All verbs of the command line."""

import typer

from fadelab.cli.certs import certs
from fadelab.cli.emulate import emulate
from fadelab.cli.link import link
from fadelab.cli.machine import doctor
from fadelab.cli.processes import agent, server
from fadelab.cli.run import report, run

app = typer.Typer(
    help="Federated learning over wireless links, on real sockets.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(run)
app.command()(report)
app.command()(doctor)
app.command()(server)
app.command()(agent)
app.command()(emulate)
app.command()(certs)
app.add_typer(link, name="link")
