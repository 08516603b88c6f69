"""What the documents point at is there."""

import re
from functools import cache
from pathlib import Path

import pytest

from e2e.lab.paths import CHECKOUT

pytestmark = pytest.mark.unit

DOCUMENTS = sorted([*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").rglob("*.md")])
RECORDS = sorted((CHECKOUT / "docs" / "adr").glob("[0-9]*.md"))


def text_of(path: Path) -> str:
    """A document without what stands in code, where nothing is a link or a heading."""
    text = path.read_text(encoding="utf-8")
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)


@cache
def anchors(path: Path) -> frozenset[str]:
    """How headings are reached: lower case, without punctuation, with hyphens for blanks."""
    headings = re.findall(r"^#+ (.+)$", text_of(path), re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(document)):
        if re.match(r"https?:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (document.parent / file).resolve() if file else document
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


@pytest.mark.parametrize("record", RECORDS, ids=lambda path: path.stem)
def test_a_record_is_in_the_list_of_records(record: Path) -> None:
    listed = f"| [{record.stem[:4]}]({record.name}) | "
    assert listed in (record.parent / "README.md").read_text(encoding="utf-8")


def test_records_have_numbers_of_their_own() -> None:
    assert [int(record.stem[:4]) for record in RECORDS] == list(range(1, len(RECORDS) + 1))
