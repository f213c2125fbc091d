from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from halo_probe.errors import UsageError
from halo_probe.statistics.ranks import rank_models


def wins_of(right):
    """On how many documents only the first of two models is right, of a list of flags per model."""
    return [[sum(a and not b for a, b in zip(x, y, strict=True)) for y in right] for x in right]


def ranked(right):
    return rank_models([np.mean(one) for one in right], wins_of(right))


def first(number, of=200):
    return [True] * number + [False] * (of - number)


def test_models_that_the_test_tells_apart_have_ranks_of_their_own():
    found = ranked([first(180), first(120), first(60)])
    assert [(one.rank, one.best, one.worst) for one in found] == [(1, 1, 1), (2, 2, 2), (3, 3, 3)]


def test_a_model_between_two_that_differ_may_share_the_rank_of_the_better():
    # 8 documents tell two models apart after the correction, 5 do not.
    found = ranked([first(112), first(109), first(104), first(20)])
    assert [one.rank for one in found] == [1, 1, 2, 4]
    assert [(one.best, one.worst) for one in found] == [(1, 2), (1, 3), (2, 3), (4, 4)]


def test_a_rank_is_no_less_than_that_of_a_model_more_accurate():
    # The second differs from the best on the documents that it has; the third, less accurate, on scattered ones.
    best, second = first(120), first(100)
    third = [*np.random.default_rng(0).permutation(first(99))]
    found = ranked([best, second, third])
    assert [one.best for one in found] == [1, 2, 1]
    assert [one.rank for one in found] == [1, 2, 2]


@given(st.lists(st.lists(st.booleans(), min_size=30, max_size=30), min_size=1, max_size=6), st.randoms())
def test_a_rank_counts_the_models_that_are_surely_better_whatever_the_order(right, shuffler):
    m, n = len(right), range(30)
    p, better = {}, [[False] * m for _ in right]
    for a, b in combinations(range(m), 2):
        only = [sum(right[i][k] and not right[j][k] for k in n) for i, j in ((a, b), (b, a))]
        p[a, b] = stats.binomtest(only[0], sum(only)).pvalue if sum(only) else 1.0
    worst = 0.0
    for place, (a, b) in enumerate(sorted(p, key=p.__getitem__)):
        worst = max(worst, p[a, b] * (len(p) - place))
        if worst <= 0.05:
            better[a][b], better[b][a] = sum(right[a]) > sum(right[b]), sum(right[b]) > sum(right[a])
    found = ranked(right)
    for a in range(m):
        above = [1 + sum(better[i][b] for i in range(m)) for b in range(m) if b == a or sum(right[b]) > sum(right[a])]
        assert found[a].rank == max(above)
        assert found[a].best == 1 + sum(better[i][a] for i in range(m))
        assert found[a].worst == m - sum(better[a])
        assert found[a].best <= found[a].rank <= found[a].worst
    order = shuffler.sample(range(m), m)
    assert ranked([right[place] for place in order]) == [found[place] for place in order]


def test_no_models_have_no_ranks_and_wins_that_do_not_fit_are_refused():
    assert rank_models([], np.zeros((0, 0))) == []
    with pytest.raises(UsageError, match="rank_models"):
        rank_models([0.5, 0.6], [[0]])
