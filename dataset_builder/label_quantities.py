"""Finds numbers with units in labels: the known units in any of their spellings, and others that repeat."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache

from product_vqa.quoting import one_line
from product_vqa.task.kinds import MAX_LABEL_LENGTH
from product_vqa.task.known_units import find_unit, known_units, loose_unit
from product_vqa.task.numbers import NUMBER_PATTERN
from product_vqa.task.schema_file import MAX_DIGITS

MIN_SHARE = 0.7  # of the labels of a quantity have a unit of its dimension
MIN_SHARE_OF_UNIT = 0.0001  # a rarer one is a mistake more often than a unit of the attribute
MIN_SHARE_OF_UNKNOWN = 0.01
MAX_DECIMALS = 4  # of an answer; more (0.30000000000000004) were computed, and are on no product
MAX_UNKNOWN_UNITS = 20  # of an attribute; with more different words, these are not units
_PLAIN = re.compile(rf"(-?{NUMBER_PATTERN})(\s*)([^\d\s.,+-].*)")
_RANGES = (
    re.compile(rf"\[\s*(-?{NUMBER_PATTERN})\s*,\s*-?{NUMBER_PATTERN}(\s*)\]\s*([^\d\s.,+-].*)"),
    re.compile(rf"(-?{NUMBER_PATTERN})(\s*)([^\d\s.,+-][^\d]*?)\s+to\s+-?{NUMBER_PATTERN}\s*[^\d\s.,+-].*"),
)
_WORD = re.compile(r"[^\W\d_]{2,}(?:[ .-][^\W\d_]+)*\.?")  # as a unit that is not known may be


@dataclass
class Quantities:
    """The numbers and units of the labels of one attribute, by number of labels."""

    num_labels: int = 0
    units: Counter[str] = field(default_factory=Counter)  # canonical names of known units
    unknown: Counter[str] = field(default_factory=Counter)  # spellings
    spellings: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))  # unit -> spellings
    numbers: Counter[str] = field(default_factory=Counter)

    @property
    def dimension(self) -> str | None:
        """The dimension of most labels, if these are enough for a quantity."""
        by_dimension: Counter[str] = Counter()
        for unit, count in self.units.items():
            by_dimension[_dimension_by_unit()[unit]] += count
        ((dimension, count),) = by_dimension.most_common(1) or [("", 0)]
        return dimension if count and count >= MIN_SHARE * self.num_labels else None

    @property
    def unknown_units(self) -> dict[str, tuple[str, ...]]:
        """Unit -> its other spellings, if the labels have the units of a dimension that is not known."""
        groups: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for spelling, count in self.unknown.items():
            groups[loose_unit(spelling)][spelling] += count
        frequent = [group for group in groups.values() if group.total() >= MIN_SHARE_OF_UNKNOWN * self.num_labels]
        frequent = sorted((group for group in frequent if group.total() > 1), key=lambda group: -group.total())
        num_labels = sum(group.total() for group in frequent)
        if not frequent or len(frequent) > MAX_UNKNOWN_UNITS or num_labels < 0.9 * self.num_labels:
            return {}
        ordered = ([spelling for spelling, _ in group.most_common()] for group in frequent)
        return {first: tuple(others) for first, *others in ordered}


def find_quantities(labels: Mapping[str, int]) -> Quantities:
    """Read each label as a number and a unit, or a range of such; others count as labels only."""
    found = Quantities()
    for label, count in labels.items():
        found.num_labels += count
        parts = _parse(label)
        if parts is None:
            continue
        number, space, text = parts
        unit = find_unit(text)
        if unit is not None:
            found.units[unit] += count
            found.spellings[unit][text] += count
        elif space and _WORD.fullmatch(text):
            found.unknown[text] += count
        else:
            continue
        found.numbers[number] += count
    return found


def _parse(label: str) -> tuple[str, str, str] | None:
    if len(label) > MAX_LABEL_LENGTH:
        return None
    plain = _PLAIN.fullmatch(label)
    if plain and find_unit(plain[3]) is not None:
        return plain[1], plain[2], plain[3]
    for pattern in _RANGES:
        if found := pattern.fullmatch(label):
            return found[1], found[2], found[3]
    return (plain[1], plain[2], plain[3]) if plain else None


@cache
def _dimension_by_unit() -> dict[str, str]:
    return {unit: dimension for dimension, units in known_units().dimensions.items() for unit in units}


def used_units(found: Quantities, dimension: str) -> dict[str, tuple[str, ...]]:
    """Unit -> its spellings in the labels but for its name, of a known dimension; the order is that of the file."""
    least = max(1, MIN_SHARE_OF_UNIT * found.num_labels)
    return {
        unit: tuple(spelling for spelling, _ in found.spellings[unit].most_common() if spelling != unit)
        for unit in known_units().dimensions[dimension]
        if found.units[unit] >= least
    }


def digit_fields(numbers: Mapping[str, int]) -> dict[str, int | bool]:
    """The fields `decimals` (0 for whole numbers), `integer_digits` and `signed`, where they are not the defaults."""
    digits, decimals = _count_digits(numbers)
    fields: dict[str, int | bool] = {}
    if set(decimals) == {0}:
        fields["decimals"] = 0
    if _most(digits) > 6:
        fields["integer_digits"] = min(_most(digits), MAX_DIGITS)
    if any(Decimal(number) < 0 for number in numbers):
        fields["signed"] = True
    return fields


def describe_numbers(numbers: Mapping[str, int]) -> str:
    """How large they are, as a remark; "" for none."""
    if not numbers:
        return ""
    digits, decimals = _count_digits(numbers)
    values = list(map(Decimal, numbers))
    fraction = f" and {_most(decimals)} after it" if _most(decimals) else ""
    share = "" if _most(digits) == max(digits) and _most(decimals) == max(decimals) else ", most of them"
    least, most = (one_line(f"{value:f}", max_length=30) for value in (min(values), max(values)))
    return f"numbers from {least} to {most}: up to {_most(digits)} digits before the point{fraction}{share}"


def _count_digits(numbers: Mapping[str, int]) -> tuple[Counter[int], Counter[int]]:
    """How many digits numbers have before the point, and after it without zeros at the end."""
    digits: Counter[int] = Counter()
    decimals: Counter[int] = Counter()
    for number, count in numbers.items():
        integer, _, fraction = number.lstrip("-").partition(".")
        digits[len(integer.lstrip("0")) or 1] += count
        num_decimals = len(fraction.rstrip("0"))
        decimals[min(num_decimals, MAX_DECIMALS)] += count
    return digits, decimals


def _most(counts: Counter[int]) -> int:
    """The least size that 99.5 % of the numbers have at most."""
    seen = 0
    for size in sorted(counts):
        seen += counts[size]
        if seen >= 0.995 * counts.total():
            break
    return size
