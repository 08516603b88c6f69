"""Compiled programs are kept, and only whole."""

import os
from pathlib import Path

import pytest
from handover_agent import loader
from handover_agent.hooks import PROGRAMS
from handover_agent.loader import kept
from handover_agent.loader.compiler import CompileError

pytestmark = pytest.mark.unit

CODE = {hook.name: hook.name.encode() for hook in PROGRAMS}


@pytest.fixture
def compilations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The version at each time that something was compiled; nothing is in the image, and the cache is empty."""
    done: list[str] = []

    def compile_all() -> dict[str, bytes]:
        done.append(loader.version())
        return dict(CODE)

    monkeypatch.setattr(kept, "compile_all", compile_all)
    monkeypatch.setattr(kept, "IN_IMAGE", tmp_path / "image")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return done


def test_the_second_time_nothing_is_compiled(compilations: list[str]) -> None:
    assert kept.programs() == CODE
    assert kept.programs() == CODE
    assert len(compilations) == 1


def test_another_version_is_compiled_for_itself(
    compilations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.programs()
    monkeypatch.setattr(loader, "version", lambda: "another")
    kept.programs()
    assert compilations[1:] == ["another"]


def test_what_the_image_has_is_taken_without_compiling(compilations: list[str], tmp_path: Path) -> None:
    kept.write(tmp_path / "image" / loader.version(), CODE)
    assert kept.programs() == CODE
    assert compilations == []
    assert not (tmp_path / "cache").exists()


def test_what_is_not_whole_is_compiled_anew(compilations: list[str], tmp_path: Path) -> None:
    kept.programs()
    (tmp_path / "cache/handover/programs" / loader.version() / PROGRAMS[0].name).unlink()
    assert kept.programs() == CODE
    assert kept.programs() == CODE
    assert len(compilations) == 2


def test_where_nothing_can_be_kept_it_is_compiled_each_time(
    compilations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert kept.programs() == kept.programs() == CODE
    assert len(compilations) == 2


def test_the_cache_keeps_the_versions_that_were_made_last(tmp_path: Path) -> None:
    for age in range(12):
        made = tmp_path / f"v{age}"
        kept.write(made, CODE)
        os.utime(made, (1000 - age, 1000 - age))
    kept.prune(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"v{age}" for age in range(8)]


def test_a_build_of_the_image_that_cannot_compile_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> dict[str, bytes]:
        raise CompileError("no")

    monkeypatch.setattr(kept, "compile_all", fail)
    assert kept.main([str(tmp_path)]) == 1
    assert capsys.readouterr().err == "no\n"
    assert list(tmp_path.iterdir()) == []
