"""Makes the notebooks of examples/ from its scripts, with what they print and draw.

    python docs/make/notebooks.py                  # all of them, some minutes; run in a folder that is then removed
    python docs/make/notebooks.py guided_digits

A script's cells begin with `# %%`, its text with `# %% [markdown]`; editors know these marks too.
"""

import base64
import contextlib
import io
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parents[2] / "examples"
#: of which there are notebooks
NAMES = ("own_table", "guided_digits", "bridge")


def cells(script: str) -> list[tuple[str, str]]:
    """A script's cells in their order, each "markdown" or "code" and its text; its docstring and imports come first."""
    found = list[tuple[str, str]]()
    for kind, text in re.findall(r"(?:\A|^# %%( \[markdown\])?\n)(.*?)(?=^# %%|\Z)", script, re.S | re.M):
        if kind:
            found.append(("markdown", re.sub(r"^# ?", "", text, flags=re.M).strip()))
        elif not found:
            title, rest = re.match(r'"""(.*?)"""\n(.*)', text, re.S).groups()  # type: ignore[union-attr]
            found += [("markdown", f"# {title.strip()}"), ("code", rest.strip())]
        else:
            found.append(("code", text.strip()))
    return found


def made(name: str) -> dict[str, Any]:
    """The notebook of a script: its cells are run one after the other, as Jupyter would."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    space: dict[str, Any] = {"__name__": "__main__"}
    written = []
    for number, (kind, text) in enumerate(cells((EXAMPLES / f"{name}.py").read_text("utf-8"))):
        cell: dict[str, Any] = {"cell_type": kind, "id": f"{name}-{number}", "metadata": {}, "source": text}
        if kind == "code":
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                exec(compile(text, f"{name}, cell {number}", "exec"), space)
            outputs: list[dict[str, Any]] = []
            if said.getvalue():
                outputs.append({"output_type": "stream", "name": "stdout", "text": said.getvalue()})
            for figure in map(plt.figure, plt.get_fignums()):
                picture = io.BytesIO()
                figure.savefig(picture, format="png", dpi=100, bbox_inches="tight")
                shown = {"image/png": base64.b64encode(picture.getvalue()).decode(), "text/plain": "a figure"}
                outputs.append({"output_type": "display_data", "data": shown, "metadata": {}})
            plt.close("all")
            cell |= {"execution_count": None, "outputs": outputs}
        written.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    about = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": written, "metadata": about, "nbformat": 4, "nbformat_minor": 5}


def main() -> None:
    for name in sys.argv[1:] or NAMES:
        with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
            notebook = made(name)
        (EXAMPLES / f"{name}.ipynb").write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", "utf-8")
        print(f"wrote examples/{name}.ipynb")


if __name__ == "__main__":
    os.environ.setdefault("COLUMNS", "100")
    main()
