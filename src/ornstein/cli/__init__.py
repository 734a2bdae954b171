"""The command line: eighteen commands over `ornstein.experiment`.

This room only turns arguments into calls and results into lines. torch is loaded when a command
runs, not before, so that `--help` answers at once.
"""

import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Annotated, Any, NoReturn

import typer

from ornstein import ranks
from ornstein.cli.bridges import translate
from ornstein.cli.distilling import distill
from ornstein.cli.drawing import sample
from ornstein.cli.dreaming import dream
from ornstein.cli.measuring import doctor, evaluate, loglik, tune
from ornstein.cli.restoring import inpaint, interpolate, restore
from ornstein.cli.series import forecast
from ornstein.cli.shared import err, out
from ornstein.cli.studio import studio
from ornstein.cli.tables import impute
from ornstein.cli.training import info, list_, plan, train
from ornstein.errors import InputError, PluginWarning, shown
from ornstein.memory import keep_freed_memory
from ornstein.waiting import wait_briefly

app = typer.Typer(
    name="ornstein",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Diffusion and score-based generative models: train one on your data, draw from it, measure it.\n\n"
    "A first run: `ornstein train digits`, then `ornstein sample runs/digits -n 64`.",
)
VERBS = (
    train,
    sample,
    translate,
    forecast,
    impute,
    inpaint,
    restore,
    interpolate,
    evaluate,
    doctor,
    loglik,
    tune,
    distill,
    dream,
    plan,
    info,
    studio,
)
for verb in VERBS:
    app.command()(verb)
app.command("list")(list_)


@app.callback(invoke_without_command=True)
def _version(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if ranks.rank() and context.invoked_subcommand not in ("train", "sample", "evaluate"):
        raise typer.Exit  # the first process does alone what is not shared
    if version:
        from ornstein._version import __version__

        out.print(f"ornstein {__version__}")
        raise typer.Exit


def _in_a_sentence(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning of ours without the line of code that it was raised in, which no user has asked for."""
    if issubclass(category, PluginWarning):
        return f"ornstein: {message}\n"
    return _FORMATTED(message, category, filename, lineno, line)


_FORMATTED = warnings.formatwarning
#: what a wrong option raises: of click, which newer versions of typer carry within themselves under another name
_WrongUsage: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def main() -> None:
    """The entry point: bad input is one sentence and exit code 2, and so is a disk or a folder that refuses."""
    keep_freed_memory()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files need not be UTF-8
    warnings.formatwarning = _in_a_sentence
    wait_briefly()
    with ranks.one_voice(), _terminable():
        try:
            _refuse_keys_as_options(sys.argv[1:])
            # 130: Ctrl-C, heard by typer
            if code := _command()(standalone_mode=False):
                raise KeyboardInterrupt if code == 130 else SystemExit(code)
        except InputError as error:
            _refuse(shown(error))
        except _WrongUsage as error:
            _refuse(_usage(error, sys.argv[1:]))
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whoever read has enough; nothing is left to be flushed
            sys.exit(1)
        except OSError as error:
            if error.strerror is None:
                raise
            place = f"'{shown(os.fsdecode(error.filename))}': " if isinstance(error.filename, (str, bytes)) else ""
            _refuse(f"{place}{error.strerror}.")
        except (KeyboardInterrupt, typer.Abort):
            err.print("\nstopped")
            sys.exit(130)


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM, by which machines ask a program to end, ends it as Ctrl-C does: training saves, and no half file stays.

    Not of several processes, whose launcher ends them so when one of them has failed and the others wait for it.
    """
    ours = threading.current_thread() is threading.main_thread()  # no other may say what a signal does
    if ranks.count() > 1 or not ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _refuse(sentence: str) -> NoReturn:
    if sentence:
        err.print("[bold red]ornstein:[/] ", end="")
        err.print(sentence, markup=False, soft_wrap=True)
    sys.exit(2)


@cache
def _command() -> Any:
    """The whole command line, as typer makes it of the functions: once in a process."""
    return typer.main.get_command(app)


def _verbs() -> dict[str, Any]:
    """The commands by name."""
    found: dict[str, Any] = _command().commands
    return found


def _usage(error: Any, words: list[str]) -> str:
    """What is wrong with the options, in a sentence as all others; nothing where help was printed in its place."""
    parameter, message = getattr(error, "param", None), error.format_message().rstrip(".")
    for wanted, expected in (
        ("valid integer", "a whole number"),
        ("valid number", "a number"),
        ("valid float", "a number"),
    ):
        if wanted in message and parameter is not None:
            given = [word for name in parameter.opts for word in _given(words, name)]
            return f"{parameter.opts[-1]}={shown(given[-1] if given else '')!r} must be {expected}."
    verb = f"{words[0]} " if words and words[0] in _verbs() else ""
    return message and f"{shown(message)}{'' if message.endswith('?') else '.'} See `ornstein {verb}-h`."


def _given(words: list[str], name: str) -> Iterator[str]:
    """The values that an option is given: --name value, --name=value, -n value, -nvalue."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == name:
            yield following
        elif word.startswith(f"{name}=" if name.startswith("--") else name):
            yield word.removeprefix(name).removeprefix("=")


def _refuse_keys_as_options(words: list[str]) -> None:
    """Point from --steps to training.steps: a verb that takes an experiment has its keys as words, not as options.

    Raises:
        InputError: an option that is no option, but a key.
    """
    verb = words[0] if words else ""
    if verb not in ("train", "plan"):
        return
    known = {name for parameter in _verbs()[verb].params for name in parameter.opts}
    for word, value in zip(words, [*words[1:], ""], strict=True):
        name, equals, after = word.removeprefix("--").partition("=")
        if word == "--":
            return
        if word.startswith("--") and f"--{name}" not in known | {"--help"}:
            from ornstein.experiment.config import key_of

            if key := key_of(name.replace("-", "_")):
                raise InputError(f"--{name} is no option of {verb}; write {key}={shown(after if equals else value)}.")
