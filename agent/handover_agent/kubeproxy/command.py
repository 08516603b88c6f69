"""Runs one of the rule tools with text in and text out, in a fixed locale, with a deadline.

What the tools print is bytes: the kernel takes any in a rule's comment, and a rule of somebody else's with Latin-1 in it
must neither hide kube-proxy's nor come back as another one. So text here stands for bytes, the same ones again.
"""

import os
import subprocess
from collections.abc import Sequence

from handover_agent.kubeproxy.errors import ToolFailed

_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"


def text_of(raw: bytes) -> str:
    """Bytes of a rule tool as text, UTF-8 where they are; `bytes_of` makes the same ones of it."""
    return raw.decode("utf-8", "surrogateescape")


def bytes_of(text: str) -> bytes:
    """What a rule tool printed, byte for byte."""
    return text.encode("utf-8", "surrogateescape")


def run(command: Sequence[str], given: str = "", deadline_s: float = 300) -> str:
    """The standard output of a command that succeeded. Raises ToolFailed."""
    env = {"PATH": f"{os.environ.get('PATH', '')}:{_PATH}", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            command, input=bytes_of(given), capture_output=True, env=env, timeout=deadline_s, check=False
        )
    except FileNotFoundError as error:
        raise ToolFailed(command, "the program is not installed in the agent's image") from error
    except subprocess.TimeoutExpired as error:
        raise ToolFailed(
            command, f"no end after {deadline_s:.0f} s; is another program holding the lock?"
        ) from error
    if done.returncode != 0:
        raise ToolFailed(command, f"exit code {done.returncode}: {text_of(done.stderr or done.stdout)}")
    return text_of(done.stdout)
