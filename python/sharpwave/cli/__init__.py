"""The command line's entry: runs a command of `sharpwave.cli.commands`, and words what goes wrong.

A bad file or argument is one clear line on stderr and exit code 2, never a traceback.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Generator

from sharpwave._lazy import require
from sharpwave._openmp import share_the_machine
from sharpwave._show import plainly, shown


def app(arguments: list[str] | None = None) -> None:
    """Run the command of ``arguments``, by default the process's own."""
    share_the_machine()
    with plainly(), one_line():
        require("typer", "cli")
        from sharpwave.cli.commands import commands

        code = commands(arguments, standalone_mode=False)
        sys.stdout.flush()  # here, where a full disk can still be worded
    if isinstance(code, int) and code:
        raise SystemExit(code)


@contextlib.contextmanager
def one_line() -> Generator[None]:
    """Errors of files and arguments become one line on stderr and exit code 2."""
    try:
        yield
    except BrokenPipeError:  # whoever read has enough, as `head` does
        discard_output()
        raise SystemExit(1) from None
    except (OSError, ValueError, TypeError, KeyError, ImportError) as error:
        from sharpwave import FormatError

        if isinstance(error, OSError) and error.filename:
            message = f"{error.filename}: {error.strerror}"
        elif isinstance(error, KeyError) and error.args:
            message = str(error.args[0])
        else:
            message = str(error) or type(error).__name__
        kind = "damaged file" if isinstance(error, FormatError) else "error"
        if isinstance(error, OSError) and not error.filename:
            discard_output()  # it may be stdout itself that cannot be written to
        print(shown(f"{kind}: {' '.join(message.split())}"), file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        # typer's own: a missing argument, an unknown option, an aborted prompt
        if not hasattr(error, "format_message"):
            if type(error).__name__ == "Abort":
                print("stopped; the same command goes on from here", file=sys.stderr)
                raise SystemExit(130) from None
            raise
        said = error.format_message()  # pyright: ignore[reportAttributeAccessIssue]
        if type(error).__name__ == "NoArgsIsHelpError":
            print(said)
            raise SystemExit(0) from None
        print(shown(f"error: {' '.join(said.split())}"), file=sys.stderr)
        raise SystemExit(2) from None


def discard_output() -> None:
    """Send what stdout still holds nowhere, so that nothing is raised when the process ends."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        return
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
