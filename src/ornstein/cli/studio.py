"""The verb that opens the other room of this floor: `studio`."""

from pathlib import Path
from typing import Annotated

import typer

from ornstein.cli.shared import err, out
from ornstein.errors import shown


def studio(
    runs: Annotated[Path, typer.Argument(metavar="[RUNS-FOLDER]", help="The folder that your runs lie in.")] = Path(
        "runs"
    ),
    port: Annotated[int, typer.Option(help="Of this machine; 0 for any that is free.")] = 7860,
    host: Annotated[str, typer.Option(help="The address to listen at; this machine alone by default.")] = "127.0.0.1",
    auth: Annotated[
        str | None, typer.Option(metavar="NAME:FILE", help="Ask for this name, and the password that the file holds.")
    ] = None,
) -> None:
    """Open the studio, a local web page: draw and watch, compare, see the theory move.

    It works without a network and asks nothing of any other host. Ctrl-C ends it.

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
