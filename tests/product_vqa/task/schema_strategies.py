"""Hypothesis strategies: schemas of all kinds, and labels that fit them."""

from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from product_vqa.task.attributes import Attribute, Schema, Unit, default_question, spellings
from product_vqa.task.kinds import (
    ChoiceKind,
    IntegerKind,
    Kind,
    MultiChoiceKind,
    PatternKind,
    QuantityKind,
    TextKind,
    key_of,
)
from product_vqa.task.numbers import format_number
from product_vqa.task.patterns import Pattern, PatternError
from product_vqa.task.texts import looks_like_token

# Texts that YAML reads as something else, and characters of several scripts.
_ODD = [
    "no", "yes", "null", "~", "1.10", "0x1F", "a: b", "#c", "- d", "'e'", '"f"', "=", "[g]", "2024-01-01", "é", "%",
    "ß", "色", "रंग", "لون", "цвет", "1", "½", "m²", "🎨", "on", "\\", "!h", "&i", "*j", "{k}", "@l", "`",
]  # fmt: skip
_WORDS = st.text("abcdefghijklmnop", min_size=1, max_size=6)


def texts(*, extra: str = "") -> st.SearchStrategy[str]:
    """Values and synonyms."""
    letters = st.text("abcXYZ019" + extra, min_size=1, max_size=5)
    words = st.lists(st.one_of(letters, st.sampled_from(_ODD)), min_size=1, max_size=3).map(" ".join)
    return words.filter(lambda text: text.lower() != "nan" and not looks_like_token(text) and len(text) <= 64)


@st.composite
def _values(draw: Any, *, is_multi: bool = False) -> dict[str, tuple[str, ...]]:
    words = _WORDS.filter(lambda word: word not in ("and", "nan")) if is_multi else texts(extra=",/")
    found = draw(st.lists(words, min_size=2, max_size=8, unique_by=key_of))
    number = draw(st.integers(2, len(found)))
    synonyms: dict[str, list[str]] = {value: [] for value in found[:number]}
    for text in found[number:]:
        synonyms[draw(st.sampled_from(found[:number]))].append(text)
    return {value: tuple(others) for value, others in synonyms.items()}


def pattern_texts() -> st.SearchStrategy[str]:
    """Patterns; some of them are not allowed."""
    chars = "abcXYZ019-/ é色ß_#&~,:"
    single = st.sampled_from([*chars, "\\.", "\\(", "\\[", "\\|", "\\\\", "\\-", "\\/", "\\?"])
    ranges = st.sampled_from(["a-z", "A-F", "0-9", "à-é", "!-/", "-", "x", "\\]", "\\^", "&", "|", "_-", "a-c-e"])
    classes = st.lists(ranges, min_size=1, max_size=3).map(lambda parts: f"[{''.join(parts)}]")
    counts = st.sampled_from(["?", "{2}", "{0,3}", "{1,4}", "{7}"])
    parts = st.recursive(
        st.one_of(single, classes),
        lambda inner: st.one_of(
            st.lists(inner, min_size=1, max_size=3).map("".join),
            st.tuples(st.sampled_from(["(", "(?:"]), st.lists(inner, min_size=1, max_size=3)).map(
                lambda group: f"{group[0]}{'|'.join(group[1])})"
            ),
            st.tuples(inner, counts).map(lambda repeat: f"({repeat[0]}){repeat[1]}"),
            st.tuples(st.one_of(single, classes), counts).map("".join),
        ),
        max_leaves=6,
    )
    return parts


@st.composite
def patterns(draw: Any) -> Pattern:
    try:
        return Pattern(draw(pattern_texts()))
    except PatternError:
        return Pattern(draw(st.sampled_from(["[A-Z]{2}[0-9]{3,4}", "(?:EU|UK) [0-9]{2}(\\.5)?", "[A-Z0-9-]{3,40}"])))


@st.composite
def _dimensions(draw: Any) -> dict[str, dict[str, Unit]]:
    """One or two dimensions with units; no two spellings are the same."""
    words = st.one_of(
        _WORDS, st.sampled_from(["GB", "gb", "µm", '"', "°C", "%", "kJ/100 g", "m²", "Ω", "no", "fl oz"])
    )
    found = draw(st.lists(words, min_size=2, max_size=10, unique=True))
    sizes = st.decimals("0.00001", "100000", places=5).filter(bool)
    dimensions: dict[str, dict[str, Unit]] = {}
    while found:
        number = draw(st.integers(0, min(2, len(found) - 1)))
        name, *others = (found.pop() for _ in range(number + 1))
        size = draw(sizes)
        unit = Unit(Decimal(format_number(size).removesuffix(".0")), tuple(others))
        dimensions.setdefault(draw(st.sampled_from(["weight", "storage"])), {})[name] = unit
    return dimensions


@st.composite
def _kinds(draw: Any, dimensions: dict[str, dict[str, Unit]]) -> Kind:
    name = draw(st.sampled_from(["quantity", "integer", "choice", "multi_choice", "yes_no", "pattern", "text"]))
    match name:
        case "quantity":
            dimension = draw(st.sampled_from(sorted(dimensions)))
            known = dimensions[dimension]
            some = st.lists(st.sampled_from(list(known)), min_size=1, unique=True).map(tuple)
            return QuantityKind(
                dimension,
                draw(st.one_of(st.just(tuple(known)), some)),
                sizes={unit: one.size for unit, one in known.items()},
                unit_by_spelling=spellings(dimensions),
                decimals=draw(st.integers(0, 15)),
                integer_digits=draw(st.integers(1, 15)),
                signed=draw(st.booleans()),
                space_required=draw(st.booleans()),
            )
        case "integer":
            return IntegerKind(draw(st.integers(1, 15)), signed=draw(st.booleans()))
        case "choice":
            return ChoiceKind(draw(_values()))
        case "multi_choice":
            return MultiChoiceKind(draw(_values(is_multi=True)))
        case "yes_no":
            found = draw(st.lists(texts(), max_size=4, unique_by=key_of))
            found = [text for text in found if key_of(text) not in ("yes", "no")]
            return ChoiceKind({"yes": tuple(found[::2]), "no": tuple(found[1::2])}, name="yes_no")
        case "pattern":
            return PatternKind(draw(patterns()))
        case _:
            return TextKind(draw(st.integers(1, 200)))


@st.composite
def schemas(draw: Any) -> Schema:
    dimensions = draw(_dimensions())
    names = st.one_of(
        _WORDS, st.sampled_from(["net_weight", "Farbe", "色", "रंग", "fat (g/100 g)", "5G", "no", "null"])
    )
    attributes = {}
    names = names.filter(lambda name: name not in ("image", "index"))
    for name in draw(st.lists(names, min_size=1, max_size=4, unique_by=key_of)):
        kind = draw(_kinds(dimensions))
        question = draw(st.sampled_from([default_question(name), f"{name}: what does it say?", f"no: {name} #?"]))
        not_shown = draw(st.booleans())
        attributes[name] = Attribute(name, question, kind, not_shown, not_shown and draw(st.booleans()))
    return Schema(attributes, dimensions)


@st.composite
def answers(draw: Any, kind: Kind) -> str:
    """A canonical answer within the limits of its kind."""
    match kind:
        case QuantityKind():
            number = _number(draw, kind.integer_digits, kind.decimals, signed=kind.signed)
            return f"{number} {draw(st.sampled_from(kind.units))}"
        case IntegerKind():
            return _number(draw, kind.digits, 0, signed=kind.signed)
        case ChoiceKind():
            return draw(st.sampled_from(list(kind.values)))
        case MultiChoiceKind():
            some = draw(st.sets(st.sampled_from(list(kind.values)), min_size=1))
            return ", ".join(value for value in kind.values if value in some)
        case PatternKind():
            return draw(st.from_regex(kind.pattern.text, fullmatch=True))
        case TextKind():
            words = draw(st.lists(st.text("abcXYZ019é色", min_size=1, max_size=9), min_size=1, max_size=5))
            return " ".join(words)[: kind.max_length].strip()


def _number(draw: Any, integer_digits: int, decimals: int, *, signed: bool) -> str:
    number = str(draw(st.integers(0, 10**integer_digits - 1)))
    if decimals:
        number = format_number(Decimal(f"{number}.{draw(st.integers(0, 10**decimals - 1)):0{decimals}}"))
    is_negative = signed and Decimal(number) != 0 and draw(st.booleans())
    return f"-{number}" if is_negative else number
