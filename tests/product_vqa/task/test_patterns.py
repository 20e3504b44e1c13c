import random
import re
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from outlines_core import Index, Vocabulary

from product_vqa.task.patterns import MAX_COST, Pattern, PatternError
from tests.product_vqa.task.schema_strategies import pattern_texts, patterns


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("[A-Z]{2}[0-9]{1,3}", ["AB1", "XY123"], ["AB", "ab1", "AB1234", "ABC1", "", " AB1", "AB1\n"]),
        ("(?:EU|UK) [0-9]{2}(\\.5)?", ["EU 42", "UK 42.5"], ["US 42", "EU 42.", "EU42", "EU 42.5.5"]),
        ("a|bc?", ["a", "b", "bc"], ["ab", "c", "abc"]),
        ("(a|)b", ["b", "ab"], ["a", "aab", ""]),
        ("[a-]", ["a", "-"], ["b"]),
        ("[-a]", ["a", "-"], ["b"]),
        ("[\\]\\^\\\\\\-]", ["]", "^", "\\", "-"], ["a", "["]),
        ("[!-/]", ["!", "&", "/"], ["0"]),
        ("\\(\\)\\*\\+\\?\\.\\/", ["()*+?./"], ["()*+?x/"]),
        ("#&~,:", ["#&~,:"], ["&~,:"]),
        ("[é色]{2}", ["é色"], ["e色"]),
        ("[0-9]{2}", ["42"], ["٤٢", "²³"]),
    ],
)
def test_a_pattern_matches_complete_texts(pattern: str, matching: list[str], others: list[str]) -> None:
    compiled = Pattern(pattern)
    assert [text for text in matching if not compiled.matches(text)] == []
    assert [text for text in others if compiled.matches(text)] == []


def test_a_pattern_knows_its_longest_answer_and_its_characters() -> None:
    pattern = Pattern("(AB|C{1,3})-[0-2]?")
    assert pattern.max_chars == 5
    assert pattern.characters == frozenset("ABC-012")


@pytest.mark.parametrize("pattern", ["a" * 64, "a{64}", "(a{8}){8}", "[a-z]{0,63}a"])
def test_answers_of_64_characters_are_possible(pattern: str) -> None:
    assert Pattern(pattern).max_chars == 64


@pytest.mark.parametrize(
    "pattern", ["a{65}", "a{0}", "a{3,2}", "a{1,2}?", "a{2}+", "a??", "{2}", "(?i)a", "[[:alpha:]]", "[]a]"]
)
def test_what_means_something_else_elsewhere_is_refused(pattern: str) -> None:
    with pytest.raises(PatternError):
        Pattern(pattern)


def test_a_hostile_text_takes_no_longer_than_others() -> None:
    """Python's `re` takes 2**30 steps here: each character takes one of this table."""
    pattern = Pattern("(a?){30}a{30}")
    assert pattern.matches("a" * 30) and pattern.matches("a" * 60)
    assert not pattern.matches("a" * 29) and not pattern.matches("a" * 61)
    assert not pattern.matches("a" * 10_000_000)
    assert Pattern("((a|b)?(a|c)?(a|d)?){20}e").matches("a" * 60 + "e")


def test_the_cost_of_a_pattern_is_limited() -> None:
    assert Pattern("[A-Z0-9-]{3,40}").cost < 1000
    assert Pattern("x([!-~]?[!-~]?|[!-~]?[a-z]?){30}").cost <= MAX_COST


_INSERTED = st.text("abcXYZ019-/ é色ß_#&~,:.()[]|\\?", max_size=3)


def _python(pattern: Pattern) -> re.Pattern[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # about what a later Python would read otherwise
        return re.compile(pattern.text)


@settings(max_examples=200)
@given(data=st.data(), pattern=patterns())
def test_a_pattern_means_the_same_to_python(data: st.DataObject, pattern: Pattern) -> None:
    compiled = _python(pattern)
    text = data.draw(st.from_regex(compiled, fullmatch=True))
    assert pattern.matches(text)
    position, count = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, 2))
    changed = text[:position] + data.draw(_INSERTED) + text[position + count :]
    assert pattern.matches(changed) == (compiled.fullmatch(changed) is not None)
    assert len(text) <= pattern.max_chars and set(text) <= pattern.characters
    assert text == text.strip()


@settings(max_examples=100)
@given(data=st.data(), pattern=patterns())
def test_a_pattern_means_the_same_to_outlines(data: st.DataObject, pattern: Pattern) -> None:
    """The automaton of the answers is made by outlines-core.

    It stops at the first match (`a` of `ab`, for `a|ab`), so a line break after the pattern is the only end.
    """
    characters = ["\n", *sorted(pattern.characters | set("aA0-"))]
    vocabulary = Vocabulary(0, {char: [number] for number, char in enumerate(characters, start=1)})
    index = Index(f"({pattern.text})\n", vocabulary)

    def accepts(text: str) -> bool:
        state = index.get_initial_state()
        for char in f"{text}\n":
            following = index.get_next_state(state, characters.index(char) + 1) if char in characters else None
            if following is None:
                return False
            state = following
        return index.is_final_state(state)

    text = data.draw(st.from_regex(_python(pattern), fullmatch=True))
    assert accepts(text)
    position, count = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, 2))
    changed = text[:position] + "".join(data.draw(st.lists(st.sampled_from(characters[1:]), max_size=2)))
    changed += text[position + count :]
    assert accepts(changed) == pattern.matches(changed)


@settings(max_examples=200)
@given(text=st.one_of(pattern_texts(), st.text("ab()[]{}|?-^\\,019 &~", max_size=20)))
def test_a_pattern_is_refused_in_words_or_accepted_by_python(text: str) -> None:
    try:
        pattern = Pattern(text)
    except PatternError as error:
        message = str(error)
    else:
        message = ""
        _python(pattern)
    assert message.isprintable() and len(message) < 300


@settings(max_examples=100)
@given(pattern=patterns(), seed=st.integers(0, 1000))
def test_a_text_that_is_drawn_matches(pattern: Pattern, seed: int) -> None:
    text = pattern.draw(random.Random(seed))
    assert pattern.matches(text) and text == pattern.draw(random.Random(seed))
