"""Cards that people may edit: a push replaces what it generated before, and nothing that somebody changed since.

A generated card is marked: each section stands between two comments, with a digest of its text, and a comment above
them all holds a digest of each key of the metadata. What no longer has its digest was edited by hand.
"""

import hashlib
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from product_vqa.errors import InputError

logger = logging.getLogger(__name__)

CARD_FILE = "README.md"
_NOTICE = (
    "<!-- Parts between marks, and the metadata, are written anew by each push, but for those that you change. -->"
)
_STATE = re.compile(r"^<!-- product-vqa: generated (\{.*\}) -->\n?", re.MULTILINE)
_BEGIN = "<!-- product-vqa: generated begin: {name} {digest} -->\n"
_END = "<!-- product-vqa: generated end -->\n"
_SECTION = re.compile(
    r"^<!-- product-vqa: generated begin: ([^\n]*) ([0-9a-f]{12}) -->\n"
    r"(.*?)^<!-- product-vqa: generated end -->(?:\n|\Z)",
    re.MULTILINE | re.DOTALL,
)
_FRONT_MATTER = re.compile(r"\A\ufeff?\s*---[ \t]*\n(.*?)^---[ \t]*(?:\n|\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class _Section:
    """A part of a card's text: between marks, or (`name` None) what somebody wrote around them."""

    name: str | None
    text: str  # as it stands in the card, marks included
    is_edited: bool = True


@dataclass
class _Card:
    metadata: dict[str, Any] = field(default_factory=dict)
    lines: list[tuple[str | None, str]] = field(default_factory=list)  # of the metadata: key (None: a comment), text
    generated: dict[str, str] = field(default_factory=dict)  # key -> digest of what was generated
    names: list[str] = field(default_factory=list)  # of the sections that were generated
    sections: list[_Section] = field(default_factory=list)

    @property
    def is_marked(self) -> bool:
        return any(section.name is not None for section in self.sections)

    def is_edited(self, key: str) -> bool:
        return self.generated.get(key) != _digest(self.metadata.get(key))


def mark_card(text: str) -> str:
    """A generated card (metadata and text) with its marks: a section begins at each `## ` outside of code."""
    match = _FRONT_MATTER.match(text)
    front, body = (match[0], text[match.end() :]) if match else ("", text)
    metadata = yaml.safe_load(match[1]) if match else {}
    names, marked = [], []
    for part in _split_sections(body):
        heading = part.splitlines()[0]
        names.append(heading.removeprefix("## ") if heading.startswith("## ") else "title")
        marked.append(_BEGIN.format(name=names[-1], digest=_digest(_plain(part))) + part.strip("\n") + "\n" + _END)
    state = {"metadata": {key: _digest(value) for key, value in metadata.items()}, "sections": names}
    state_line = f"<!-- product-vqa: generated {json.dumps(state, sort_keys=True)} -->\n"
    return f"{front}\n{_NOTICE}\n{state_line}\n" + "\n".join(marked)


def merge_cards(new: str, old: str, *, needed: tuple[str, ...] = ()) -> str:
    """The card to write where `old` is: `new`, which `mark_card` marked, but for what was edited by hand in `old`.

    - Text around the marks, and sections that were edited or removed, stay as they are.
    - So do keys of the metadata that were edited, added or removed, but for those that are `needed`.
    - A card without marks is somebody's own: only the `needed` keys are brought up to date.
    - `new` may have been edited too (in a folder); where both were, `old` stays.

    Where nothing changed, the result is `old` to the byte.
    """
    line_end = "\r\n" if "\r\n" in old else "\n"
    old = old.replace("\r\n", "\n")
    before, after = _parse(old), _parse(new.replace("\r\n", "\n"))
    kept: list[str] = []
    if not before.is_marked and any(section.text.strip() for section in before.sections):
        if not after.is_marked:
            return new
        logger.warning(
            "The card there has no marks of product-vqa: it stays as it is%s. Without it a new one is written.",
            f", but for {', '.join(needed)}" if needed else "",
        )
        merged = _merge_metadata(before, after, keys=needed, needed=needed, kept=kept)
        body = "".join(section.text for section in before.sections)
    else:
        keys = tuple(dict.fromkeys([*before.metadata, *before.generated, *after.metadata]))
        merged = _merge_metadata(before, after, keys=keys, needed=needed, kept=kept)
        sections = _merge_sections(before, after, kept=kept) if before.is_marked else after.sections
        state = {
            "metadata": after.generated,
            "sections": [*after.names, *(name for name in before.names if name not in after.names)],
        }
        state_line = f"<!-- product-vqa: generated {json.dumps(state, sort_keys=True)} -->\n"
        body = "".join(section.text for section in sections)
        # The line stands where it stood; a card that lost it gets it back above all.
        body = body.replace(_STATE_PLACE, state_line) if _STATE_PLACE in body else state_line + body
        if kept:
            logger.info("Kept in the card, as edited by hand: %s.", ", ".join(kept))
    front = f"---\n{merged}---\n" if merged else ""
    return (front + body).replace("\n", line_end)


_STATE_PLACE = "<!-- product-vqa: generated {} -->\n"


def _parse(text: str) -> _Card:
    card = _Card()
    if match := _FRONT_MATTER.match(text):
        try:
            metadata = yaml.safe_load(match[1])
        except yaml.YAMLError as error:
            raise InputError(
                f"the card {CARD_FILE} begins with metadata that is not YAML ({' '.join(str(error).split())}); fix it "
                "or delete the file to get a new one"
            ) from error
        if isinstance(metadata, dict):
            card.metadata, card.lines = metadata, list(_split_metadata(match[1]))
        text = text[match.end() :]
    if match := _STATE.search(text):
        try:
            state = json.loads(match[1])
            card.generated, card.names = dict(state["metadata"]), list(state["sections"])
        except (ValueError, KeyError, TypeError):  # edited
            pass
        text = text[: match.start()] + _STATE_PLACE + text[match.end() :]
    position = 0
    for match in _SECTION.finditer(text):
        card.sections.append(_Section(None, text[position : match.start()]))
        card.sections.append(_Section(match[1], match[0], is_edited=_digest(_plain(match[3])) != match[2]))
        position = match.end()
    card.sections.append(_Section(None, text[position:]))
    return card


def _merge_metadata(
    before: _Card, after: _Card, *, keys: tuple[str, ...], needed: tuple[str, ...], kept: list[str]
) -> str:
    new_text = {key: text for key, text in after.lines if key is not None}
    take: dict[str, str | None] = {}  # key -> its new text, None to remove it
    for key in keys:
        if key not in needed:
            is_theirs = key in before.metadata if key not in before.generated else before.is_edited(key)
            if is_theirs:
                kept.append(key)
                continue
        if before.metadata.get(key) != after.metadata.get(key):
            take[key] = new_text.get(key)
    expected = {key: value for key, value in before.metadata.items() if key not in take}
    expected |= {key: after.metadata[key] for key in take if key in after.metadata}
    merged = []
    for line_key, text in before.lines:
        replacement = take.pop(line_key, text) if line_key is not None else text
        if replacement is not None:
            merged.append(replacement)
    text = "".join([*merged, *(text for text in take.values() if text is not None)])
    return text if _holds(text, expected) else yaml.safe_dump(expected, sort_keys=False, allow_unicode=True)


def _holds(text: str, expected: dict[str, Any]) -> bool:
    """Whether the YAML means what it should: lines of an unusual layout may have been taken for another key's."""
    try:
        return (yaml.safe_load(text) or {}) == expected
    except yaml.YAMLError:
        return False


def _merge_sections(before: _Card, after: _Card, *, kept: list[str]) -> list[_Section]:
    new = {section.name: section for section in after.sections if section.name is not None}
    old = {section.name: section for section in before.sections if section.name is not None}
    removed = [name for name in before.names if name not in old]
    kept += [name for name, section in old.items() if section.is_edited]
    kept += [f"{name} (removed)" for name in removed]

    def chosen(name: str) -> _Section | None:
        """Of a section of either card, None if it is to go."""
        if name in removed or (name in old and old[name].is_edited):
            return old.get(name)
        return new.get(name)

    if not any(_is_own_text(section) for section in before.sections):
        order = after.sections + [section for name, section in old.items() if name not in new and section.is_edited]
    else:
        kept.append("text around the marks")
        order = list(before.sections)
        for place, name in enumerate(names := list(new)):
            if name not in old and name not in removed:  # behind the section that it follows
                follows = [i for i, section in enumerate(order) if section.name in names[:place]]
                at = follows[-1] + 1 if follows else len(order)
                order[at:at] = [_Section(None, "\n"), new[name]]
    merged = [section if section.name is None else chosen(section.name) for section in order]
    return [section for section in merged if section is not None]


def _is_own_text(section: _Section) -> bool:
    return section.name is None and bool(section.text.replace(_STATE_PLACE, "").replace(_NOTICE, "").strip())


def _split_sections(body: str) -> Iterator[str]:
    lines: list[str] = []
    is_code = False
    for line in body.splitlines(keepends=True):
        is_code ^= line.startswith("```")
        if line.startswith("## ") and not is_code and "".join(lines).strip():
            yield "".join(lines).strip("\n")
            lines = []
        lines.append(line)
    if "".join(lines).strip():
        yield "".join(lines).strip("\n")


def _split_metadata(text: str) -> Iterator[tuple[str | None, str]]:
    """Top-level keys with all their lines, as they are written; comments between them on their own."""
    key, lines = None, list[str]()
    for line in text.splitlines(keepends=True):
        match = re.match(r"""(["']?)([^\s#"'-][^:"']*)\1\s*:(?:\s|$)""", line)
        if match or line.startswith("#"):
            if lines:
                yield key, "".join(lines)
            key, lines = (match[2] if match else None), []
        lines.append(line)
    if lines:
        yield key, "".join(lines)


def _plain(text: str) -> str:
    """Without what an editor changes by itself: blanks at the ends of lines, blank lines at the ends."""
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def _digest(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
