"""The command that opens the studio: `studio`."""

from pathlib import Path
from typing import Annotated

import typer

from ornstein.cli.shared import err, out
from ornstein.errors import shown


def studio(
    runs: Annotated[Path, typer.Argument(metavar="[RUNS-FOLDER]", help="The folder that contains your runs.")] = Path(
        "runs"
    ),
    port: Annotated[int, typer.Option(help="Port on this machine; 0 for any free one.")] = 7860,
    host: Annotated[str, typer.Option(help="The address to listen on; by default only this machine.")] = "127.0.0.1",
    auth: Annotated[
        str | None, typer.Option(metavar="NAME:FILE", help="Ask for this name, and the password in the file.")
    ] = None,
) -> None:
    """Open the studio, a local web page: draw and watch, compare, see the theory in motion.

    It works without a network and loads nothing from other hosts. Ctrl-C ends it.

    Examples:

        ornstein studio

        ornstein studio runs --port 7861

        ornstein studio runs --host 0.0.0.0 --auth ada:password.txt
    """
    from ornstein.studio.server import LOCAL, open_studio, read_auth

    known = None if auth is None else read_auth(auth)
    if host not in LOCAL:
        err.print("[yellow]warning[/]  ", end="")
        whoever = f"--host {shown(host)}: whoever reaches this address can use the studio"
        password = (
            ", with that password, which travels unencrypted." if known else "; --auth NAME:FILE asks for a password."
        )
        err.print(whoever + password, markup=False)

    def told(address: str) -> None:
        out.print(f"[bold]studio[/]   {shown(address)}  [dim](runs in {shown(runs)}; Ctrl-C ends it)[/]")

    open_studio(runs, port=port, host=host, auth=known, told=told)
