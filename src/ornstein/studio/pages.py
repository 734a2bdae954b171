"""Pages of the docs that the rooms lead to, served by the studio itself: what one reads needs no network either.

They are the Markdown files in pages/, each a link to the one in the project's docs/, which is a copy in what is
installed. HTML in them is shown as text, and what they show or lead to that is not carried is left as its words.
"""

import html
from pathlib import Path
from typing import Any

#: where the files of this room lie, and the pages among them; where those are served
HERE = Path(__file__).parent
HOME, PREFIX = HERE / "pages", "read"


def text_of(name: str) -> str:
    """A script, a style sheet or a piece of a page that lies beside this file."""
    return (HERE / name).read_text("utf-8")


def names() -> tuple[str, ...]:
    """The pages by name."""
    return tuple(sorted(path.stem for path in HOME.glob("*.md")))


def title(name: str) -> str:
    """What a page calls itself."""
    return (HOME / f"{name}.md").read_text("utf-8").splitlines()[0].removeprefix("# ").strip()


def rendered(name: str) -> str:
    """A page as HTML, whole."""
    from markdown_it import MarkdownIt

    reader: Any = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = reader.parse((HOME / f"{name}.md").read_text("utf-8"))
    for token in tokens:
        _at_home(token.children or [])
    body = reader.renderer.render(tokens, reader.options, {})
    return text_of("page.html").replace("{title}", html.escape(title(name))).replace("{body}", body)


def _at_home(children: list[Any]) -> None:
    """A link to a page that is carried leads there; of any other, and of a picture, the words are left."""
    tag = "span"
    for token in children:
        if token.type == "link_open":
            page = str(token.attrs.get("href", "")).partition("#")[0]
            carried = page.endswith(".md") and page.removesuffix(".md") in names()
            tag, token.attrs = ("a", {"href": page.removesuffix(".md")}) if carried else ("span", {})
        if token.type in ("link_open", "link_close"):
            token.tag = tag
        elif token.type == "image":
            token.type, token.tag, token.content = "text", "", f"[{token.content}]"


def routes() -> list[Any]:
    """What the server answers with."""
    from starlette.responses import HTMLResponse, Response
    from starlette.routing import Route

    async def read(request: Any) -> Response:
        name = request.path_params["name"]
        if name not in names():
            return HTMLResponse("<p>There is no such page here.</p>", 404)
        return HTMLResponse(rendered(name))

    return [Route(f"/{PREFIX}/{{name}}", read)]
