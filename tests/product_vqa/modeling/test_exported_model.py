"""What an exported model records is read back, or refused with the field."""

import json
from pathlib import Path

import pytest

from product_vqa.errors import InputError
from product_vqa.hub import Location
from product_vqa.modeling.exported_model import EXPORT_FILE, Export, load_export_calibration, read_export

EXPORT = Export("user/adapter", "a" * 64, "user/base", "not quantized", "float32", 0.0, 8)


def test_a_record_is_read_back(tmp_path: Path) -> None:
    assert read_export(Location(str(tmp_path))) is None
    EXPORT.save(tmp_path)
    assert read_export(Location(str(tmp_path))) == EXPORT


@pytest.mark.parametrize(
    ("field", "value"),
    [("adapter", None), ("adapter_sha256", 5), ("dtype", "int8"), ("divergence", "x"), ("compared_rows", True)],
)
def test_a_wrong_field_is_named(tmp_path: Path, field: str, value: object) -> None:
    EXPORT.save(tmp_path)
    content = json.loads((tmp_path / EXPORT_FILE).read_text())
    (tmp_path / EXPORT_FILE).write_text(json.dumps(content | {field: value}))
    with pytest.raises(InputError, match=f"`{field}` in its {EXPORT_FILE} is .*export it again"):
        read_export(Location(str(tmp_path)))


def test_a_calibration_counts_only_if_it_was_fitted_on_the_adapter(tmp_path: Path) -> None:
    location = Location(str(tmp_path))
    scalings = {name: {"temperature": 2.0, "bias": 0.0} for name in ("answer", "number", "unit")}
    (tmp_path / "calibration.json").write_text(json.dumps({**scalings, "adapter_sha256": "a" * 64}))
    assert load_export_calibration(location) is None  # of a base model
    EXPORT.save(tmp_path)
    calibration = load_export_calibration(location)
    assert calibration is not None and calibration.answer.temperature == 2.0
    (tmp_path / "calibration.json").write_text(json.dumps({**scalings, "adapter_sha256": "b" * 64}))
    assert load_export_calibration(location) is None
    (tmp_path / "calibration.json").unlink()
    assert load_export_calibration(location) is None
