import pytest

from product_vqa.task.texts import has_invisible, is_mark, looks_like_token, text_problem


@pytest.mark.parametrize(
    "text", ["navy blue", "kΩ", "5 µm", "रंग", "色 color", "цвет colour", "μ_x", "a<b", "x > y", "🎨", "ß"]
)
def test_what_can_be_seen_is_accepted(text: str) -> None:
    assert text_problem(text, max_chars=20) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "empty"), ("x" * 21, "21 characters"), (" a", "a space"), ("a  b", "a space"), ("a\tb", "a space"),
        ("a\u00a0b", "a space"), ("a\n", "a space"), ("a\x1bb", "U+001B"), ("a\u200db", "U+200D"),
        ("a\u00adb", "U+00AD"), ("\ufeffa", "U+FEFF"), ("a\ufe0f", "U+FE0F"), ("\u3164", "U+3164"), 
        ("\u2800", "U+2800"), ("a\u034f", "U+034F"),
        ("e\u0301", "not composed"), ("\u212b", "not composed"), ("\u0301", "U+0301"), ("<eos>", "a token"),
        ("a <start_of_turn> b", "a token"), ("pаypal", "Latin and Cyrillic"), ("Αpple", "Latin and Greek"),
        ("red_сolour", "Latin and Cyrillic"),
    ],
)  # fmt: skip
def test_what_cannot_be_seen_is_named(text: str, problem: str) -> None:
    found = text_problem(text, max_chars=20)
    assert found is not None and problem in found[0]
    assert found[1] and all(part.isprintable() for part in found)


def test_tokens_marks_and_invisible_characters() -> None:
    assert looks_like_token("a<image>b") and not looks_like_token("a < b > c") and not looks_like_token("<>")
    assert has_invisible("a\u180eb") and not has_invisible("a b")
    assert is_mark("\u0301") and is_mark("\u0940") and not is_mark("a")
