"""SQL kept as data: `.sql` files whose statements stand under `-- name --` headers.

Statements are typed `LiteralString`, so that no text built at run time passes for one.
"""

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import LiteralString

_HEADER = re.compile(r"^-- ([a-z_]+) --$", re.MULTILINE)


def load(package: str, name: str) -> Mapping[str, LiteralString]:
    """Return the statements of the file `name` in `package`, by their names.

    Raises:
        ValueError: the file has text before its first header, a name twice, or an empty statement.
    """
    return parse(read(package, name))


def read(package: str, name: str) -> LiteralString:
    """Return a whole `.sql` file of `package` as one script."""
    return files(package).joinpath(name).read_text(encoding="utf-8")


def parse(text: LiteralString) -> Mapping[str, LiteralString]:
    """Cut a text at its headers.

    Raises:
        ValueError: as in `load`.
    """
    before, *pieces = _HEADER.split(text)
    if before.strip():
        raise ValueError("There is text before the first '-- name --' header; give it a header.")
    statements: dict[str, LiteralString] = {}
    for name, statement in zip(pieces[::2], pieces[1::2], strict=True):
        if name in statements:
            raise ValueError(f"Two statements are called '{name}'; rename one.")
        if not statement.strip():
            raise ValueError(f"The statement '{name}' is empty; write or remove it.")
        statements[name] = statement.strip()
    return statements
