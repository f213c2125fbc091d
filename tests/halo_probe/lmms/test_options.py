"""Generation options as lmms-eval reads them from its command line."""

import pytest
from lmms_eval.utils import simple_parse_args_string

from halo_probe.errors import UsageError
from halo_probe.lmms.options import most_new_tokens, read_options, stops


def typed(written):
    return read_options(simple_parse_args_string(written))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ('until=["END","7"]', {"until": ["END", "7"]}),
        ("until=['END', 'a, b']", {"until": ["END", "a, b"]}),
        ('until=["\\n\\n"]', {"until": ["\n\n"]}),
        ("until=END", {"until": "END"}),
        ('until="7"', {"until": "7"}),
        ("until=None", {"until": None}),
        ("until=[]", {"until": []}),
        ("max_new_tokens=16.0,top_k=3", {"max_new_tokens": 16, "top_k": 3}),
        ("temperature=null,top_p=0.9", {"temperature": None, "top_p": 0.9}),
        ("do_sample=1,use_cache=false", {"do_sample": True, "use_cache": False}),
        ('sequence_bias={"[1]": -2.0}', {"sequence_bias": {"[1]": -2.0}}),
        ("bad_words_ids=[[1],[2]]", {"bad_words_ids": [[1], [2]]}),
        ("image_aspect_ratio=pad", {"image_aspect_ratio": "pad"}),
    ],
)
def test_an_option_of_the_command_line_has_the_value_of_its_type(written, expected):
    found = typed(written)
    assert found == expected
    assert [type(one) for one in found.values()] == [type(one) for one in expected.values()]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("until=7", r'until=7: use text, or several in brackets and quotes, such as until=\["END","7"\]'),
        ("until=true", "until=True: use text"),
        ("until=[END,STOP]", r"until=\[END,STOP\]: cannot be read; put each text of a list in quotes"),
        ('until=["END",7]', "use text"),
        ("max_new_tokens=many", "max_new_tokens=many: use a whole number, such as max_new_tokens=16"),
        ("max_new_tokens=1.5", "use a whole number"),
        ("num_beams=true", "use a whole number"),
        ("temperature=warm", "temperature=warm: use a number, such as temperature=0.7"),
        ("do_sample=yes", "do_sample=yes: use do_sample=True or do_sample=False"),
    ],
)
def test_a_value_of_another_type_is_one_line_that_says_what_to_write(written, message):
    with pytest.raises(UsageError, match=message):
        typed(written)


def test_options_of_a_file_are_left_as_they_are():
    options = {"until": ["\n\n", "[END]"], "temperature": 0, "max_new_tokens": 16, "do_sample": False, "top_p": None}
    assert read_options(options) == options


@pytest.mark.parametrize(
    ("options", "prompt", "expected"),
    [
        ({"max_new_tokens": 4, "max_gen_toks": 9}, None, 4),
        ({"max_new_tokens": None, "max_gen_toks": 9}, 100, 9),
        ({"max_length": 120}, 100, 20),
        ({"max_length": 90}, 100, 0),
        ({"max_length": 120, "max_gen_toks": 9}, 100, 9),
        ({"max_length": 120}, None, None),
        ({}, 100, None),
    ],
)
def test_the_length_of_a_reply_goes_by_one_rule(options, prompt, expected):
    assert most_new_tokens(options, prompt=prompt) == expected


@pytest.mark.parametrize(
    ("until", "expected"), [(None, ()), ("END", ("END",)), (["a", "b"], ("a", "b")), ([], ()), ("", ())]
)
def test_the_stops_are_those_of_until(until, expected):
    assert stops({"until": until}) == expected
