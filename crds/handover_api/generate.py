"""Write the CustomResourceDefinitions that the models describe, or say where the files differ from them.

python -m handover_api.generate           writes crds/*.yaml
python -m handover_api.generate --check   writes nothing; exit code 1 and a diff when a file differs
"""

import argparse
import difflib
import sys
from pathlib import Path

import yaml

from handover_api.resources import RESOURCES, Resource, definition

HEADER = "# Generated from the models in crds/handover_api by `make generate`: change those, not this file.\n"
DIRECTORY = Path(__file__).resolve().parent.parent


class _Dumper(yaml.SafeDumper):
    """Lists indented below their key, and no anchors, as Kubernetes' own files are."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: object) -> bool:
        return True


def file_name(resource: Resource) -> str:
    """The name of the file that a resource's definition is in, without the directory."""
    return f"{resource.name}.yaml"


def text(resource: Resource) -> str:
    """A resource's definition as the text of its file."""
    return HEADER + yaml.dump(
        definition(resource), Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True
    )


def differences(directory: Path) -> list[str]:
    """A unified diff from the files in a directory to what the models describe; empty when they agree."""
    lines: list[str] = []
    for resource in RESOURCES:
        path = directory / file_name(resource)
        there = path.read_text() if path.exists() else ""
        lines += difflib.unified_diff(
            there.splitlines(), text(resource).splitlines(), path.name, "the models", lineterm=""
        )
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Generate or check; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m handover_api.generate", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file differs")
    parser.add_argument(
        "--directory", type=Path, default=DIRECTORY, help="where the files are (default: the folder crds)"
    )
    options = parser.parse_args(arguments)
    if options.check:
        found = differences(options.directory)
        if found:
            sys.stderr.write("\n".join(found) + "\n\nThe files differ from the models: `make generate`.\n")
        return 1 if found else 0
    for resource in RESOURCES:
        path = options.directory / file_name(resource)
        path.write_text(text(resource))
        sys.stdout.write(f"wrote {path.name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
