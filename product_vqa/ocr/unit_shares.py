"""How usual each unit is in the labels of an attribute, for the rules that rank candidates."""

from collections import Counter, defaultdict
from collections.abc import Iterable

from product_vqa.task.attributes import Schema
from product_vqa.task.kinds import QuantityKind


def count_shares(labels: Iterable[tuple[str, str | None, int]], schema: Schema) -> dict[str, dict[str, float]]:
    """Attribute -> unit -> its share of the labels; a label is its entity_name, `500.0 gram`, and its number of rows.

    Labels without a unit of their attribute do not count.
    """
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for name, label, number in labels:
        attribute = schema.attributes.get(name)
        if attribute is None or not isinstance(attribute.kind, QuantityKind):
            continue
        unit = attribute.kind.split(label or "")[1]
        if unit in attribute.kind.units:
            counts[name][unit] += number
    return {name: {unit: number / found.total() for unit, number in found.items()} for name, found in counts.items()}
