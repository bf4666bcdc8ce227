"""Words of a rule: cut and quoted as iptables-restore does it."""

from __future__ import annotations

import pytest

from fwguardd.ruleset.tokenizer import UnterminatedQuoteError, Word, iterate_words, quote, split_words, word_values

CUT = [
    ("", []),
    (" \t ", []),
    ("-A  INPUT\t-j ACCEPT ", ["-A", "INPUT", "-j", "ACCEPT"]),
    ('--comment "two words"', ["--comment", "two words"]),
    ('pre"fix ed"', ["prefix ed"]),
    ('"a b"c', ["a b", "c"]),
    ('"a""b"', ["a", "b"]),
    ('""', [""]),
    (r'"say \"hi\" \\ \n"', [r'say "hi" \ n']),
    (r"back\slash it's 'one two'", ["back\\slash", "it's", "'one", "two'"]),
    ("a\xa0b\u2003c", ["a\xa0b\u2003c"]),
    ('x\\"y z"', ["x\\y z"]),
]


@pytest.mark.parametrize(("line", "words"), CUT)
def test_words_are_cut_at_blanks_and_quotes(line: str, words: list[str]) -> None:
    """Spaces and tabs part words; a quote opens anywhere, and its closing quote ends the word."""
    assert [word.value for word in split_words(line)] == words
    assert list(word_values(line)) == words


def test_a_word_knows_its_place() -> None:
    """Places are those of the line as written, quotes included, the end exclusive."""
    assert split_words('-A "x y"') == (Word("-A", 0, 2), Word("x y", 3, 8))


@pytest.mark.parametrize(("line", "column"), [('a "b', 3), ('"', 1), ('"a" b"c', 6), ('"ends in \\', 1), ('"a\\"', 1)])
def test_an_open_quote_is_an_error_with_its_column(line: str, column: int) -> None:
    """A quote that is never closed is an error at the quote, counted from 1."""
    for cut in (split_words, word_values):
        with pytest.raises(UnterminatedQuoteError) as caught:
            cut(line)
        assert caught.value.column == column


def test_an_open_quote_in_a_part_that_is_not_read_is_no_error() -> None:
    """Words come one by one, so what stands before the open quote can be had."""
    words = iterate_words('-A INPUT "open')
    assert [next(words).value, next(words).value] == ["-A", "INPUT"]


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ("plain", "plain"),
        ("two words", '"two words"'),
        ("", '""'),
        ("#x", '"#x"'),
        ("a#x", "a#x"),
        ('"', r'"\""'),
        ("a\\", r'"a\\"'),
    ],
)
def test_only_what_needs_quotes_gets_them(value: str, quoted: str) -> None:
    """A word that would be read as another one without quotes is quoted."""
    assert quote(value) == quoted
    assert word_values(quoted) == (value,)


def test_a_long_line_of_quotes_is_cut_quickly() -> None:
    """No input makes the splitter slower than its length."""
    assert len(split_words('"a" ' * 100_000)) == 100_000
    with pytest.raises(UnterminatedQuoteError):
        split_words('"' + '\\"' * 1_000_000)
