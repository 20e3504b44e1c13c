import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from quickstart.contact_sheet import save_contact_sheet


def test_twelve_rows_of_the_test_split_are_shown(tmp_path: Path) -> None:
    image = io.BytesIO()
    Image.new("RGB", (224, 224), "blue").save(image, "JPEG")
    rows = [
        {"index": 100 + number, "image": {"bytes": image.getvalue(), "path": None}, "entity_name": "voltage"}
        for number in range(30)
    ]
    (tmp_path / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / "test-00000-of-00001.parquet")
    for name, column in (("references.csv", "entity_value"), ("predictions.csv", "prediction")):
        lines = [f"index,{column}", *(f"{row['index']},5.0 volt" for row in rows)]
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    save_contact_sheet(
        tmp_path / "sheet.png",
        dataset=tmp_path,
        references=tmp_path / "references.csv",
        predictions=tmp_path / "predictions.csv",
    )
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (1024, 924)  # three rows of four
        assert sheet.getpixel((980, 750)) == (0, 0, 254)  # the twelfth image
