"""What labels print about the attributes of any schema: lines of text with at most one fact about each of them.

    text = SchemaText(read_schema("schema.yaml"))
    label = text.make_label(random.Random(7), level=STANDARD)

**Reference answers.** A line has a key, made from the attribute's name, and a value: `Memory: 16 GB`. A quantity or a
choice may have no key if no other attribute has its units or values. What is longer than 20 characters continues on
the next line. All else that is printed (invented words, lot numbers, prices, numbers without a unit) answers no
question: it has no unit, value or name of the schema.

**Text** is printable ASCII. An attribute with other characters is refused, as is one whose values are too long.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from product_vqa.errors import InputError
from product_vqa.task.attributes import Attribute, Schema
from product_vqa.task.kinds import QuantityKind, TextKind, key_of
from quickstart.rendering.drawing import fits_line, is_drawable, wrap
from quickstart.rendering.label_text import CODE_LETTERS, MAX_LINE_CHARACTERS, Label, Line, draw_word
from quickstart.rendering.levels import Level
from quickstart.rendering.printed_numbers import draw_number
from quickstart.rendering.printed_values import PrintedValue, ValuePrinter

MAX_FACT_LINES = 4
MAX_LINES = 7  # besides the brand: so many of the smallest size fit into any image
_WITHOUT_KEY_SHARE = 0.25  # of the values that need no key
# Lines that answer no question, if no attribute has the key's name or the unit: {n} number, {d} price, {a} capitals.
_OTHERS = (
    ("Lot", "{n}"),
    ("No.", "{n}"),
    ("Ref", "{a}-{n}"),
    ("Batch", "{a}{n}"),
    ("Price", "${d}"),
    ("Made in", "{w}"),
    ("", "{w}"),
    ("", "{w} {n}"),
    ("", "{n}"),
    ("", "${d}"),
    ("", "{n} pcs"),
    ("", "{n} rpm"),
    ("", "{n} dB"),
)


@dataclass(frozen=True)
class SchemaLabel:
    """A label, and the values of the attributes that it shows."""

    label: Label
    values: Mapping[str, PrintedValue]  # by entity_name


class SchemaText:
    """Prints labels for one schema. Raises InputError for an attribute that cannot be printed, with its name."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._printers = {name: _make_printer(attribute, schema) for name, attribute in schema.attributes.items()}
        counts = Counter(text for name in schema.names for text in self._texts(name))
        self._without_key = {name for name in schema.names if self._identifies(name, counts)}
        # A brand, which has no key, would look like the answer to a question about a text that is not shown.
        self._may_lack_text = any(
            one.not_shown and isinstance(one.kind, TextKind) for one in schema.attributes.values()
        )
        self._words = {word for text in (*counts, *schema.names) for word in key_of(text.replace("_", " ")).split()}
        self._others = [other for other in _OTHERS if not self._words & set(key_of(" ".join(other)).split())]

    def _texts(self, name: str) -> set[str]:
        return {key_of(text) for texts in self._printers[name].texts.values() for text in texts}

    def _identifies(self, name: str, counts: Counter[str]) -> bool:
        """Whether the units or values of the attribute are those of no other, and no mere numbers."""
        attribute = self.schema[name]
        if not (isinstance(attribute.kind, QuantityKind) or attribute.kind.name == "choice"):
            return False
        texts = self._texts(name)
        return all(counts[text] == 1 and any(char.isalpha() for char in text) for text in texts)

    def make_label(
        self,
        rng: random.Random,
        *,
        level: Level,
        entity_names: Sequence[str] = (),
        absent: Sequence[str] = (),
        held_out: bool = False,
    ) -> SchemaLabel:
        """A random label with facts about `entity_names`, as far as there is space, and about others but `absent`.

        With `held_out` every number is held out that can be; without it none is. The number of lines is one of the
        level's, or larger if facts need several.
        """
        line_count = max(1, len(entity_names), rng.choice(level.line_counts))
        other_count = sum(rng.random() < level.other_share for _ in range(line_count - max(1, len(entity_names))))
        unasked = [name for name in self.schema.names if name not in (*entity_names, *absent)]
        unasked_count = min(line_count - other_count - len(entity_names), len(unasked))
        blocks: list[list[Line]] = []
        values: dict[str, PrintedValue] = {}
        free = MAX_LINES
        for name in (*entity_names, *rng.sample(unasked, unasked_count)):
            value = self._printers[name].draw(rng, is_dual=rng.random() < level.dual_share, held_out=held_out)
            block = self._fact_lines(rng, name, value.text)
            if len(block) <= free:
                blocks.append(block)
                values[name] = value
                free -= len(block)
        other_count = min(free, other_count) if blocks else max(1, other_count)
        blocks += [[self._other_line(rng, held_out=held_out)] for _ in range(other_count)]
        rng.shuffle(blocks)
        lines = [line for block in blocks for line in block]
        word_count = rng.choice(level.brand_words)
        if word_count and not self._may_lack_text:
            brand = Line(" ".join(self._word(rng) for _ in range(word_count)), is_brand=True)
            lines.insert(0 if rng.random() < 0.8 else len(lines), brand)
        return SchemaLabel(Label(tuple(lines)), values)

    def _fact_lines(self, rng: random.Random, name: str, text: str) -> list[Line]:
        key = rng.choice(_keys(name))
        if name in self._without_key and rng.random() < _WITHOUT_KEY_SHARE:
            key, texts = "", wrap(text)
        else:
            # `Size` and `Size range`: the colon tells where the shorter one ends.
            is_prefix = any(_words(other).startswith(f"{_words(name)} ") for other in self.schema.names)
            separator = ": " if is_prefix else rng.choice((" ", " ", ": "))
            whole = f"{key}{separator}{text}"
            texts = [whole] if fits_line(whole) else [*wrap(f"{key}:"), *wrap(text)]
        key = key if texts[0].startswith(key) else ""
        return [Line(one, key="" if number else key, is_continued=number > 0) for number, one in enumerate(texts)]

    def _other_line(self, rng: random.Random, *, held_out: bool) -> Line:
        key, value = rng.choice(self._others)
        text = value.format(
            n=draw_number(rng, ("99", "999", "9999"), held_out=held_out),
            d=draw_number(rng, ("9.99",), held_out=held_out),
            a="".join(rng.choice(CODE_LETTERS) for _ in range(2)),
            w=self._word(rng),
        )
        return Line(f"{key}{rng.choice((' ', ': ')) if key else ''}{text}", key=key)

    def _word(self, rng: random.Random) -> str:
        """An invented word that no attribute has."""
        while True:
            word = draw_word(rng)
            if key_of(word) not in self._words:
                return word


def _make_printer(attribute: Attribute, schema: Schema) -> ValuePrinter:
    name = attribute.name
    if not all(map(is_drawable, _keys(name))):
        raise InputError(
            f"attribute {name}: the fonts of rendered labels lack characters of its name; write it in ASCII"
        )
    key_lines = max(len(wrap(f"{key}:")) for key in _keys(name))
    if not all(fits_line(line) for key in _keys(name) for line in wrap(f"{key}:")) or key_lines >= MAX_FACT_LINES:
        raise InputError(
            f"attribute {name}: its name does not fit into {MAX_FACT_LINES - 1} lines of {MAX_LINE_CHARACTERS} "
            "characters on a rendered label; shorten it"
        )

    def fits(text: str) -> bool:
        lines = wrap(text)
        return text == " ".join(lines) and key_lines + len(lines) <= MAX_FACT_LINES and all(map(fits_line, lines))

    return ValuePrinter(attribute, schema=schema, fits=fits)


def _words(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).lower()


def _keys(name: str) -> tuple[str, ...]:
    """The name as labels print it: mostly capitalized, or in capitals."""
    words = " ".join(name.replace("_", " ").split())
    capitalized = words[0].upper() + words[1:]
    return capitalized, capitalized, words.upper()
