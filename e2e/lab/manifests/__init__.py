"""The lab's files for the cluster, with @NAMES@ to be filled in."""

import re
from collections.abc import Mapping
from pathlib import Path

from e2e.lab.errors import LabError

_NAME = re.compile(r"@([A-Z][A-Z0-9_]*)@")


def render(file: str, values: Mapping[str, str]) -> str:
    """The file's text with every @NAME@ replaced; one without a value is an error, not an empty string."""

    def value(match: re.Match[str]) -> str:
        try:
            return values[match[1]]
        except KeyError:
            raise LabError(f"manifests/{file} asks for @{match[1]}@, which nothing sets") from None

    return _NAME.sub(value, (Path(__file__).parent / file).read_text())
