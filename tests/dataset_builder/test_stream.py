"""The random stream: fixed by its definition, uniform, and independent of any library's generator."""

import hashlib
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_builder.stream import below, random_words, shuffled, stream_key


def test_the_words_are_shake_256_of_the_key_and_the_block_number():
    first = hashlib.shake_256(b"1|halo_count|0|7|sample|0").digest(256)
    second = hashlib.shake_256(b"1|halo_count|0|7|sample|1").digest(256)
    expected = [int.from_bytes((first + second)[i : i + 4], "little") for i in range(0, 512, 4)]
    assert list(islice(random_words(stream_key(1, "halo_count", 0, 7, "sample")), 128)) == expected


def test_the_first_words_of_a_key_are_golden():
    assert list(islice(random_words(b"1|halo_count|0|0|sample"), 4)) == [3106649796, 1535181747, 1053344696, 2457165725]


@given(st.integers(1, 2**32), st.binary(min_size=1, max_size=8))
def test_a_draw_is_in_its_range(bound, key):
    assert 0 <= below(random_words(key), bound) < bound


def test_words_past_the_last_multiple_of_the_bound_are_rejected():
    assert below(iter([2**32 - 1, 7]), 3) == 7 % 3  # 2**32 - 1 is a multiple of 3 and the only word rejected
    assert below(iter([2**32 - 2, 7]), 3) == (2**32 - 2) % 3


def test_draws_are_uniform():
    words = random_words(b"uniform")
    counts = Counter(below(words, 7) for _ in range(70_000))
    assert all(abs(counts[value] - 10_000) < 400 for value in range(7))


@pytest.mark.parametrize("size", [0, 1, 2, 9])
def test_shuffling_keeps_the_values_and_leaves_its_argument_alone(size):
    values = list(range(size))
    assert sorted(shuffled(random_words(b"order"), values)) == values == list(range(size))


def test_every_order_of_three_is_as_likely():
    words = random_words(b"orders")
    counts = Counter(tuple(shuffled(words, "abc")) for _ in range(12_000))
    assert len(counts) == 6
    assert all(abs(count - 2000) < 200 for count in counts.values())
