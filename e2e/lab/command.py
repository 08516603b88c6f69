"""How the lab runs other programs: one place for time limits, for output that is kept, and for errors that
quote it.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from e2e.lab.errors import CommandError, LabError

# Where Debian's programs are. A login's PATH may lack the sbin directories.
SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def environment() -> dict[str, str]:
    """Our own environment, with a PATH on which every program of the system is found."""
    own = os.environ.get("PATH")
    return {**os.environ, "PATH": f"{own}:{SEARCH}" if own else SEARCH}


def run(
    argv: Sequence[str],
    *,
    stdin: str | None = None,
    timeout_s: float | None = 120,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run to the end and return what was printed; a failure raises CommandError with the end of the
    output.
    """
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            env=environment() if env is None else env,
            cwd=cwd,
        )
    except FileNotFoundError as error:
        raise LabError(
            f"the program {argv[0]} is missing", "run `handover-lab up`: it installs packages"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"`{' '.join(argv)}` did not end within {timeout_s:.0f} s") from error
    if check and done.returncode != 0:
        raise CommandError(argv, done.returncode, done.stdout + done.stderr)
    return done


def output(argv: Sequence[str], *, timeout_s: float | None = 120, stdin: str | None = None) -> str:
    """What a program printed on stdout; a failure raises."""
    return run(argv, timeout_s=timeout_s, stdin=stdin).stdout
