"""Targets: quantities, labels, indexes, and single predictions."""

import random

from dataset_builder.labels import LabelForm, judge_label, label_form
from inference.check import check_prediction
from product_vqa.csv_files import parse_index
from product_vqa.task.kinds import MAX_LABEL_LENGTH
from product_vqa.task.quantity import RANGE_POLICIES, format_quantity, parse_quantity
from product_vqa.task.schema import CHALLENGE, ENTITIES, UNITS, UNITS_BY_ENTITY
from tests.fuzz.target import Target, assert_message, text_of

_judge = getattr(judge_label, "__wrapped__", judge_label)  # without its cache, which would hold every case


def fuzz_quantity(data: bytes) -> None:
    """A parsed quantity prints in one form, which parses to the same quantity and which every reader accepts."""
    text = text_of(data)
    try:
        quantity = parse_quantity(text)
    except ValueError as error:
        assert_message(error)
        return
    printed = format_quantity(quantity)
    assert parse_quantity(printed) == quantity
    assert format_quantity(parse_quantity(printed)) == printed
    assert quantity.unit in UNITS and quantity.number >= 0 and printed.isascii()
    for one in (text.strip(), printed):
        assert label_form(one) is (LabelForm.PLAIN if len(one) <= MAX_LABEL_LENGTH else LabelForm.BROKEN)
    assert check_prediction(printed) is None


def fuzz_label(data: bytes) -> None:
    """A label has one form, and either a canonical form that is its own or one known reason."""
    text = text_of(data)
    form = label_form(text)
    try:
        ends = [parse_quantity(text, ranges=ranges) for ranges in ("first", "last")]
    except ValueError as error:
        assert_message(error)
    else:
        forms = (LabelForm.PLAIN, LabelForm.RANGE_BRACKETS, LabelForm.RANGE_TO)
        assert form in forms or len(text.strip()) > MAX_LABEL_LENGTH
        assert all(parse_quantity(format_quantity(end)) == end for end in ends)
    entity = ENTITIES[len(data) % len(ENTITIES)]
    for ranges in RANGE_POLICIES:
        value, reason = _judge(entity, text, ranges=ranges)
        assert bool(value) != bool(reason)
        if value:
            if len(value) <= MAX_LABEL_LENGTH:  # it may be two characters longer than what was written
                assert _judge(entity, value, ranges=ranges) == (value, "")
            assert parse_quantity(value).unit in UNITS_BY_ENTITY[entity]
        else:
            assert reason.isascii() and len(reason) < 100 and reason.replace("_", "").isalpha()


def fuzz_index(data: bytes) -> None:
    """An index is a number that fits 64 bits, and parses to itself."""
    index = parse_index(text_of(data))
    if index is not None:
        assert parse_index(str(index)) == index and abs(index) < 2**63


def fuzz_prediction(data: bytes) -> None:
    """Whatever parses as a quantity is accepted; what is refused has a kind and one line."""
    text = text_of(data)
    problem = check_prediction(text)
    if problem is None:
        stripped = text.strip()
        assert stripped in ("", "nan") or stripped.split(maxsplit=1)[1] in CHALLENGE.unit_by_spelling
        return
    kind, message = problem
    assert kind in ("format", "unit")
    assert message.isprintable() and len(message) < 3 * len(text) * 10 + 500
    try:
        parse_quantity(text)
    except ValueError:
        return
    raise AssertionError(f"a quantity is refused: {message}")


_UNITS = tuple(unit.encode() for unit in sorted(UNITS))
_WORDS = (*_UNITS, b" ", b".", b".0", b"0", b"e+5", b"E-3", b" to ", b"[", b"]", b", ", b"-", b"feet", b"ter", b"nan")
_SPACES = (" ", " ", " ", "  ", "\t", "\u00a0", "\n", "", "\u2003", "\u3000")
_DIGITS = ("0123456789", "0123456789", "0123456789", "٠١٢٣٤٥٦٧٨٩", "²³¹", "0")


def _number(rng: random.Random) -> str:
    digits = rng.choice(_DIGITS)
    size = rng.choice((1, 1, 2, 3, 8, 30, 300))
    text = "".join(rng.choice(digits) for _ in range(rng.randrange(1, size + 1)))
    if rng.random() < 0.5:
        text += "." + "".join(rng.choice("0123456789") for _ in range(rng.randrange(0, 4)))
    if rng.random() < 0.1:
        text += rng.choice(("e5", "E+3", "e-400", "e", "e99999999"))
    return rng.choice(("", "", "", "", "-", "+", " ")) + text


def _quantity(rng: random.Random) -> str:
    unit = rng.choice(_UNITS).decode()
    if rng.random() < 0.2:
        unit = rng.choice((unit.upper(), unit + "s", unit.replace("tre", "ter"), unit.replace("foot", "feet"), "gms"))
    return f"{_number(rng)}{rng.choice(_SPACES)}{unit}"


def _generate(rng: random.Random) -> bytes:
    kind = rng.randrange(8)
    if kind == 0:
        text = (
            f"[{_number(rng)},{rng.choice(_SPACES)}{_number(rng)}]{rng.choice(_SPACES)}{rng.choice(_UNITS).decode()}"
        )
    elif kind == 1:
        text = f"{_quantity(rng)} to {_quantity(rng)}"
    else:
        text = rng.choice(_SPACES) * rng.randrange(2) + _quantity(rng) + rng.choice(_SPACES) * rng.randrange(2)
    return text.encode()


def _generate_index(rng: random.Random) -> bytes:
    return _number(rng).encode()


def _seeds() -> list[bytes]:
    return [
        b"500.0 gram", b"1.5 cubic feet", b"0 volt", b"00012.50 fluid ounce", b"[100.0, 240.0] volt", b"34 centimeter",
        b"10 kilogram to 15 kilogram", b"2.2223333344444455e+20 gram", b"5 horsepower", b"5.016 e+17 pound",
        b"", b"nan",
    ]  # fmt: skip


def _index_seeds() -> list[bytes]:
    return [b"0", b"12", b"12.0", b"1.2e1", b"-5", b"+7.", b".5e1", b"1e17", b"1e18", b"999999999999999999", b""]


TARGETS = [
    Target("quantity", fuzz_quantity, _seeds, max_bytes=500, words=_WORDS, generate=_generate),
    Target("label", fuzz_label, _seeds, max_bytes=500, words=_WORDS, generate=_generate),
    Target("index", fuzz_index, _index_seeds, max_bytes=500, words=_WORDS, generate=_generate_index),
    Target("prediction", fuzz_prediction, _seeds, max_bytes=500, words=_WORDS, generate=_generate),
]
