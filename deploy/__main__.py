"""The program `deploy`.

`deploy serve DIR` is begun anew on a device for each push, and on a hundred devices for a push to all: it is told apart
here, before the command line with everything it can do is imported, which costs as much again as serving does.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Nothing that another package has plugged into pydantic is to run where bundles are verified, nor to be looked for.
os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"

from calibration.errors import InputError
from calibration.text import one_line


def main() -> None:
    """Exit code 0 or 2, as `deploy --help` says."""
    words = sys.argv[1:]
    if len(words) == 2 and words[0] == "serve" and not words[1].startswith("-"):
        from deploy.serve import serve

        try:
            serve(Path(words[1]))
        except InputError as error:
            sys.stderr.write(f"error: {one_line(str(error))}\n")
            sys.exit(2)
        return
    from deploy.cli import main as commands

    commands()


if __name__ == "__main__":
    main()
