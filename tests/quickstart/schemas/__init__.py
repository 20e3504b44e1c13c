"""Three foreign schemas, which labels are rendered for."""

from pathlib import Path

from product_vqa.task.schema_file import read_schema

SCHEMAS = {file.stem: read_schema(file) for file in sorted(Path(__file__).parent.glob("*.yaml"))}
assert len(SCHEMAS) == 3
