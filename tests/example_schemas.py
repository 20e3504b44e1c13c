"""The schemas of docs/schemas, which readers start from: three catalogues with attributes of their own."""

from product_vqa.task.schema_file import read_schema
from tests.commands import ROOT

FOLDER = ROOT / "docs" / "schemas"
SCHEMAS = {file.stem: read_schema(file) for file in sorted(FOLDER.glob("*.yaml"))}
assert list(SCHEMAS) == ["clothes", "electronics", "nutrition"]
