import pytest

from product_vqa.errors import InputError, argument, first_line


def test_an_error_is_prefixed_with_the_innermost_argument_once() -> None:
    with pytest.raises(InputError) as raised, argument("dataset"), argument("adapter"):
        raise InputError("user/x: no such model repo")
    assert str(raised.value) == "`adapter` user/x: no such model repo"


def test_other_errors_are_not_changed() -> None:
    with pytest.raises(ValueError, match="five") as raised, argument("adapter"):
        raise ValueError("five")
    assert type(raised.value) is ValueError


def test_a_block_without_an_error_passes_through() -> None:
    with argument("adapter"):
        found = 1
    assert found == 1


@pytest.mark.parametrize(
    ("message", "expected"),
    [("one\ntwo", "one"), ("\n  two  \nthree", "two"), ("", "ValueError"), (" \n ", "ValueError")],
)
def test_the_first_line_of_a_message_or_the_type_of_the_error(message: str, expected: str) -> None:
    assert first_line(ValueError(message)) == expected
