"""The studio as a server: the page of all rooms, and what keeps it at home.

It is served to this machine alone unless somebody says otherwise, asks nothing of any other host (a Content Security
Policy makes the browser refuse even to try), serves no file but those that it made for a page, and reports nothing.
"""

import atexit
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ornstein.errors import InputError, shown

#: addresses of this machine alone
LOCAL = ("127.0.0.1", "localhost", "::1")
#: what a page may load: its own server, and what is written in it
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' blob:; worker-src 'self' blob:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'self'; base-uri 'self'"
)
_HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


class AtHome:
    """ASGI middleware that adds the policy to every answer."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *_HEADERS]}
            await send(message)

        await self.app(scope, receive, sent)


@dataclass(frozen=True, eq=False)
class Opened:
    """A studio that serves.

    Attributes:
        page: Gradio's.
        studio: what its rooms share.
        address: to open in a browser.
    """

    page: Any
    studio: Any
    address: str

    def close(self) -> None:
        """Serve no longer, and delete what was made for pages."""
        self.page.close(verbose=False)
        shutil.rmtree(self.studio.files, ignore_errors=True)


def must_have_gradio() -> None:
    """See that what draws the page is installed.

    Raises:
        InputError: it is not.
    """
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise InputError(
            "the studio needs Gradio, which is not installed: pip install 'ornstein[studio]', or `make studio`."
        ) from None


def read_auth(text: str) -> tuple[str, str]:
    """A name and the password in a file, from "name:file".

    Raises:
        InputError: it is not of that form, or the file cannot be read or is empty.
    """
    name, colon, place = text.partition(":")
    if not (name and colon and place):
        raise InputError(f"--auth {shown(text)!r} must be NAME:FILE, the file holding the password.")
    try:
        password = Path(place).expanduser().read_text("utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError):
        raise InputError(f"--auth: the password file '{shown(place)}' cannot be read.") from None
    if not password:
        raise InputError(f"--auth: the password file '{shown(place)}' is empty.")
    return name, password


def open_studio(
    runs: Path,
    *,
    port: int = 7860,
    host: str = "127.0.0.1",
    auth: tuple[str, str] | None = None,
    block: bool = True,
    told: Callable[[str], None] = lambda address: None,
) -> "Opened":
    """Serve the studio until it is interrupted.

    Args:
        runs: the folder of runs.
        port: of this machine; 0 for any that is free.
        host: the address that it listens at.
        auth: a name and a password that are asked for.
        block: False returns what serves on until its `close`.
        told: called with the address once it answers.

    Raises:
        InputError: a port that is taken or none, a host that is not this machine's, no Gradio.
    """
    must_have_gradio()
    if isinstance(port, bool) or not 0 <= port < 2**16:
        raise InputError(f"port={port} must be from 0 to 65535.")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_OFFLINE"] = "1"
    from ornstein.studio.shelf import Shelf
    from ornstein.studio.state import Studio

    studio = Studio(Shelf(runs))
    atexit.register(shutil.rmtree, studio.files, ignore_errors=True)
    os.environ["GRADIO_TEMP_DIR"] = str(studio.files / "served")
    from starlette.middleware import Middleware

    from ornstein.studio import look, pages
    from ornstein.studio.page import build

    page = build(studio)
    port = port or _free(host)
    try:
        _, address, _ = page.launch(
            server_name=host, server_port=port, auth=auth, prevent_thread_lock=True, quiet=True, share=False,
            show_error=False, inbrowser=False, ssr_mode=False, pwa=False, run_history=False, enable_monitoring=False,
            max_file_size=studio.limits.upload, footer_links=[], favicon_path=pages.HERE / "icon.png",
            theme=look.theme(), css=pages.text_of("look.css"),
            head=f"<style>{pages.text_of('around.css')}</style>",
            app_kwargs={"middleware": [Middleware(AtHome)], "routes": pages.routes()},
            blocked_paths=[str(runs.resolve())], state_session_capacity=200,
        )  # fmt: skip
    except OSError as error:
        raise InputError(f"host={host!r}, port={port}: the studio cannot listen there ({error}).") from None
    except ValueError:  # it asks itself, and waits for fifteen seconds
        page.close(verbose=False)
        raise InputError(
            f"host={host!r}, port={port}: the studio does not hear itself; a proxy stands between (set no_proxy), or "
            "the machine has too much to do: try again."
        ) from None
    opened = Opened(page, studio, address)
    told(address)
    if block:
        page.block_thread()
    return opened


def _free(host: str) -> int:
    """A port that nobody listens at."""
    import socket

    with socket.socket() as one:
        one.bind((host, 0))
        found: int = one.getsockname()[1]
        return found
