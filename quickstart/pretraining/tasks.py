"""The tasks that a small PaliGemma is pretrained on: questions about printed text, and two about words alone.

| kind | prompt | answer |
|---|---|---|
| line | `read line 2` | the complete line as printed: `Net Wt: 34g` |
| all | `read all` | all lines from top to bottom, separated by `|` |
| after | `read after Net Wt` | what follows in that line: `34 g` |
| get | `What is the mass?` | the value as printed, with one space: `34 g` |
| value | `What is the frostel?` | that of an invented key, as printed: `XK-93/B`; nothing without that key |
| expand | `expand 34 kg` | `34.0 kilogram`; needs no image |
| define | `define item weight` | `mass`; needs no image |

`value` is asked about labels with invented keys only (`quickstart.rendering.general_text`). It teaches to read words,
lists and codes, next to any key.

The last two exist because embeddings that pretraining never uses collapse onto each other. An adapter, which leaves
the embeddings frozen, could then hardly tell ` gram` from ` metre`. So the model sees the words of the challenge's
entities and units as text. It never sees the challenge's questions about an image, nor a value of an image in the
challenge's format.
"""

import random
from collections import Counter
from dataclasses import dataclass

from product_vqa.task.quantity import format_quantity
from product_vqa.task.schema import ENTITIES
from quickstart.rendering.general_text import GeneralLabel, draw_absent_key
from quickstart.rendering.label_text import SPELLINGS_BY_UNIT, Label, make_label
from quickstart.rendering.levels import STANDARD

KINDS = ("get", "value", "line", "after", "all", "expand", "define")

_ABSENT_SHARE = 0.08  # of the questions about invented keys; their answer is empty

# Not the challenge's words, so that fine-tuning has to learn what its questions mean.
CONCEPTS_BY_ENTITY = {
    "item_weight": "mass",
    "maximum_weight_recommendation": "load",
    "width": "breadth",
    "depth": "deepness",
    "height": "tallness",
    "voltage": "tension",
    "wattage": "power",
    "item_volume": "content",
}
assert CONCEPTS_BY_ENTITY.keys() == set(ENTITIES)

# Words that are one token each, in addition to those of the challenge's questions and units.
FIRST_WORDS = ("read", "expand", "define")
WORDS = ("line", "all", "after", *CONCEPTS_BY_ENTITY.values())
PRINTED_UNITS = tuple(
    sorted({word for spellings in SPELLINGS_BY_UNIT.values() for s in spellings for word in s.split()})
)


@dataclass(frozen=True)
class Question:
    kind: str
    prompt: str
    answer: str


def ask(kind: str, label: Label, rng: random.Random, *, held_out: bool = False) -> Question | None:
    """A question of this kind about the label, or None if the label does not answer one.

    `held_out` is that of the label; it also decides which numbers `expand` asks about.
    """
    match kind:
        case "line":
            return ask_line(label, rng)
        case "all":
            return Question(kind, "read all", "|".join(line.text for line in label.lines))
        case "after":
            return _ask_after(label, rng)
        case "get":
            return _ask_get(label, rng)
        case "value":
            return _ask_value(label, rng)
        case "expand":
            return _ask_expand(rng, held_out=held_out)
        case "define":
            entity_name = rng.choice(ENTITIES)
            return Question(kind, f"define {entity_name.replace('_', ' ')}", CONCEPTS_BY_ENTITY[entity_name])
    raise ValueError(f"no such kind of question: {kind!r}")


def ask_line(label: Label, rng: random.Random) -> Question:
    index = rng.randrange(len(label.lines))
    return Question("line", f"read line {index + 1}", label.lines[index].text)


def _ask_after(label: Label, rng: random.Random) -> Question | None:
    counts = Counter(line.key for line in label.lines)
    lines = [line for line in label.lines if line.key and counts[line.key] == 1]
    if not lines:
        return None
    line = rng.choice(lines)
    if isinstance(label, GeneralLabel):
        answer = label.values[line.key]
    else:
        answer = line.facts[0].text if line.facts else line.text.removeprefix(line.key).lstrip(": ")
    return Question("after", f"read after {line.key}", answer)


def _ask_get(label: Label, rng: random.Random) -> Question | None:
    if not label.facts:
        return None
    fact = rng.choice(list(label.facts.values()))
    return Question("get", f"What is the {CONCEPTS_BY_ENTITY[fact.entity_name]}?", fact.text)


def _ask_value(label: Label, rng: random.Random) -> Question | None:
    if not isinstance(label, GeneralLabel):
        return None
    if rng.random() < _ABSENT_SHARE:
        key, answer = draw_absent_key(rng, label), ""
    else:
        key, answer = rng.choice(list(label.values.items()))
    return Question("value", f"What is the {key.lower()}?", answer)


def _ask_expand(rng: random.Random, *, held_out: bool) -> Question:
    label = make_label(rng, level=STANDARD, held_out=held_out)  # for its numbers and units only
    fact = rng.choice(list(label.facts.values()))
    return Question("expand", f"expand {fact.text}", format_quantity(fact.quantity))


def ask_several(label: Label, rng: random.Random, *, count: int) -> list[Question]:
    """Different questions about one label: mostly values, then lines, and one about words alone."""
    value = "value" if isinstance(label, GeneralLabel) else "get"
    kinds = [value, value, "line", value, "line", rng.choice(("expand", "expand", "define"))]
    if rng.random() < 0.4:
        kinds[2] = "after"
    if rng.random() < 0.06:
        kinds[4] = "all"
    if count < len(kinds):
        kinds = rng.sample(kinds, count)
    asked = [ask(kind, label, rng) for kind in kinds]
    return list({question.prompt: question for question in asked if question is not None}.values())
