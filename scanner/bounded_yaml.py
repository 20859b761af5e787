"""YAML that people write, read within bounds: packs, inventories, machine files.

Without aliases, which make small files huge, without double keys, no deeper than what people
write, and with a line for everything that is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

MAX_DEPTH = 32
"""How deep values may be nested; the packs need 6, and each level takes several frames of
Python's stack."""


class RefusedError(ValueError):
    """It is not YAML, or not YAML that is read here.

    Attributes:
        line: where, from 1; 0 when the document as a whole is meant.
    """

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True)
class Parsed:
    """One document.

    Attributes:
        node: its nodes, which know their lines; None when it is empty.
        value: what it says, as plain Python values.
    """

    node: yaml.Node | None
    value: Any  # plain YAML data; its shape is checked by models

    def line(self, where: Sequence[int | str]) -> int:
        """Line of the innermost part of ``where`` that the document has, from 1."""
        node = self.node
        for part in where:
            child = _child(node, part)
            if child is None:
                break
            node = child
        return int(node.start_mark.line) + 1 if node is not None else 1


def _child(node: yaml.Node | None, part: int | str) -> yaml.Node | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return _as_node(node.value[part])
    if isinstance(node, yaml.MappingNode):
        return next((_as_node(value) for key, value in node.value if key.value == part), None)
    return None


def _as_node(value: object) -> yaml.Node | None:
    return value if isinstance(value, yaml.Node) else None


class _Marked(yaml.MarkedYAMLError):
    """It is YAML, and none that is read here."""


class _Loader(yaml.SafeLoader):
    """The safe loader for what people write."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise self._refused("aliases are not used here")
        if self._depth == MAX_DEPTH:
            raise self._refused(f"nested more than {MAX_DEPTH} deep")
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def _refused(self, message: str) -> yaml.MarkedYAMLError:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call] # PyYAML's stubs
        return yaml.composer.ComposerError(None, None, message, mark)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _Marked(None, None, "a key must be a single value", key.start_mark)
            if key.value in seen:
                raise _Marked(None, None, f"{key.value}: stands here twice", key.start_mark)
            seen.add(key.value)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError, AttributeError, KeyError) as error:
            kind = node.tag.rpartition(":")[2]
            message = f"no {kind} that can be read ({error})"
            raise yaml.constructor.ConstructorError(None, None, message, node.start_mark) from error


class _TextLoader(_Loader):
    """As the other; what is not quoted is text, whatever it looks like."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own way


def parse(text: str, *, typed: bool = True) -> Parsed:
    """Read one document.

    Args:
        text: the document.
        typed: what is not quoted may be a number, a date or true; else it is text.

    Raises:
        RefusedError: it is not YAML, holds aliases or double keys, or is nested too deep.
    """
    try:
        loader = _Loader(text) if typed else _TextLoader(text)
        try:
            node = loader.get_single_node()
            return Parsed(node, None if node is None else loader.construct_document(node))
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        kind = "" if isinstance(error, _Marked) else "not YAML: "
        raise RefusedError(line, f"{kind}{error.problem}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise RefusedError(line, f"not YAML: {error.reason}") from error
    except yaml.YAMLError as error:
        raise RefusedError(0, f"not YAML: {' '.join(str(error).split())}") from error
