import pytest

from product_vqa.errors import InputError
from product_vqa.tables.cells import cell_text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""), (float("nan"), ""), (float("inf"), ""), (True, "yes"), (False, "no"), (24, "24"), (24.0, "24.0"),
        (1e-7, "0.0000001"), (1e22, "10000000000000000000000"), ("1.50 g", "1.50 g"),
        (["cotton", "wool"], "cotton, wool"), ([], ""),
    ],
)  # fmt: skip
def test_a_value_has_one_text(value: object, text: str) -> None:
    assert cell_text(value, where="w") == text


@pytest.mark.parametrize(("value", "what"), [({"a": 1}, "an object"), (b"\xff", "binary"), ([{"a": 1}], "an object")])
def test_what_cannot_be_a_cell_is_named(value: object, what: str) -> None:
    with pytest.raises(InputError, match=f"^a.jsonl, line 3: size is {what}; write a text, a number"):
        cell_text(value, where="a.jsonl, line 3: size")
