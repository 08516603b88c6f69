"""The commands on a node without a datapath, and with wrong arguments: what a newcomer meets first."""

import errno
import json
import socket
from pathlib import Path

import pytest
from handover_agent.bpfsys import BpfError
from handover_agent.cli import main, parser
from handover_agent.settings import Settings
from handover_agent.showing import COMMANDS
from handover_agent.showing.command import Command
from handover_agent.showing.node import Node, agent_silent

pytestmark = pytest.mark.unit

NEED_MAPS = ("services", "backends", "drops", "maps")


@pytest.fixture
def place(tmp_path: Path) -> list[str]:
    """Options for a node on which nothing of ours is."""
    return [
        *("--pins", str(tmp_path / "pins"), "--state-dir", str(tmp_path), "--cgroup", str(tmp_path)),
        *("--health-port", "1", "--proxy-health-port", "1"),
    ]


@pytest.mark.parametrize("command", NEED_MAPS)
def test_without_maps_a_command_says_that_kube_proxy_serves(
    command: str, place: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, *place]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"handover-agent {command}: no datapath is pinned in {place[1]}")
    assert "On Standby that is so, and kube-proxy serves the node" in said.err


def test_maps_of_another_layout_are_named_and_not_misread(
    place: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path(place[1], "maps-999").mkdir(parents=True)
    assert main(["services", *place]) == 1
    assert "layout 999" in capsys.readouterr().err


def test_what_may_not_be_read_is_said_to_need_root(
    place: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(path: Path) -> None:
        raise BpfError(errno.EPERM, f"bpf(OBJ_GET) on {path}")

    monkeypatch.setattr("handover_agent.showing.node.obj_get", forbidden)
    assert main(["drops", *place]) == 1
    assert "run this as root with CAP_BPF" in capsys.readouterr().err


def test_check_answers_in_words_and_as_a_document(
    place: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", *place]) == 1
    assert "BAD  agent: port 1 says nothing answers" in capsys.readouterr().out
    assert main(["check", *place, "-o", "json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert not document["ok"]
    assert {"ok", "what", "found"} == set(document["items"][0])


@pytest.mark.parametrize("seconds", ["0", "-3", "1e9", "nan"])
def test_a_wrong_duration_is_named_with_what_would_be_right(
    seconds: str, place: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["drops", *place, f"--during={seconds}"]) == 2
    assert "between 0 and 3600 seconds" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_explains_itself_and_its_exit_status(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command.name, "--help"])
    assert ended.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Exit status: 0, done and as it should be" in said
    assert "-o {table,json}" in said


def test_every_command_is_listed_for_the_newcomer() -> None:
    listed = parser().format_help()
    assert all(command.name in listed for command in COMMANDS)


def test_an_agent_that_does_not_answer_is_a_note_that_says_what_is_not_known() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    assert "refused" in agent_silent(free)


def test_service_ports_without_a_name_are_told_of_once() -> None:
    node = Node(Settings(), {7: "default/web:http/TCP"})
    assert node.service(7) == "default/web:http/TCP"
    assert node.service(8) == "#8"
    (note,) = node.notes_on(["#8", "#8", "default/web:http/TCP"])
    assert note.startswith("a Service port has no name")
    assert node.notes_on(["default/web:http/TCP"]) == ()
