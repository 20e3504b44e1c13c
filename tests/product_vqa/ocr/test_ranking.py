"""Each rule on its own: two readings that differ in one thing."""

from dataclasses import replace

from product_vqa.ocr.candidate import Candidate, Evidence
from product_vqa.ocr.geometry import Line
from product_vqa.ocr.quantities import UnitFinder, find_quantities
from product_vqa.ocr.ranking import Context, rank
from product_vqa.task.kinds import QuantityKind
from product_vqa.task.schema import CHALLENGE
from tests.example_schemas import SCHEMAS

LINE = Line("500 g", 1.0, (0.4, 0.4, 0.6, 0.5), (400, 400, 600, 500), 100, 0)


def points(line: Line, name: str = "item_weight", *others: Line, evidence: Evidence = Evidence.VALUE) -> float:
    """What the first quantity of a line gets."""
    kind = CHALLENGE[name].kind
    assert isinstance(kind, QuantityKind)
    quantity = find_quantities(line.text, UnitFinder(kind))[0]
    answer = f"{kind.format_number(quantity.number)} {quantity.unit}"
    candidate = Candidate(answer, evidence, line.box, line.score, 0.0)
    return rank(candidate, line, quantity, Context(CHALLENGE[name], [line, *others]))


def test_evidence_size_and_the_engines_score_count() -> None:
    best = points(LINE)
    assert best > points(LINE, evidence=Evidence.JOINED) > points(LINE, evidence=Evidence.NUMBER)
    assert best > points(replace(LINE, score=0.6))
    large = replace(LINE, text="1 kg", size=200)
    assert best > points(LINE, "item_weight", large)


def test_words_count_in_the_line_and_in_the_one_that_leads_to_it() -> None:
    above = replace(LINE, text="NET WEIGHT", pixels=(400, 310, 600, 390))
    protein = replace(above, text="Protein")
    far = replace(above, pixels=(400, 0, 600, 90))
    plain = points(LINE)
    assert points(replace(LINE, text="Net wt. 500 g")) > points(LINE, "item_weight", above) > plain
    assert points(LINE, "item_weight", far) == plain
    assert points(replace(LINE, text="Protein 500 g")) < points(LINE, "item_weight", protein) < plain


def test_an_end_of_a_range_counts_less_than_a_value() -> None:
    assert points(replace(LINE, text="12 V"), "voltage") > points(replace(LINE, text="12-24 V"), "voltage")


def test_a_letter_counts_more_than_a_place() -> None:
    side = replace(LINE, text="20 cm", box=(0.0, 0.45, 0.1, 0.55))
    below = replace(LINE, text="20 cm", box=(0.45, 0.9, 0.55, 1.0))
    assert points(side, "height") > points(below, "height") and points(below, "width") > points(side, "width")
    assert points(replace(side, text="W 20 cm"), "width") > points(below, "width")
    assert points(replace(below, text="H 20 cm"), "width") < points(side, "width")
    vertical, diagonal = replace(side, degrees=90), replace(side, degrees=45)
    assert points(vertical, "height") > points(side, "height") > points(diagonal, "height")
    assert points(diagonal, "depth") > points(side, "depth") > points(vertical, "depth")
    assert points(replace(side, text="Height 20 cm"), "width") < points(side, "width")


def test_the_name_of_an_attribute_of_another_schema_is_its_word() -> None:
    attribute = SCHEMAS["electronics"]["battery"]
    candidate = Candidate("5000.0 milliampere hour", Evidence.VALUE, LINE.box, 1.0, 0.0)
    plain, named = replace(LINE, text="5000 mAh"), replace(LINE, text="Battery 5000 mAh")
    kind = attribute.kind
    assert isinstance(kind, QuantityKind)
    plain_points, named_points = (
        rank(candidate, line, find_quantities(line.text, UnitFinder(kind))[0], Context(attribute, [line]))
        for line in (plain, named)
    )
    assert named_points > plain_points
    choice = Candidate("red", Evidence.VALUE, LINE.box, 1.0, 0.0)
    assert rank(choice, LINE, None, Context(SCHEMAS["clothes"]["colour"], [LINE])) > 0


def test_several_values_that_are_read_together_count_more_than_one_of_them_but_not_all_of_the_image() -> None:
    context = Context(SCHEMAS["clothes"]["material"], [LINE])

    def of(answer: str, evidence: Evidence) -> float:
        return rank(Candidate(answer, evidence, LINE.box, 1.0, 0.0), LINE, None, context)

    assert of("cotton, wool", Evidence.VALUE) > of("cotton, wool", Evidence.JOINED) > of("cotton", Evidence.VALUE)
    assert of("cotton", Evidence.VALUE) > of("cotton, wool", Evidence.ALL) == of("cotton, wool, linen", Evidence.ALL)
