"""Targets: JSON, YAML and the metadata of cards, as `product_vqa.documents` reads them."""

import json
import random
from typing import Any

from product_vqa.documents import DocumentError, parse_front_matter, parse_json, parse_yaml
from tests.fuzz.target import Target, assert_one_line


def _assert_is_data(value: Any) -> None:
    """The value prints, as JSON too."""
    json.dumps(value, default=str).encode()
    repr(value).encode()


def fuzz_json(data: bytes) -> None:
    """What is read is what Python's parser reads, and survives a round trip."""
    try:
        value = parse_json(data)
    except DocumentError as error:
        assert_one_line(error)
        return
    _assert_is_data(value)
    assert json.loads(data) == value
    assert parse_json(json.dumps(value, allow_nan=False)) == value


def fuzz_yaml(data: bytes) -> None:
    try:
        value = parse_yaml(data)
    except DocumentError as error:
        assert_one_line(error)
        return
    _assert_is_data(value)
    assert parse_yaml(data) == value


def fuzz_front_matter(data: bytes) -> None:
    """Metadata is a mapping; a text without it has none."""
    try:
        value = parse_front_matter(data)
    except DocumentError as error:
        assert_one_line(error)
        return
    assert isinstance(value, dict)
    _assert_is_data(value)
    if b"---" not in data:
        assert value == {}


_SCALARS: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 10**20, 10**400, 1.5, -0.0, 1e308, "", "x", "ä\u2028", "\x00", "a" * 300, "1",
    "null", "~",
    "default", "train", "data/*.parquet", "[", "2024-13-01", "1:2:3", "=", "<<", "0o17", "\u0085",
)  # fmt: skip


def random_value(rng: random.Random, *, depth: int = 4) -> Any:
    """A JSON value."""
    kind = rng.randrange(4) if depth else 0
    if kind < 2:
        return rng.choice(_SCALARS)
    if kind == 2:
        return [random_value(rng, depth=depth - 1) for _ in range(rng.randrange(4))]
    return {str(rng.choice(_SCALARS)): random_value(rng, depth=depth - 1) for _ in range(rng.randrange(4))}


def generate_json(rng: random.Random) -> bytes:
    return json.dumps(random_value(rng), indent=rng.choice((None, 1)), ensure_ascii=rng.random() < 0.5).encode()


_ATOMS = (
    "a", "1", "-1.5", "0x1F", "0b1", "1_000", "1e400", ".inf", "-.inf", ".nan", "~", "null", "yes", "2024-01-01",
    "2024-99-99", "2024-01-01T00:00:00Z", "0001-01-01 00:00:00+23:59", "9999-12-31T23:59:59-23:59", "12:30:45",
    "'x'", '"y\\u0000"', '"\\ud800"', "!!str 5", "!!int x", "!!float y", "!!binary aGk=", "!!binary '%'",
    "!!set {a, b}",
    "!!omap [a: 1]", "!!pairs [a: 1]", "!!timestamp x", "!!python/object/apply:os.system [ls]", "!x y", "*a", "*b",
    "&a b", "&a [*a]", "&b {x: *a}", "<<: *a", "? x", "|\n  text", ">-\n  text", "[]", "{}", "[*a, *a, *a, *a]",
    "{[1]: 2}", "{{a: 1}: 2}", "{*a : 1}", "%YAML 1.1", "---", "...", "# x", "9" * 5000, "0" * 5000, "1:" * 500 + "1",
    "[" * 150, "{a: " * 150, "- " * 150,
)  # fmt: skip


def generate_yaml(rng: random.Random) -> bytes:
    lines = []
    indent = 0
    for _ in range(rng.randrange(1, 12)):
        prefix = rng.choice(("", "", "- ", "key: ", "configs: ", f"{rng.choice('abc')}: ", "&a ", "? "))
        lines.append("  " * indent + prefix + rng.choice(_ATOMS))
        indent = max(0, min(4, indent + rng.choice((-1, 0, 0, 1))))
    return "\n".join(lines).encode()


def generate_front_matter(rng: random.Random) -> bytes:
    end = rng.choice((b"\n", b"\r\n", b"\r"))
    text = b"---\n" + generate_yaml(rng) + rng.choice((b"\n---\n", b"\n---", b"\n--- \n# Title\n", b"\n----\n", b"\n"))
    return text.replace(b"\n", end)


def _yaml_seeds() -> list[bytes]:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    return [
        b"license: mit\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\n",
        b"a: [1, 2.5, null, true, 2024-01-01]\nb: {c: 'd', e: \"f\"}\n", bomb.encode(), b"- " * 90, b"", b"# x",
        b"base: &b {x: 1}\nother:\n  <<: *b\n  y: 2\n", b"? [1, 2]\n: x\n", b"x: !!binary aGVsbG8=\n",
        b"--- a\n--- b\n",
    ]  # fmt: skip


def _json_seeds() -> list[bytes]:
    return [
        b'{"a": [1, 2.5, null, true, "x\\u00e4\\n"], "b": {}}', b"[]", b"0", b'"\\ud83d\\ude00"',
        b"[" * 90 + b"]" * 90,
        b'{"a": 1, "a": 2}', b"1" * 990, b'\xef\xbb\xbf{"x": -0.0}', b"", b"1E400", b"[NaN]",
    ]  # fmt: skip


def _front_matter_seeds() -> list[bytes]:
    return [b"---\n" + text + b"\n---\n# Title\n\n---\n" for text in _yaml_seeds()] + [
        b"# Title\n",
        b"---\n---\n",
        b"---",
    ]


WORDS = (
    b"---\n", b": ", b"- ", b"&a ", b"*a", b"!!", b"[", b"]", b"{", b"}", b"?", b"|", b">", b"\t", b"<<: ", b"configs",
    b"data_files", b"\xc2\x85", b"\\u", b"\\", b'"', b"'", b"#", b"%TAG ! x\n", b"...\n", b"null", b"e999", b"_",
)  # fmt: skip

TARGETS = [
    Target("json", fuzz_json, _json_seeds, words=WORDS, generate=generate_json, max_bytes=4000),
    Target("yaml", fuzz_yaml, _yaml_seeds, words=WORDS, generate=generate_yaml, max_bytes=4000),
    Target(
        "front_matter",
        fuzz_front_matter,
        _front_matter_seeds,
        words=WORDS,
        generate=generate_front_matter,
        max_bytes=4000,
    ),
]
