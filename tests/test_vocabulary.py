"""The vocabulary check finds what it should, wherever it is written, and nothing else."""

import pytest

from tests.vocabulary import offences


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Pictures are resized.", [(1, "pictures", "image")]),
        ("def prepare_picture(", [(1, "picture", "image")]),
        ("class StoredPictureError:", [(1, "picture", "image")]),
        ("a row\n    # that is left\n    # out", [(2, "left # out", "dropped, filtered out")]),
        ("def left_out(", [(1, "left_out", "dropped, filtered out")]),
        ("mend\n\nits runners-up", [(1, "mend", "fix"), (3, "runners-up", "alternative")]),
        ("40 rows a second", [(1, "rows a second", "samples/s")]),
        ("this is no number", [(1, "is no", "is not a, there is no")]),
        ("Whose image cannot be had", [(1, "be had", "be downloaded, loaded, found")]),
    ],
)
def test_words_are_found_in_prose_identifiers_and_across_lines(text: str, found: list[tuple[int, str, str]]) -> None:
    assert sorted(offences(text)) == found


@pytest.mark.parametrize(
    "text",
    [
        "the column image_link, the file left_out.csv, the reason not_a_picture",
        "there\n    is no image, and it is no longer needed",
        "ground truth to three significant figures",
        "a believer standing outside: relied, blanket, saidlike",
        "besides, W stands for watt",
    ],
)
def test_other_words_pass(text: str) -> None:
    assert list(offences(text)) == []
