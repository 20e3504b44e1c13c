"""A YAML document as a tree whose errors name the file, the line and the remedy.

All values are read as text, so that YAML's own readings (`no` as false, 1.10 as 1.1) do not matter. Aliases and tags,
with which a short document stands for a large one or for objects, are refused.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import yaml

from product_vqa.errors import InputError, first_line
from product_vqa.quoting import one_line

MAX_BYTES = 1_000_000
MAX_DEPTH = 10
MAX_NODES = 20_000  # takes half a second to parse
MAX_KEY_CHARS = 64  # of a key in an error
MAX_SHOWN_CHARS = 80  # of a text in an error
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# What YAML refuses, of which a parser knows only the position in bytes; and lone surrogates, which no file has.
_CONTROL = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufeff\uff00-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Node:
    """A YAML node, with the way to it (`attributes.colour.values`)."""

    file: str
    node: yaml.Node
    path: str
    line: int  # of a key for what is below it, so that the first line of a block is not named for the whole

    def fail(self, problem: str, remedy: str) -> InputError:
        where = f"{self.path}: " if self.path else ""
        return InputError(f"{self.file}, line {self.line}: {where}{problem}; {remedy}")

    def fields(self, *, expected: str) -> "dict[str, Node]":
        """The values of a mapping by key, in order."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.fail(f"{_shown(self.node)}, expected {expected}", "write `name: value` lines below it")
        found: dict[str, Node] = {}
        for key_node, value in self.node.value:
            line = key_node.start_mark.line + 1
            key = Node(self.file, key_node, self.path, line)
            if not isinstance(key_node, yaml.ScalarNode):
                raise key.fail("a key that is not a text", "quote it")
            name = key_node.value
            if name == "<<" and key_node.style not in ("'", '"'):
                raise key.fail("`<<` merges fields of another place", "write the fields out")
            if name in found:
                raise key.fail(
                    f"{quoted(name)} occurs twice (first on line {found[name].line})", "rename or remove one of them"
                )
            shown = one_line(name, max_length=MAX_KEY_CHARS)
            found[name] = Node(self.file, value, f"{self.path}.{shown}" if self.path else shown, line)
        return found

    def items(self, *, expected: str) -> "list[Node]":
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.fail(f"{_shown(self.node)}, expected {expected}", "write [one, two], or a `- ` line for each")
        return [Node(self.file, item, self.path, item.start_mark.line + 1) for item in self.node.value]

    def text(self) -> str:
        if not isinstance(self.node, yaml.ScalarNode):
            raise self.fail(f"{_shown(self.node)}, expected a text", "write one value")
        return str(self.node.value)

    def is_true(self) -> bool:
        text = self.text()
        if text not in ("true", "false"):
            raise self.fail(f"{quoted(text)}, expected true or false", "write one of them")
        return text == "true"

    def integer(self, *, least: int, most: int) -> int:
        text = self.text()
        if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
            raise self.fail(f"{quoted(text)}, expected {least} to {most}", "write such a whole number")
        return int(text)

    def check_fields(
        self, fields: "Mapping[str, Node]", *, allowed: tuple[str, ...], required: tuple[str, ...] = ()
    ) -> None:
        """Raise InputError for a field that is not allowed, or is missing."""
        for name, field in fields.items():
            if name not in allowed:
                raise Node(field.file, field.node, self.path, field.line).fail(
                    f"unknown field {quoted(name)}", f"the fields here are {', '.join(allowed)}"
                )
        for name in required:
            if name not in fields:
                raise self.fail(f"`{name}` is missing", f"add `{name}:`")


def compose(content: str | bytes, *, name: str) -> Node:
    """Parse a YAML document without aliases and tags; `name` is that of its file. Raises InputError with the line."""
    text = _decode(content, name=name)
    if len(text) > MAX_BYTES:
        raise InputError(f"{name}, line 1: more than {MAX_BYTES} characters; make the file smaller")
    if found := _CONTROL.search(text):
        line = text[: found.start()].count("\n") + 1
        raise InputError(
            f"{name}, line {line}: the character U+{ord(found[0]):04X}, which YAML does not have; remove it"
        )
    try:
        _check_events(text, name=name)
        root = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise InputError(
            f"{name}, line {line}: not YAML ({first_line(error.problem or error)[:200]}); look at this line and the "
            "one above: quote texts with special characters, and indent with spaces"
        ) from error
    if root is None:
        raise InputError(f"{name}, line 1: the file is empty; write its fields")
    return Node(name, root, "", 1)


def _decode(content: str | bytes, *, name: str) -> str:
    if isinstance(content, str):
        return content.removeprefix("\ufeff")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(f"{name}, line {line}: not UTF-8; save the file as UTF-8") from error


def _check_events(text: str, *, name: str) -> None:
    depth = documents = nodes = 0
    for event in yaml.parse(text, Loader=_LOADER):
        assert event.start_mark is not None
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise InputError(
                f"{name}, line {line}: `&` and `*` name values for reuse; write the value out, or quote it"
            )
        if tag := getattr(event, "tag", None):
            raise InputError(f"{name}, line {line}: the tag {quoted(tag)}; remove it, or quote the text")
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise InputError(f"{name}, line {line}: a second document; remove its line `---`, and what is below")
        nodes += isinstance(event, yaml.NodeEvent)
        if nodes > MAX_NODES:
            raise InputError(f"{name}, line {line}: more than {MAX_NODES} values; make the file smaller")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise InputError(f"{name}, line {line}: nested deeper than {MAX_DEPTH} levels; write it flatter")


def quoted(text: str) -> str:
    """A text in quotes, shortened, for an error."""
    return f"'{one_line(text, max_length=MAX_SHOWN_CHARS)}'"


def _shown(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return quoted(node.value) if node.value else "empty"
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"
