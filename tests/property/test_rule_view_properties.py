"""Views of rule texts: every option that was written is read, in its place, and no text raises an error."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from fwguardd.ruleset.rule_view import Option, RuleView, jump_target
from fwguardd.ruleset.tokenizer import UnterminatedQuoteError, quote, word_values
from tests.property.rule_strategies import PRINTABLE, rule_texts

SPELLINGS = {
    "-s": ("-s", "--source", "--src", "--sou"),
    "-d": ("-d", "--destination", "--dst", "--dest"),
    "-p": ("-p", "--protocol", "--proto", "--pr"),
    "-i": ("-i", "--in-interface", "--in-int"),
    "-o": ("-o", "--out-interface", "--out"),
    "-m": ("-m", "--match", "--mat"),
    "-j": ("-j", "--jump"),
    "-g": ("-g", "--goto"),
    "--dport": ("--dport", "--destination-port"),
    "--sports": ("--sports", "--source-ports"),
    "--log-prefix": ("--log-prefix", "--log-pre"),
    "--comment": ("--comment", "--comm"),
    "--ctstate": ("--ctstate",),
    "--limit-burst": ("--limit-burst",),
}
FREE_TEXT = ("--log-prefix", "--comment", "-i", "-o")
PLAIN = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=8).filter(
    lambda value: value[0] not in "-!"
)


@st.composite
def options(draw: st.DrawFn) -> Option:
    """An option with one value, or a flag; in free text anything may stand."""
    name = draw(st.sampled_from((*SPELLINGS, "--syn")))
    if name == "--syn":
        return Option(name, (), draw(st.booleans()))
    return Option(name, (draw(PRINTABLE if name in FREE_TEXT else PLAIN),), draw(st.booleans()))


@st.composite
def spelled(draw: st.DrawFn, option: Option) -> str:
    """One of the ways in which people write an option."""
    negation = draw(st.sampled_from(("! ", "!\t", '"!" '))) if option.negated else ""
    if not option.values:
        return f"{negation}{option.name}"
    value = quote(option.value)
    spelling = draw(st.sampled_from(SPELLINGS[option.name]))
    blank = draw(st.sampled_from((" ", "  ", "\t")))
    if spelling.startswith("--") and option.value != value[1:-1]:
        blank = draw(st.sampled_from((blank, "=")))
    return f"{negation}{spelling}{blank}{value}"


@given(st.data(), st.lists(options(), max_size=6))
def test_every_option_that_was_written_is_read(data: st.DataObject, wanted: list[Option]) -> None:
    """Names, values and negations come back as they were meant, however they are spelled and quoted."""
    policy = Option("-m", ("policy",)) in wanted
    wanted = [option for option in wanted if not policy or option.name != "-p"]
    text = data.draw(st.sampled_from((" ", "\t", "  "))).join(data.draw(spelled(option)) for option in wanted)
    view = RuleView.of(text)
    assert list(view.options) == wanted
    assert view.text == text
    targets = [option for option in wanted if option.name in ("-j", "-g")]
    assert view.target == (targets[0].value if targets else None)


@given(st.one_of(rule_texts(), st.text(st.sampled_from('-jgimsp!="\\ \tab'), max_size=30)))
@example("-s ! -j web")
@example('"a"-j web')
def test_no_word_is_lost_and_none_is_made_up(text: str) -> None:
    """The words of the options in order are the words of the text, apart from their spelling; an open quote hides
    them all."""
    try:
        words = word_values(text)
    except UnterminatedQuoteError:
        assert RuleView.of(text).options == ()
        return
    known = list(words)
    for option in RuleView.of(text).options:
        if option.negated and known[0] == "!":
            known.pop(0)
        word = known.pop(0) if option.name else ""
        if option.negated and known[:1] == ["!"]:
            known.pop(0)
        values = list(option.values)
        if values and word.endswith(values[0]) and known[: len(values)] != values:
            values.pop(0)
        assert known[: len(values)] == values
        del known[: len(values)]
    assert known == []


@given(st.one_of(rule_texts(), st.text(st.sampled_from('-jgis!="\\ \tab'), max_size=30)))
@example("--syn -j web")
@example("-i -j -j web")
@example("-j a\tb")
def test_the_quick_way_to_the_target_is_right(text: str) -> None:
    """What is found without reading the whole text is what reading it finds."""
    assert jump_target(text) == RuleView.of(text).jump_target
