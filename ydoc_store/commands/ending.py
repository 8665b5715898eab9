"""How a command ends: what it returned or raised becomes an exit code, and what was wrong a line on stderr.

0 done, 1 found something wrong, 2 usage or setting, 3 unreachable or time-out, 4 no such document, 5 refused.
Both scripts end this way.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from ydoc_store.errors import YdocError

UNREACHABLE = 3
# As a shell reports a process that SIGINT or SIGPIPE ended
INTERRUPTED = 130
BROKEN_PIPE = 141


def run_to_exit_code(group: click.Group, program: str, arguments: Sequence[str] | None = None) -> int:
    """Run one command of `group`; `arguments` are those of the process unless given."""
    try:
        result = group.main(arguments, prog_name=program, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _tell(program, "interrupted", INTERRUPTED)
    except YdocError as error:
        return _tell(program, str(error), error.exit_code)
    except BrokenPipeError:
        # Whoever read our output has enough. At its end Python would try to write the rest, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        return _tell(program, str(error) or "no answer in time", UNREACHABLE)
    return result if isinstance(result, int) else 0


def _tell(program: str, message: str, exit_code: int) -> int:
    click.echo(f"{program}: {message}", err=True)
    return exit_code
