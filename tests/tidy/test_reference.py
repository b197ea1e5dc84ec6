"""The reference pages say what the code says, and the completion of shells is offered."""

from pathlib import Path

import pytest

from testkit.reference import pages

FOLDER = Path(__file__).parents[2] / "docs" / "reference"


def test_every_page_is_written_by_the_script() -> None:
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(pages())


@pytest.mark.parametrize("name", sorted(pages()))
def test_a_page_is_as_the_code_says(name: str) -> None:
    assert (FOLDER / name).read_text() == pages()[name], "it is stale: run `./run docs`"
