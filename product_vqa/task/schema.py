"""The challenge's schema: the attributes ("entities") that the model reads, and the units allowed for each."""

from functools import lru_cache
from pathlib import Path

from product_vqa.task.attributes import Schema
from product_vqa.task.kinds import QuantityKind
from product_vqa.task.schema_file import read_schema

CHALLENGE = read_schema(Path(__file__).with_name("challenge.yaml"))
UNITS_BY_ENTITY: dict[str, tuple[str, ...]] = {
    name: attribute.kind.units
    for name, attribute in CHALLENGE.attributes.items()
    if isinstance(attribute.kind, QuantityKind)
}
ENTITIES: tuple[str, ...] = CHALLENGE.names
UNITS: frozenset[str] = frozenset(CHALLENGE.units)


@lru_cache(maxsize=8)
def is_challenge(schema: Schema) -> bool:
    """Whether these are the challenge's attributes, whether or not an answer may be that the image shows no value."""
    return schema.with_not_shown(()) == CHALLENGE


def is_suitable(unit: str, entity_name: str) -> bool:
    """Return whether `unit` (canonical) is allowed for `entity_name`."""
    return unit in UNITS_BY_ENTITY[entity_name]
