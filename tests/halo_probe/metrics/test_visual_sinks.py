import numpy as np
import pytest
import torch

from halo_probe.errors import UsageError
from halo_probe.metrics.visual_sinks import is_visual_sink, sink_score


def ones_with_a_peak(dimensions):
    x = np.ones(dimensions)
    x[5] = 30
    return x


@pytest.mark.parametrize(("dimensions", "score", "sink"), [(1000, 21.77001721, True), (400, 16.64740997, False)])
def test_the_vectors_of_the_specification_hold(dimensions, score, sink):
    x = ones_with_a_peak(dimensions)
    assert sink_score(x) == pytest.approx(score, abs=1e-8)
    assert bool(is_visual_sink(x)) is sink


def test_only_the_sink_dimensions_are_looked_at():
    x = ones_with_a_peak(1000)
    assert sink_score(x, dimensions=[3, 5]) == sink_score(x)
    assert sink_score(x, dimensions=[3]) == pytest.approx(sink_score(x) / 30)


def test_sign_and_scale_do_not_matter_and_nothing_is_written():
    x = np.random.default_rng(0).normal(size=(2, 7, 64))
    x.setflags(write=False)
    score = sink_score(x)
    assert score.shape == (2, 7)
    assert sink_score(-1e-3 * x) == pytest.approx(score)
    assert score == pytest.approx(np.abs(x).max(axis=-1) / np.linalg.norm(x, axis=-1) * 8)
    assert ((score >= 1) & (score <= 8)).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_tensors_are_taken(dtype):
    x = torch.tensor(ones_with_a_peak(1000)).to(dtype)
    assert sink_score(x) == pytest.approx(21.77001721)


@pytest.mark.parametrize("hidden", [[np.nan, 1.0], [[1.0, 2.0], [0.0, 0.0]], [], 1.0])
def test_a_hidden_state_without_a_score_is_refused(hidden):
    with pytest.raises(UsageError, match="give finite ones"):
        sink_score(hidden)
