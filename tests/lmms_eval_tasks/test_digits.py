import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from lmms_eval_tasks.digits import DigitSteps, decode_pieces, digit_mode, digit_steps
from lmms_eval_tasks.parsing import parse_count

VECTORS = [
    (["1", "2"], 12, (0, 1), "split"),
    (["12"], 12, (0, 0), "merged"),
    (["There", " are", " ", "1", "2", " dots"], 12, (3, 4), "split"),
    (["7"], 7, (0,), "single"),
    (["10", "5"], 105, (0, 0, 1), "merged"),
    (["1", ",", "0", "2", "4"], 1024, (0, 2, 3, 4), "split"),
    (["tw", "elve"], 12, None, "not_found"),
    # The rest of the rules.
    ([], None, None, "not_found"),
    (["many"], None, None, "not_found"),
    (["1", "12"], 112, (0, 1, 1), "merged"),
    (["7", " + ", "5", " = ", "1", "2"], 12, (4, 5), "split"),
    (["1", "2", " dots, yes ", "12"], 12, (0, 1), "split"),
    (["", "1", "", "", "2", ""], 12, (1, 4), "split"),
    (["0", "1", "2"], 12, (1, 2), "split"),
    (["0", "0"], 0, (1,), "single"),
    (["**1", "2**"], 12, (0, 1), "split"),
    (["１", "２"], 12, (0, 1), "split"),
    (["1", "\u202f", "024"], 1024, (0, 2, 2, 2), "merged"),
    (["<think>", "1", "2", "?", " ", "1", "3", "</think>", "1", "2"], 12, (8, 9), "split"),
    (["<|begin_of_box|>", "1", "5", "<|end_of_box|>"], 15, (1, 2), "split"),
    (["[THINK]", "1", "5", "[/THINK]", "15", " dots"], 15, (4, 4), "merged"),
    (["1", "2", " dozen"], 144, None, "not_found"),
    (["There are ", "3", " rows of ", "4", ", so ", "1", "2"], 12, (5, 6), "split"),
    (["\ufffd", "1", "2"], 12, (1, 2), "split"),
]


def read(pieces, mode="first"):
    """The digits of what the parser reads in the pieces."""
    parsed = parse_count("".join(pieces), mode=mode)
    return digit_steps(pieces, parsed.value, parsed.span, mode=mode)


@pytest.mark.parametrize(("pieces", "value", "steps", "status"), VECTORS)
def test_each_digit_has_the_step_of_the_token_that_carries_it(pieces, value, steps, status):
    assert parse_count("".join(pieces)).value == value
    assert read(pieces) == DigitSteps(steps, status)


MODES = [
    ("final", ["1", "2", "? ", "1", "6", ". Answer: ", "1", "2"], 12, (6, 7), "split"),
    ("final", ["1", ", 2, ", "7", ". Answer: ", "7"], 7, (4,), "single"),
    ("reversed", ["2", "1"], 12, (0, 1), "split"),
    ("reversed", ["0", "1"], 10, (0, 1), "split"),
    ("reversed", ["01"], 10, (0, 0), "merged"),
    ("reversed", ["1", "0"], 1, (0,), "single"),
    ("reversed", ["2", ",", " ", "1"], 12, (0, 3), "split"),
    ("reversed", ["Units: ", "2", ", tens: ", "1"], 12, (1, 3), "split"),
    ("reversed", ["Tens: ", "1", ", units: ", "2"], 12, None, "not_found"),
    ("reversed", ["twelve"], 12, None, "not_found"),
]


@pytest.mark.parametrize(("mode", "pieces", "value", "steps", "status"), MODES)
def test_the_digits_are_found_where_the_mode_of_parsing_reads_them(mode, pieces, value, steps, status):
    assert parse_count("".join(pieces), mode=mode).value == value
    assert read(pieces, mode) == DigitSteps(steps, status)


def test_digits_elsewhere_than_in_the_span_are_not_looked_for():
    assert digit_steps(["1", "2", " or ", "1", "3"], 12, (3, 7)) == DigitSteps(None, "not_found")
    assert digit_steps(["1", "2"], 12, None) == DigitSteps(None, "not_found")


@given(st.integers(0, 9999), st.data())
def test_a_count_that_the_parser_reads_in_digits_is_found_however_it_is_cut(value, data):
    reply = data.draw(st.sampled_from(["{}", "{:,}", "There are {} dots.", "**{}**", "x {:04}"])).format(value)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(reply)))))
    pieces = [reply[start:end] for start, end in zip([0, *cuts], [*cuts, len(reply)], strict=True)]
    assert parse_count(reply).value == value
    found = read(pieces)
    assert found.status != "not_found"
    assert len(found.steps) == len(str(value))
    for step, digit in zip(found.steps, str(value), strict=True):
        assert digit in pieces[step]
    assert list(found.steps) == sorted(found.steps)
    assert (found.status == "merged") == (len(set(found.steps)) < len(found.steps))


@pytest.fixture(scope="module")
def byte_level():
    """A byte-level BPE as Qwen's and GPT's, with a token of two digits, and one that ends amid a full-width digit."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("1", "2"), ("ï", "¼")]  # the stand-ins for the bytes ef and bc
    tokens = [*alphabet, "12", "ï¼"]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


BYTE_LEVEL = [
    ("34 dots", 34, ("3", "4", " ", "d", "o", "t", "s"), (0, 1), "split"),
    ("12", 12, ("12",), (0, 0), "merged"),
    ("３４", 34, ("", "３", "", "４"), (1, 3), "split"),
    ("è: ７", 7, ("", "è", ":", " ", "", "７"), (5,), "single"),
    ("٣٤", 34, ("", "٣", "", "٤"), (1, 3), "split"),
    ("3\u202f045", 3045, ("3", "", "", "\u202f", "0", "4", "5"), (0, 4, 5, 6), "split"),
    ("3,045", 3045, ("3", ",", "0", "4", "5"), (0, 2, 3, 4), "split"),
]


@pytest.mark.parametrize(("reply", "value", "pieces", "steps", "status"), BYTE_LEVEL)
def test_a_digit_of_several_byte_tokens_is_at_the_one_that_completes_it(
    byte_level, reply, value, pieces, steps, status
):
    found = decode_pieces(byte_level.encode(reply).ids, decode=byte_level.decode)
    assert found == pieces
    assert parse_count("".join(found)).value == value
    assert read(found) == DigitSteps(steps, status)


@given(st.text(max_size=30))
def test_the_pieces_of_any_reply_are_as_many_as_its_tokens_and_join_to_it(byte_level, reply):
    ids = byte_level.encode(reply).ids
    pieces = decode_pieces(ids, decode=byte_level.decode)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == reply


def test_a_reply_that_stops_amid_a_character_keeps_what_is_there(byte_level):
    ids = byte_level.encode("4 ３").ids[:-1]
    assert decode_pieces(ids, decode=byte_level.decode) == ("4", " ", "\ufffd")
    assert decode_pieces([], decode=byte_level.decode) == ()


def test_the_digits_of_a_task_are_found_as_its_metadata_says():
    for metadata, mode in (
        ({"halo_digits": True}, "first"), ({"halo_digits": "final"}, "final"), ({"halo_digits": False}, None),
        ({"version": 1}, None), ([{"version": 1}], None), (None, None),
    ):  # fmt: skip
        assert digit_mode(metadata) == mode


def test_the_pieces_are_not_changed():
    pieces = ["1", "2"]
    digit_steps(pieces, 12, (0, 2))
    assert pieces == ["1", "2"]
