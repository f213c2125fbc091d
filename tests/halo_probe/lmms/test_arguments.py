"""What `--model_args` and `--batch_size` say, however they are written."""

import pytest

from halo_probe.errors import UsageError
from halo_probe.lmms.arguments import batch_size, given_arguments, parse_arguments


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("", {}),
        ("pretrained=/a/b", {"pretrained": "/a/b"}),
        ("pretrained=/a,b/c,layers=all", {"pretrained": "/a,b/c", "layers": "all"}),
        ("pretrained=/a=b/c", {"pretrained": "/a=b/c"}),
        ("pretrained='/a,b=c/d',check=false", {"pretrained": "/a,b=c/d", "check": False}),
        ("layers=[0,17,35],max_gb=.5", {"layers": "[0,17,35]", "max_gb": 0.5}),
        ("layers=0,17", {"layers": "0,17"}),
        (
            "intervention=boost:2@d2,prompt=Count, then answer",
            {"intervention": "boost:2@d2", "prompt": "Count, then answer"},
        ),
        ('size={"a":1,"b":2},x=1', {"size": '{"a":1,"b":2}', "x": 1}),
    ],
)
def test_a_comma_ends_a_value_only_where_a_name_follows(written, read):
    assert given_arguments(written) == read


def test_the_mapping_of_a_configuration_file_is_taken_as_it_is():
    arguments = parse_arguments({"base": "qwen3_vl", "layers": [0, 2], "check": False, "pretrained": "/a"})
    assert (arguments.base, arguments.layers, arguments.check) == ("qwen3_vl", [0, 2], False)
    assert arguments.model == {"pretrained": "/a"}


def test_text_without_a_name_is_refused_with_what_to_write():
    with pytest.raises(UsageError, match="'/a/b' is no name=value; write pretrained=PATH"):
        given_arguments("/a/b")


@pytest.mark.parametrize("given", ["auto", "auto:4", 0, -1, None, "two"])
def test_a_batch_size_that_is_no_number_is_refused_in_one_line(given):
    with pytest.raises(UsageError, match=r"--batch_size .*: use a number from 1 on"):
        batch_size(given)


@pytest.mark.parametrize("given", [1, "8"])
def test_a_batch_size_is_a_number(given):
    assert batch_size(given) == int(given)
