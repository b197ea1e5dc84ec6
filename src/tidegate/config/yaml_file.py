"""YAML in which a name that is given twice in one group is an error."""

from collections.abc import Hashable

import yaml
from typing_extensions import override

MERGE_TAG = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """The safe loader, which by itself keeps the last of two equal names."""

    @override
    def construct_mapping(
        self, node: yaml.MappingNode, deep: bool = False
    ) -> dict[Hashable, object]:
        lines: dict[str, int] = {}
        for name, _ in node.value:
            if isinstance(name, yaml.ScalarNode) and name.tag != MERGE_TAG:
                line = name.start_mark.line + 1
                if name.value in lines:
                    raise yaml.YAMLError(
                        f"'{name.value}' is given twice, on lines {lines[name.value]} and {line}"
                    )
                lines[name.value] = line
        return super().construct_mapping(node, deep)


def read_yaml(data: bytes) -> object:
    """Return the value of a YAML document.

    Raises:
        yaml.YAMLError: it is not well-formed, or gives a name twice in one group.
    """
    try:
        value: object = yaml.load(data, Loader=_Loader)  # noqa: S506 -- a safe loader, and stricter
    except (ValueError, LookupError, AttributeError, TypeError) as exc:
        # Errors that the library does not translate, for values such as `2026-13-01` or `!!int x`.
        raise yaml.YAMLError(f"a value does not have the form of its type ({exc})") from exc
    return value
