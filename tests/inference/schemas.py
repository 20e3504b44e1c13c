"""Three schemas of other catalogues, each with labels as people write them and their canonical forms."""

from product_vqa.task.attributes import Schema
from product_vqa.task.schema_file import parse_schema

NUTRITION = """version: 1
units:
  energy:
    kilojoule: {size: 1, spellings: [kJ]}
    kilocalorie: {size: 4.184, spellings: [kcal]}
  mass:
    gram: {size: 1, spellings: [g]}
    milligram: {size: 0.001, spellings: [mg]}
attributes:
  energy: {kind: quantity, units: energy}
  fat: {kind: quantity, units: mass, decimals: 1}
  salt: {kind: quantity, units: mass}
  servings: {kind: integer, not_shown: true}
"""
CLOTHES = """version: 1
attributes:
  size: {kind: choice, values: {S: [small], M: [medium], L: [large], "NA": [one size]}}
  colour: {kind: choice, values: {navy blue: [navy], red: [crimson], white: []}, not_shown: true}
  material: {kind: multi_choice, values: [cotton, wool, silk]}
"""
ELECTRONICS = """version: 1
units:
  storage:
    gigabyte: {size: 1, spellings: [GB]}
    terabyte: {size: 1000, spellings: [TB]}
  charge:
    milliampere hour: {size: 1, spellings: [mAh]}
  frequency:
    hertz: {size: 1, spellings: [Hz]}
    kilohertz: {size: 1000, spellings: [kHz]}
attributes:
  memory: {kind: quantity, units: storage, decimals: 0}
  battery: {kind: quantity, units: charge, decimals: 0}
  refresh_rate: {kind: quantity, units: frequency}
  bluetooth: {kind: yes_no, yes: [with], no: [without], not_shown: true}
  model_number: {kind: pattern, pattern: "[A-Z]{2}-[0-9]{3,5}"}
  brand: {kind: text, max_length: 20}
"""
TEXTS = {"nutrition": NUTRITION, "clothes": CLOTHES, "electronics": ELECTRONICS}
SCHEMAS: dict[str, Schema] = {name: parse_schema(text, name=f"{name}.yaml") for name, text in TEXTS.items()}
