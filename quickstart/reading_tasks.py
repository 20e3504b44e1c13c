"""What a small PaliGemma is pretrained on: questions about what is printed, and two about words alone.

| kind | prompt | answer |
|---|---|---|
| line | `read line 2` | the whole line as printed: `Net Wt: 34g` |
| all | `read all` | every line from top to bottom, `|` between them |
| after | `read after Net Wt` | what stands there: `34 g` |
| get | `What is the mass?` | the value as printed, with one blank: `34 g` |
| expand | `expand 34 kg` | no picture needed: `34.0 kilogram` |
| define | `define item weight` | no picture needed: `mass` |

The last two exist because an embedding that pretraining never uses collapses onto all other unused ones: an adapter,
whose embeddings are frozen, could then hardly tell ` gram` from ` metre`. So the words of the challenge's entities and
units are seen as text; its questions are asked about no picture, and no picture's value is answered in its form.
"""

import random
from collections import Counter
from dataclasses import dataclass

from product_vqa.task.quantity import format_quantity
from product_vqa.task.schema import ENTITIES
from quickstart.printing import SPELLINGS_BY_UNIT, STANDARD, Label, make_label

KINDS = ("get", "line", "after", "all", "expand", "define")

# Other words than the challenge's: what its questions mean is left to the fine-tuning.
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

# What the tokenizer has as whole words, beside the questions' and the units' own.
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
    """A question of this kind about the label, or None if the label has no answer to one.

    `held_out` is the label's, and of the numbers that appear in `expand` alone.
    """
    if kind == "all":
        return Question(kind, "read all", "|".join(line.text for line in label.lines))
    if kind == "line":
        index = rng.randrange(len(label.lines))
        return Question(kind, f"read line {index + 1}", label.lines[index].text)
    if kind == "after":
        counts = Counter(line.key for line in label.lines)
        lines = [line for line in label.lines if line.key and counts[line.key] == 1]
        if not lines:
            return None
        line = rng.choice(lines)
        answer = line.facts[0].text if line.facts else line.text.removeprefix(line.key).lstrip(": ")
        return Question(kind, f"read after {line.key}", answer)
    if kind == "get":
        if not label.facts:
            return None
        fact = rng.choice(list(label.facts.values()))
        return Question(kind, f"What is the {CONCEPTS_BY_ENTITY[fact.entity_name]}?", fact.text)
    if kind == "expand":
        unseen = make_label(rng, level=STANDARD, held_out=held_out)  # for its numbers and units only
        fact = rng.choice(list(unseen.facts.values()))
        return Question(kind, f"expand {fact.text}", format_quantity(fact.quantity))
    assert kind == "define", kind
    entity_name = rng.choice(ENTITIES)
    return Question(kind, f"define {entity_name.replace('_', ' ')}", CONCEPTS_BY_ENTITY[entity_name])


def ask_several(label: Label, rng: random.Random, *, count: int) -> list[Question]:
    """Different questions for one picture: values first of all, then lines, and one about words alone."""
    kinds = ["get", "get", "line", "get", "line", rng.choice(("expand", "expand", "define"))]
    if rng.random() < 0.4:
        kinds[2] = "after"
    if rng.random() < 0.06:
        kinds[4] = "all"
    if count < len(kinds):
        kinds = rng.sample(kinds, count)
    asked = [ask(kind, label, rng) for kind in kinds]
    return list({question.prompt: question for question in asked if question is not None}.values())
