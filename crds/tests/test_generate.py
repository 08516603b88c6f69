"""`make verify` must fail when the files and the models differ, and say how."""

from pathlib import Path

import pytest
from handover_api import generate
from handover_api.resources import RESOURCES

pytestmark = pytest.mark.unit


def test_the_checked_in_files_are_what_the_models_describe() -> None:
    assert generate.differences(generate.DIRECTORY) == []


def test_a_changed_file_is_found_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--directory", str(tmp_path)]) == 0
    assert generate.main(["--check", "--directory", str(tmp_path)]) == 0
    path = tmp_path / generate.file_name(RESOURCES[0])
    path.write_text(path.read_text().replace("scope: Cluster", "scope: Namespaced"))

    assert generate.main(["--check", "--directory", str(tmp_path)]) == 1

    said = capsys.readouterr().err
    assert "-  scope: Namespaced" in said
    assert "+  scope: Cluster" in said
    assert "make generate" in said


def test_a_missing_file_is_a_difference(tmp_path: Path) -> None:
    assert generate.main(["--check", "--directory", str(tmp_path)]) == 1
