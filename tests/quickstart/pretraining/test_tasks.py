import random

from product_vqa.task.prompt import format_prompt
from product_vqa.task.schema import CHALLENGE, ENTITIES
from quickstart.pretraining.tasks import KINDS, Question, ask, ask_several
from quickstart.rendering.general_text import GeneralLabel, make_general_label
from quickstart.rendering.label_text import Label, Line, make_label
from quickstart.rendering.levels import STANDARD


def test_pretraining_never_asks_the_questions_of_fine_tuning() -> None:
    rng = random.Random(0)
    labels = [make(rng, level=STANDARD) for _ in range(200) for make in (make_label, make_general_label)]
    asked = [question for label in labels for question in ask_several(label, rng, count=6)]
    assert len(asked) > 1000
    assert {question.kind for question in asked} == set(KINDS)
    assert not {question.prompt for question in asked} & {
        format_prompt(entity, schema=CHALLENGE) for entity in ENTITIES
    }


def test_questions_are_answered_as_printed() -> None:
    rng = random.Random(3)
    label = make_label(rng, level=STANDARD, entity_names=["item_weight"])
    fact = label.facts["item_weight"]
    questions = [ask("get", label, rng) for _ in range(100)]
    answers = {question.answer for question in questions if question and question.prompt == "What is the mass?"}
    assert answers == {f"{fact.number} {fact.unit}"}
    assert ask("all", label, rng) == Question("all", "read all", "|".join(line.text for line in label.lines))
    other = Label((Line("Lot: AX-7", key="Lot"), Line("Lot 9", key="Lot"), Line("Code: K5", key="Code")))
    assert ask("after", other, rng) == Question("after", "read after Code", "K5")
    assert ask("get", other, rng) is None


def test_a_key_that_the_label_does_not_have_has_an_empty_answer() -> None:
    rng = random.Random(4)
    label = GeneralLabel((Line("Frostel: XK-93/B", key="Frostel"),), {"Frostel": "XK-93/B"})
    questions = [ask("value", label, rng) for _ in range(300)]
    answers = {question.prompt == "What is the frostel?": question.answer for question in questions if question}
    assert answers == {True: "XK-93/B", False: ""}
    assert ask("after", label, rng) == Question("after", "read after Frostel", "XK-93/B")
    assert ask("value", make_label(rng, level=STANDARD), rng) is None
