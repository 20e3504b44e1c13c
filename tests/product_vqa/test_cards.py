"""What is edited by hand in a card stays; what is not is brought up to date."""

import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from product_vqa.cards import mark_card, merge_cards
from product_vqa.errors import InputError

CARD = """---
license: other
tags:
- ours
configs:
- config_name: default
  data_files: data/*
---

# Title

{rows} rows.

## Use

```sh
## a comment, no heading
run it
```

## Licence

None.
"""


def card(rows: int = 1) -> str:
    return mark_card(CARD.format(rows=rows))


def metadata(text: str) -> dict:
    return yaml.safe_load(re.match(r"---\r?\n(.*?)^---", text, re.DOTALL | re.MULTILINE)[1])


def edit(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, text
    return text.replace(old, new)


def test_a_card_that_nobody_edited_becomes_the_new_one() -> None:
    assert merge_cards(card(2), card(1)) == card(2)


def test_a_section_begins_at_a_heading_and_not_in_code() -> None:
    assert re.findall("generated begin: (.*) [0-9a-f]{12} -->", card()) == ["title", "Use", "Licence"]


EDITS = {
    "text above": ("\n<!-- Parts", "\nOWN\n\n<!-- Parts"),
    "text between": ("\n<!-- product-vqa: generated begin: Use", "\nOWN\n\n<!-- product-vqa: generated begin: Use"),
    "a sentence of ours": ("run it", "OWN"),
    "a paragraph in a section": ("None.", "None.\n\nOWN"),
    "a heading": ("## Use", "## OWN"),
    "a section within a section": ("run it\n```", "run it\n```\n\n## OWN\n\nmine"),
    "a tag": ("- ours", "- ours\n- OWN"),
    "a comment in the metadata": ("tags:", "# OWN\ntags:"),
    "a licence": ("license: other", "license: OWN"),
    "a key": ("license: other", "license: other\npretty_name: OWN"),
    "a quoted key": ("license: other", "license: other\n'OWN': 1"),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_stays_and_the_rest_is_brought_up_to_date(name: str) -> None:
    edited = edit(card(1), *EDITS[name])
    assert merge_cards(card(1), edited) == edited, "nothing to do: not a byte changes"
    merged = merge_cards(card(2), edited)
    title = re.compile(r"generated begin: title .*?generated end", re.DOTALL)
    assert merged == title.sub(title.search(card(2))[0], edited)
    assert "2 rows." in merged and "OWN" in merged
    assert merge_cards(card(2), merged) == merged


def test_text_behind_all_marks_stays() -> None:
    edited = card(1) + "\n## My own section\n\nOWN\n"
    assert merge_cards(card(2), edited) == card(2) + "\n## My own section\n\nOWN\n"


def test_an_edited_section_stays_although_its_new_text_differs() -> None:
    merged = merge_cards(card(2), edit(card(1), "1 rows.", "About 1 row."))
    assert "About 1 row." in merged and "2 rows." not in merged


def test_what_was_removed_stays_removed() -> None:
    begin = card().index("<!-- product-vqa: generated begin: Use")
    end = card().index("<!-- product-vqa: generated begin: Licence")
    edited = card()[:begin] + card()[end:]
    edited = edit(edited, "tags:\n- ours\n", "")
    merged = merge_cards(card(2), edited)
    assert "run it" not in merged and "2 rows." in merged
    assert metadata(merged).keys() == {"license", "configs"}
    assert "run it" not in merge_cards(card(3), merged), "nor does it come back later"


def test_what_is_new_is_added_and_what_is_no_more_goes() -> None:
    text = CARD.format(rows=2).replace("license: other\n", "size: 3\n")
    new = mark_card(text.replace("## Licence", "## More\n\nm\n\n## Licence"))
    for old in (card(1), card(1) + "\nOWN\n"):
        merged = merge_cards(new, old)
        assert re.findall("^# .*|^## [^a].*", merged, re.MULTILINE) == ["# Title", "## Use", "## More", "## Licence"]
        assert metadata(merged).keys() == {"size", "tags", "configs"}
        back = merge_cards(card(1), merged)
        assert "## More" not in back and metadata(back)["license"] == "other"


def test_what_reading_needs_is_never_left_as_it_was() -> None:
    edited = edit(card(1), "data/*", "elsewhere/*")
    assert metadata(merge_cards(card(2), edited))["configs"][0]["data_files"] == "elsewhere/*"
    assert metadata(merge_cards(card(2), edited, needed=("configs",)))["configs"][0]["data_files"] == "data/*"


def test_a_card_without_marks_is_its_owners(caplog: pytest.LogCaptureFixture) -> None:
    own = "---\nlicense: mit # mine\nconfigs: []\n---\n# My own\n\ntext\n"
    merged = merge_cards(card(), own, needed=("configs",))
    assert metadata(merged)["configs"] == metadata(card())["configs"]
    assert merged.endswith("# My own\n\ntext\n") and merged.startswith("---\nlicense: mit # mine\n")
    assert "no marks of product-vqa: it stays as it is, but for configs" in caplog.text
    assert merge_cards(card(), own) == own
    assert metadata(merge_cards(card(), "# bare\n", needed=("configs",))) == {"configs": metadata(card())["configs"]}


def test_a_card_of_metadata_alone_gets_the_text() -> None:
    merged = merge_cards(card(), "---\nlicense: mit\n---\n")  # as the Hub's page makes it with a new repo
    assert metadata(merged) == metadata(card()) | {"license": "mit"}
    assert "## Use" in merged and metadata(merge_cards(card(2), merged))["license"] == "mit"


@pytest.mark.parametrize("old", ["", "\n", "---\n- a list\n---\n"])
def test_nothing_and_nonsense_become_the_new_card(old: str) -> None:
    assert merge_cards(card(), old) == card()


def test_metadata_that_is_not_yaml_is_an_error_and_nothing_is_lost() -> None:
    broken = card().replace("license: other", "license: cc-by-4.0\nmine: a: b")
    with pytest.raises(InputError, match=r"README.md begins with metadata that is not YAML .*; fix it or delete"):
        merge_cards(card(2), broken)


@pytest.mark.parametrize(
    "front",
    [
        "tags:\n- a\n# why b\n- b\nlicense: other\n",
        "{license: mit, mine: 3}\n",
        'license: other\n"x:y": 1\ntags:\n- a\n',
        "? license\n: mit\n",
        "configs:\n- config_name: default\n# without images\n- config_name: rows\n",
    ],
)
def test_metadata_of_any_layout_mean_what_they_should_after_a_merge(front: str) -> None:
    body = card()[card().index("\n---\n") + len("\n---\n") :]
    old = f"---\n{front}---\n{body}"
    for new in (card(2), card(3)):
        old = merge_cards(new, old, needed=("configs",))
        assert metadata(old) == yaml.safe_load(front) | {"configs": metadata(new)["configs"]}
        assert merge_cards(new, old, needed=("configs",)) == old


@pytest.mark.parametrize("record", [None, "{}", '{"a": 1}', "{'a'}"])
def test_without_its_record_the_metadata_is_its_owners(record: str | None) -> None:
    state = f"<!-- product-vqa: generated {record} -->\n" if record else ""
    edited = re.sub(r"<!-- product-vqa: generated \{.*\n", state, card(1)).replace("license: other", "license: mit")
    merged = merge_cards(card(2), edited)
    assert metadata(merged)["license"] == "mit" and "2 rows." in merged


def test_line_ends_of_another_editor_stay_and_are_no_edit() -> None:
    windows = card(1).replace("\n", "\r\n")
    assert merge_cards(card(1), windows) == windows
    assert merge_cards(card(2), windows) == card(2).replace("\n", "\r\n")


def test_of_two_edited_cards_each_keeps_its_own() -> None:
    local = edit(card(1), "None.", "LOCAL")
    assert merge_cards(local, card(1)) == local
    there = edit(edit(card(1), "run it", "THERE"), "- ours", "- THERE")
    merged = merge_cards(local, there)
    assert "LOCAL" in merged and merged.count("THERE") == 2
    both = merge_cards(edit(card(1), "run it", "LOCAL"), there)
    assert "THERE" in both and "LOCAL" not in both


LETTERS = st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"])
WORDS = st.text(LETTERS, max_size=20).map("x{}x".format)


@settings(max_examples=150, deadline=None)
@given(line=st.integers(0, 60), words=WORDS, tags=st.lists(WORDS, max_size=3))
def test_no_line_written_anywhere_is_lost(line: int, words: str, tags: list[str]) -> None:
    front, body = card(1).split("---\n", 2)[1:]
    lines = body.splitlines(keepends=True)
    lines.insert(min(line, len(lines)), f"OWN {words}\n")
    front = yaml.safe_dump(yaml.safe_load(front) | {"tags": tags}, allow_unicode=True)
    merged = merge_cards(card(2), f"---\n{front}---\n{''.join(lines)}")
    assert f"OWN {words}\n" in merged
    assert metadata(merged)["tags"] == tags
    assert merge_cards(card(2), merged) == merged
