"""Three catalogues with attributes of their own: their schemas, and products as people list them, one a row."""

from pathlib import Path
from typing import Any

from tests.dataset_builder.files import jpeg, write_csv

NUTRITION = """
version: 1
units:
  energy:
    kilojoule: {size: 1, spellings: [kJ]}
    kilocalorie: {size: 4.184, spellings: [kcal]}
  mass:
    gram: {size: 1, spellings: [g]}
    milligram: {size: 0.001, spellings: [mg]}
attributes:
  energy: {kind: quantity, units: energy, decimals: 0, question: "How much energy does the panel state?"}
  fat: {kind: quantity, units: mass}
  salt: {kind: quantity, units: mass, not_shown: true, missing_is_not_shown: true}
  servings: {kind: integer, digits: 3}
"""
CLOTHES = """
version: 1
attributes:
  size: {kind: choice, values: [S, M, L, XL]}
  colour: {kind: choice, values: {navy blue: [navy], black: [], off-white: [ecru, cream]}}
  material: {kind: multi_choice, values: [cotton, wool, elastane]}
"""
ELECTRONICS = """
version: 1
units:
  memory:
    gigabyte: {size: 1, spellings: [GB]}
    terabyte: {size: 1000, spellings: [TB]}
  charge:
    milliampere hour: {size: 1, spellings: [mAh]}
  frequency:
    hertz: {size: 1, spellings: [Hz]}
attributes:
  storage: {kind: quantity, units: memory, decimals: 0}
  battery: {kind: quantity, units: charge, decimals: 0}
  refresh rate: {kind: quantity, units: frequency, decimals: 0}
  waterproof: {kind: yes_no, yes: ["true", IP68], no: ["false"]}
  model: {kind: pattern, pattern: "[A-Z]{2}-[0-9]{3,4}"}
"""
SCHEMAS = {"nutrition": NUTRITION, "clothes": CLOTHES, "electronics": ELECTRONICS}

# The columns besides `photo`, and the cells of each product.
PRODUCTS: dict[str, tuple[list[str], list[list[str]]]] = {
    "nutrition": (
        ["energy", "fat", "salt", "servings"],
        [["250 kcal", "1.50g", "", "4"], ["1046 kJ", "20 mg", "0.3 g", "12.0"], ["99.5 kcal", "", "1 volt", "four"]],
    ),
    "clothes": (
        ["size", "colour", "material"],
        [["m", "Navy", "wool / cotton"], ["XL", " ecru ", "elastane and cotton"], ["XXL", "black", ""]],
    ),
    "electronics": (
        ["storage", "battery", "refresh rate", "waterproof", "model"],
        [
            ["512 GB", "5000mAh", "120 Hz", "IP68", "AB-1234"],
            ["1TB", "", "60 hertz", "false", "ab-1234"],
            ["1.5 TB", "5,000 mAh", "[60, 120] Hz", "yes", "CD-123"],
        ],
    ),
}


class Catalogue:
    """A schema.yaml, a folder with a photo of each product, and a CSV with a row per product."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.schema = folder / f"{name}.yaml"
        self.schema.write_text(SCHEMAS[name])
        self.image_dir = folder / "photos"
        self.image_dir.mkdir()
        self.columns, self.cells = PRODUCTS[name]
        self.photos = [f"{number}.jpg" for number in range(len(self.cells))]
        for number, photo in enumerate(self.photos):
            (self.image_dir / photo).write_bytes(jpeg(number))

    def write_wide(self, *, photo: str = "image_link") -> Path:
        rows: list[list[object]] = [[photo, *cells] for photo, cells in zip(self.photos, self.cells, strict=True)]
        return write_csv(self.folder / "products.csv", [photo, *self.columns], rows)

    def write_long(self) -> Path:
        """A row per product and attribute, those with empty cells too."""
        rows: list[list[object]] = [
            [photo, "g", name, cell]
            for photo, cells in zip(self.photos, self.cells, strict=True)
            for name, cell in zip(self.columns, cells, strict=True)
        ]
        return write_csv(self.folder / "rows.csv", ["image_link", "group_id", "entity_name", "entity_value"], rows)

    def arguments(self) -> list[Any]:
        return ["--schema", self.schema, "--image_dir", self.image_dir, "--output_dir", self.folder / "out"]
