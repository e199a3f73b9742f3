"""The command line `pstp`.  A user's mistake gives one sentence and exit code 2, never a traceback."""

import os
import sys

from pydantic import ValidationError

from pstp.cli.app import app
from streams import logs
from streams.errors import UserError

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line and exit: 0 done, 1 a check found something, 2 a mistake, with what to do next."""
    logs.quiet()
    try:
        app(standalone_mode=True)
    except UserError as error:
        _fail(str(error))
    except ValidationError as error:
        _fail(_settings_sentence(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _fail(sentence: str) -> None:
    print(f"pstp: {sentence}", file=sys.stderr)
    sys.exit(2)


def _settings_sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    name = "_".join(map(str, first["loc"])).upper() or "settings"
    return f"PSTP_{name} is not usable: {first['msg']}; correct it in the environment or in .env"
