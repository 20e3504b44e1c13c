"""Targets: the merge of a generated card with one that people edited, and the metadata that local_hub reads."""

import json
import random

from local_hub.cards import list_tags, parse_card
from product_vqa.cards import mark_card, merge_cards
from product_vqa.errors import InputError
from tests.fuzz.documents import WORDS, generate_front_matter, generate_yaml
from tests.fuzz.target import Target, assert_message, text_of

_NEEDED = ("configs", "dataset_info")
_GENERATED = """---
license: other
tags:
- product-vqa
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
---
# A dataset

Made of rows.

## Splits

| split | rows |
|---|---|
| train | {rows} |

## Source

```python
## not a heading
```
"""
NEW = mark_card(_GENERATED.format(rows=2000))


def fuzz_card_merge(data: bytes) -> None:
    """A merge keeps what people wrote, changes nothing the second time, or says in one line why it cannot."""
    old = text_of(data).encode("utf-8", "replace").decode()  # a file is read as UTF-8
    try:
        merged = merge_cards(NEW, old, needed=_NEEDED)
    except InputError as error:
        assert_message(error)
        return
    merged.encode()
    again = merge_cards(NEW, merged, needed=_NEEDED)
    assert again.split() == merged.split(), "the second merge changes the card"
    assert merge_cards(NEW, again, needed=_NEEDED) == again, "each merge changes the card"
    if "product-vqa: generated" not in old and "---" not in old and old.strip():
        kept = old.replace("\r\n", "\n").strip()
        assert kept in merged.replace("\r\n", "\n"), "text of a card that people wrote is lost"
    body = old.partition("\n---")[2] if old.lstrip("\ufeff \n").startswith("---") else old
    own = [line for line in body.split("\n") if line.startswith("OWN ")]
    assert all(line.rstrip("\r") in merged for line in own), "a line that people added is lost"


def fuzz_hub_card(data: bytes) -> None:
    """The metadata of a card is JSON and has tags, or an error says why not."""
    try:
        card = parse_card(text_of(data))
    except ValueError as error:
        assert_message(error)
        return
    assert isinstance(card, dict)
    json.dumps(card, allow_nan=False)
    assert all(isinstance(tag, str) for tag in list_tags(card))


def _card_seeds() -> list[bytes]:
    older = mark_card(_GENERATED.format(rows=1000))
    edited = older.replace("Made of rows.", "Made of rows.\nOWN sentence.").replace("license: other", "license: mit")
    around = older.replace(
        "<!-- product-vqa: generated begin: Source", "OWN text\n\n<!-- product-vqa: generated begin: Source"
    )
    removed = older[: older.index("<!-- product-vqa: generated begin: Splits")]
    texts = [
        NEW,
        older,
        edited,
        around,
        removed,
        edited.replace("\n", "\r\n"),
        "# My card\n\nOWN\n",
        "",
        "---\nx: 1\n---\n",
    ]
    return [text.encode() for text in texts]


def _generate_card(rng: random.Random) -> bytes:
    """Pieces of generated and edited cards in any order, under any metadata."""
    lines = rng.choice(_card_seeds()).decode().split("\n")
    if rng.random() < 0.5:
        end = next((number for number, line in enumerate(lines[1:], start=1) if line == "---"), 0)
        lines[: end + 1] = ["---", *generate_yaml(rng).decode("utf-8", "replace").split("\n"), "---"]
    for _ in range(rng.randrange(4)):
        start, length = rng.randrange(len(lines) + 1), rng.randrange(6)
        kind = rng.randrange(4)
        if kind == 0:
            del lines[start : start + length]
        elif kind == 1:
            lines[start:start] = lines[start : start + length]
        elif kind == 2:
            lines.insert(start, f"OWN {rng.randrange(100)}")
        else:
            lines.insert(
                start, rng.choice(("## Source", "## Splits", "## New", "```", "---", "", "# x", "license: mit"))
            )
    return "\n".join(lines).encode()


def _hub_seeds() -> list[bytes]:
    return [
        b"---\nlicense: mit\ntags: [a, b]\nlanguage: en\nbase_model: x/y\n---\n# x\n",
        b"---\ntags:\n- 1\n- {a: b}\n---\n",
        b"# x", b"---\nx: 2024-01-01\n---\n", b"---\nx: .nan\n---\n", b"---\n- a\n---\n",
        b"\xef\xbb\xbf---\r\na: b\r\n---\r\n",
        b"---\ntags: &a [x]\nlanguage: [*a, *a]\n---\n",
    ]  # fmt: skip


_MARKS = (
    b"<!-- product-vqa: generated begin: Source 0123456789ab -->\n", b"<!-- product-vqa: generated end -->\n",
    b'<!-- product-vqa: generated {"metadata": {}, "sections": []} -->\n', b"<!-- product-vqa: generated {} -->\n",
    b"\nOWN line\n", b"## Splits\n", b"license: mit\n", b"<!-- Each push updates -->\n", b'{"sections": [1]}',
    b"configs:\n",
)  # fmt: skip

TARGETS = [
    Target(
        "card_merge", fuzz_card_merge, _card_seeds, words=(*WORDS, *_MARKS), generate=_generate_card, max_bytes=6000
    ),
    Target("hub_card", fuzz_hub_card, _hub_seeds, words=WORDS, generate=generate_front_matter, max_bytes=4000),
]
