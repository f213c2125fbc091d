"""Several documents at a time, and answers from lmms-eval's cache: the same replies with the same values."""

import fcntl
import shutil
import sqlite3

import forked_runs
import numpy as np
import pandas as pd
import pytest
from lmms_eval import evaluator, models
from lmms_eval.models.chat import qwen3_vl
from lmms_eval.tasks import TaskManager
from PIL import Image

from halo_probe.archive import writing
from halo_probe.capture import collection
from halo_probe.errors import CaptureError, UsageError
from halo_probe.lmms.answering.batches import check_reply, match_rows
from halo_probe.lmms.answering.ledger import Ledger
from halo_probe.lmms.model import HaloChat, HaloSimple

COUNT = 7
SAMPLING = "do_sample=true,temperature=1.0"


@pytest.fixture(scope="module")
def manager(tmp_path_factory):
    """The task `patches` with images of several sizes, one document without, and no other task."""
    noise = np.random.default_rng(1)
    sizes = [(64 * (1 + number % 3), 320 + 64 * (number % 4)) for number in range(COUNT)]
    images = [Image.fromarray(noise.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]
    images[5] = None
    folder = forked_runs.write_task(tmp_path_factory.mktemp("patches"), images)
    return TaskManager(include_path=str(folder), include_defaults=False, model_name="halo")


@pytest.fixture(scope="module")
def evaluate(manager, qwen3_vl_checkpoint):
    def run(folder, *, options="", halo=HaloChat, batch_size=1, **call):
        given = f"base=qwen3_vl,pretrained={qwen3_vl_checkpoint},device_map=cpu,maps={folder},{options}"
        lm = halo.create_from_arg_string(given, {"device": "cpu", "batch_size": batch_size})
        lm.model.float()  # lmms-eval loads bfloat16, in which padding moves more than the last digits
        return evaluator.simple_evaluate(model=lm, tasks=["patches"], task_manager=manager, **call)

    return run


@pytest.fixture(scope="module")
def one_by_one(evaluate, tmp_path_factory):
    folder = tmp_path_factory.mktemp("single")
    return evaluate(folder, batch_size=3, options="layers=all"), folder


def samples_of(results):
    return forked_runs.values_of(results["samples"]["patches"])


def maps_of(folder):
    frame = pd.read_parquet(folder)
    return frame.sort_values(["doc_id", "repeat", "step", "layer"], ignore_index=True)


@pytest.mark.parametrize("halo", [HaloChat, HaloSimple])
def test_a_batch_records_for_each_document_what_it_records_alone(halo, evaluate, one_by_one, tmp_path):
    single, alone = one_by_one
    if halo is HaloSimple:  # which asks in other words
        alone = tmp_path / "alone"
        single = evaluate(alone, options="layers=all", halo=halo)
    results = evaluate(tmp_path / "batch", options="batching=batch,layers=all", halo=halo, batch_size=3)
    alone, together = maps_of(alone), maps_of(tmp_path / "batch")
    assert together.doc_id.unique().tolist() == [0, 1, 2, 3, 4, 6]
    keys = ["doc_id", "step", "layer", "token_id", "visible"]
    pd.testing.assert_frame_equal(together[keys], alone[keys])
    for column in ("map_eq1", "map_raw"):
        for one, other in zip(together[column], alone[column], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
    assert [one["filtered_resps"] for one in samples_of(results)] == [
        one["filtered_resps"] for one in samples_of(single)
    ]
    assert results["halo"]["without_image"] == 1
    assert results["halo"]["signature"]["recording"]["batch"] == 3


def test_sampled_replies_are_those_of_the_model_without_the_probe(
    evaluate, one_by_one, manager, qwen3_vl_checkpoint, tmp_path
):
    sampling = {"limit": 3, "gen_kwargs": SAMPLING}
    plain = models.get_model("qwen3_vl")(pretrained=str(qwen3_vl_checkpoint), device_map="cpu", device="cpu")
    plain.model.float()
    alone = evaluator.simple_evaluate(model=plain, tasks=["patches"], task_manager=manager, **sampling)
    probed = evaluate(tmp_path, options="layers=all", **sampling)
    sampled, shown, greedy = (
        [one["filtered_resps"] for one in results["samples"]["patches"]][:3]
        for results in (alone, probed, one_by_one[0])
    )
    assert sampled == shown != greedy


@pytest.mark.parametrize(("options", "batch_size"), [("", 1), ("batching=batch", 3)])
def test_a_lost_part_of_a_run_that_samples_is_drawn_again_as_it_was(
    options, batch_size, evaluate, tmp_path, monkeypatch
):
    """Of one document each: in batches a slab of which one is lost is answered together again."""
    monkeypatch.setattr(writing, "_PART_DOCUMENTS", 1)
    sampling = {"repeats": 2, "gen_kwargs": SAMPLING}
    whole = evaluate(tmp_path, options=options, batch_size=batch_size, **sampling)
    expected = maps_of(tmp_path)
    stored = sorted(tmp_path.glob("*.parquet"))
    assert len(stored) == 2 * COUNT
    for part in (stored[0], stored[4], stored[5], stored[9], stored[-1]):
        part.unlink()
    results = evaluate(tmp_path, options=options, batch_size=batch_size, **sampling)
    assert (results["halo"]["recorded"], results["halo"]["resumed"]) == (2 * COUNT - 2, 2 * COUNT - 5)
    assert samples_of(results) == samples_of(whole)
    pd.testing.assert_frame_equal(maps_of(tmp_path), expected)


def test_a_document_that_fails_and_is_tried_again_draws_what_it_would_have(evaluate, tmp_path, monkeypatch):
    whole = evaluate(tmp_path / "whole", gen_kwargs=SAMPLING, limit=4)
    rows_of, calls = collection.image_attention, []

    def full_at_the_second(*given, **options):
        calls.append(given)
        if len(calls) == 3:  # one went ahead, to see how large the maps are
            raise RuntimeError("out of memory")
        return rows_of(*given, **options)

    with monkeypatch.context() as patch, pytest.raises(CaptureError, match=r"1 answer.*out of memory"):
        patch.setattr(collection, "image_attention", full_at_the_second)
        evaluate(tmp_path / "failed", options="check=false", gen_kwargs=SAMPLING, limit=4)
    results = evaluate(tmp_path / "failed", options="check=false", gen_kwargs=SAMPLING, limit=4)
    assert results["halo"]["resumed"] == 3
    assert samples_of(results) == samples_of(whole)


def test_a_run_that_samples_does_not_go_on_with_other_processes(evaluate, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_PART_DOCUMENTS", 1)
    with monkeypatch.context() as patch:
        patch.setattr(qwen3_vl.Qwen3_VL, "world_size", 2)
        evaluate(tmp_path, gen_kwargs=SAMPLING, limit=3)
    evaluate(tmp_path, gen_kwargs=SAMPLING, limit=3)  # all is there: nothing is drawn
    (tmp_path / "part-00002.parquet").unlink()
    with pytest.raises(UsageError, match=r"sampled by 2 process.*would go on with 1 process.*the same processes"):
        evaluate(tmp_path, gen_kwargs=SAMPLING, limit=3)


@pytest.mark.parametrize(
    ("sampling", "same"),
    [
        (
            "do_sample=true,temperature=1000.0,max_new_tokens=1",
            slice(None),
        ),  # one row after the other: what rows draw in a batch
        ("do_sample=true,temperature=30.0,max_new_tokens=8", slice(-1, None)),  # replies of several lengths
    ],
)
def test_a_batch_that_is_answered_one_by_one_and_those_after_it_draw_what_they_would_without_the_probe(
    sampling, same, evaluate, manager, qwen3_vl_checkpoint, tmp_path
):
    """The second of three batches has a document without an image."""
    plain = models.get_model("qwen3_vl")(
        pretrained=str(qwen3_vl_checkpoint), device_map="cpu", device="cpu", batch_size=3
    )
    plain.model.float()
    alone = evaluator.simple_evaluate(model=plain, tasks=["patches"], task_manager=manager, gen_kwargs=sampling)
    batched = evaluate(tmp_path, options="batching=batch", batch_size=3, gen_kwargs=sampling)
    replies, sampled = ([one["filtered_resps"] for one in run["samples"]["patches"]] for run in (alone, batched))
    assert sampled[:3] == replies[:3]
    assert sampled[same] == replies[same]


def test_documents_go_one_at_a_time_unless_told_otherwise(one_by_one):
    assert one_by_one[0]["halo"]["signature"]["recording"]["batch"] == 1


def test_a_batch_with_repeats_keeps_the_repeats_apart(evaluate, tmp_path):
    evaluate(tmp_path, options="batching=batch", batch_size=4, repeats=2, limit=5)
    frame = maps_of(tmp_path)
    assert set(zip(frame.doc_id, frame.repeat, strict=True)) == {(doc, repeat) for doc in range(5) for repeat in (0, 1)}
    for _, steps in frame.groupby(["doc_id", "step"]):
        np.testing.assert_array_equal(*steps.map_eq1)


def test_rows_whose_documents_are_not_known_are_refused(evaluate, tmp_path, monkeypatch):
    """A base model that looks at the documents in one order and answers them in another."""
    generate_until = qwen3_vl.Qwen3_VL.generate_until

    def look_and_answer(self, requests):
        for request in reversed(requests):
            self.task_dict[request.task_name]["test"][request.doc_id]
        return generate_until(self, requests)

    monkeypatch.setattr(qwen3_vl.Qwen3_VL, "generate_until", look_and_answer)
    with pytest.raises(CaptureError, match=r"patches: documents \[0, 1, 2\] were to be answered.*batching=batch out"):
        evaluate(tmp_path, options="batching=batch", batch_size=3)
    assert not list(tmp_path.glob("*.parquet"))


def test_rows_are_matched_only_where_the_reads_say_so():
    four, seven = ("t", "test", 4), ("t", "test", 7)
    assert match_rows([four, seven], reads=[seven, seven, four, four], rows=2) == [1, 0]
    assert match_rows([four, seven], reads=[seven, four, seven, four], rows=2) == [1, 0]
    for reads, rows in (
        [[four, seven], 3],
        [[four], 2],
        [[four, seven, ("t", "test", 8)], 2],
        [[four, seven, seven, four], 2],
    ):
        with pytest.raises(CaptureError, match="batching=batch"):
            match_rows([four, seven], reads=reads, rows=rows)


@pytest.mark.parametrize(
    ("reply", "tokens", "settings"),
    [
        ("12 dots", " 12  dots\n", {}),
        ("12", " 12\n\nUser: 13", {"until": ["User", "\n\n"]}),
        ("", "\n\n12", {"until": ["\n\n"]}),
        ("12", "I see 13? No.</think>\n12", {}),
        ("", "I see 13", {"thinking": True}),
    ],
)
def test_a_reply_is_what_its_row_says_up_to_what_base_models_cut_off(reply, tokens, settings):
    check_reply(reply, tokens, **settings)


@pytest.mark.parametrize(
    ("reply", "tokens"), [("13", "12"), ("1", "12"), ("2", "12"), ("12", "12 dots"), ("", "12"), ("12", "12\nstop")]
)
def test_a_reply_that_its_row_does_not_say_is_refused(reply, tokens):
    with pytest.raises(
        CaptureError, match=f"the reply '{reply}' is not what the tokens of its row say, '12.*batching="
    ):
        check_reply(reply, tokens, until=["stop", "\n\n"] if "stop" not in tokens else ["\n\n"])


@pytest.fixture
def evaluate_with_cache(manager, qwen3_vl_checkpoint, tmp_path):
    """As from the command line: the cache knows the model by its name and arguments."""
    given = f"base=qwen3_vl,pretrained={qwen3_vl_checkpoint},device_map=cpu,maps={tmp_path / 'maps'}"

    def run(*, anew=True, **call):
        if anew:
            shutil.rmtree(tmp_path / "maps", ignore_errors=True)
        return evaluator.simple_evaluate(
            model="halo",
            model_args=given,
            device="cpu",
            tasks=["patches"],
            task_manager=manager,
            use_cache=str(tmp_path / "cache"),
            limit=3,
            **call,
        )

    return run


def test_what_the_cache_answers_is_recorded_with_the_same_replies_and_values(evaluate_with_cache, tmp_path):
    first = evaluate_with_cache()
    recorded = maps_of(tmp_path / "maps")
    with sqlite3.connect(tmp_path / "cache" / "cache.db") as cache:
        assert cache.execute("select count(*) from responses").fetchone() == (3,)
    again = evaluate_with_cache()
    assert samples_of(first) == samples_of(again)
    assert again["halo"]["recorded"] == 3
    pd.testing.assert_frame_equal(maps_of(tmp_path / "maps"), recorded)


def test_a_run_that_samples_goes_on_beside_the_cache_as_it_was(evaluate_with_cache, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_PART_DOCUMENTS", 1)
    whole = evaluate_with_cache(repeats=2, gen_kwargs=SAMPLING)
    recorded = maps_of(tmp_path / "maps")
    for number in (1, 4, 5):
        (tmp_path / "maps" / f"part-{number:05d}.parquet").unlink()
    results = evaluate_with_cache(anew=False, repeats=2, gen_kwargs=SAMPLING)
    assert results["halo"]["resumed"] == 3
    assert samples_of(results) == samples_of(whole)
    pd.testing.assert_frame_equal(maps_of(tmp_path / "maps"), recorded)


@pytest.mark.parametrize("known", ["all", "all but those of document 1"])
def test_a_lost_repeat_of_a_cached_reply_is_recorded_again(known, evaluate_with_cache, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_PART_DOCUMENTS", 1)
    evaluate_with_cache(repeats=3)
    whole = maps_of(tmp_path / "maps")
    (tmp_path / "maps" / "part-00002.parquet").unlink()  # the last repeat of document 0
    (tmp_path / "maps" / "part-00004.parquet").unlink()  # the second of document 1
    if known != "all":
        with sqlite3.connect(tmp_path / "cache" / "cache.db") as cache:
            cache.execute("delete from responses where doc_id = 1")
    results = evaluate_with_cache(anew=False, repeats=3)
    assert (results["halo"]["recorded"], results["halo"]["resumed"]) == (9, 7)
    pd.testing.assert_frame_equal(maps_of(tmp_path / "maps"), whole)


def test_an_answer_that_was_asked_for_and_got_lost_fails_the_run(evaluate, tmp_path, monkeypatch):
    keep = Ledger.keep

    def keep_but_one(self, key, *args, **kwargs):
        kept = keep(self, key, *args, **kwargs)
        if key[1] == 1:
            del self.answers[key]
        return kept

    monkeypatch.setattr(Ledger, "keep", keep_but_one)
    with pytest.raises(CaptureError, match=r"1 answer\(s\) .*patches 1 \(it was asked for, and no answer was recorded"):
        evaluate(tmp_path, limit=3)


def test_a_cached_reply_that_the_model_no_longer_gives_has_no_values(evaluate_with_cache, tmp_path, monkeypatch):
    evaluate_with_cache()
    strip = qwen3_vl.Qwen3_VL._strip_thinking
    monkeypatch.setattr(qwen3_vl.Qwen3_VL, "_strip_thinking", lambda self, answer: strip(self, answer) + "!")
    with pytest.raises(CaptureError, match=r"patches 1 \(the cached reply is '\d\d', and the model now says '\d\d!'\)"):
        evaluate_with_cache()
    assert not list((tmp_path / "maps").glob("*.parquet"))


@pytest.mark.parametrize("option", ["batching=some", "heads=one", "resume=7", "max_gb=0"])
def test_an_argument_of_the_probe_that_cannot_be_is_refused(option, evaluate, tmp_path):
    with pytest.raises(UsageError, match=f"{option.partition('=')[0]}="):
        evaluate(tmp_path, options=option)


def test_the_folder_of_a_run_that_goes_on_is_closed_to_another(evaluate, tmp_path):
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="another run writes there"):
            evaluate(tmp_path)
