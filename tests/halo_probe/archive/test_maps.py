"""Parts of maps on the disk: what a damaged one says is refused, or what was written."""

import errno
import os
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from halo_probe.archive import writing
from halo_probe.archive.answers import Answer
from halo_probe.archive.generation import Generation, Layer, View
from halo_probe.archive.resume import finished_answers
from halo_probe.archive.writing import MapWriter
from halo_probe.errors import HaloError, UsageError, remedy
from halo_probe.lmms.wandb_table import _rows
from halo_probe.score.stored import Circumstances, score_part
from halo_probe.score.values import token_values

SIGNATURE = {"model": {"base": "qwen3_vl"}, "tasks": {}}
PIECES = ["1", "2"]


def a_generation():
    raw = np.random.default_rng(0).dirichlet(np.ones(16), size=(2, 1)).astype(np.float32)
    return Generation(
        token_ids=np.arange(2),
        ended=False,
        views=(View(0, 4, 4),),
        layers=(Layer(3, "full_attention"),),
        eq1=raw,
        raw=raw / 2,
        visual_mass=raw.sum(axis=-1) / 2,
        first_mass=np.zeros((2, 1), dtype=np.float32),
        visible=np.full((2, 1), 16),
    )


def write_answer(folder, *generations):
    shown = [(one, PIECES) for one in generations]
    values = tuple(token_values(one, pieces) for one, pieces in shown)
    with MapWriter(folder, signature=SIGNATURE) as writer:
        writer.add(("dots", 0, 0), Answer(text="12", counts=None, values=values), shown)
    return folder / "part-00000.parquet"


def read(part):
    answers = finished_answers(part.parent, signature=SIGNATURE, resume=True)
    return answers, pq.ParquetFile(part, page_checksum_verification=True).read()


def test_a_flipped_bit_anywhere_in_a_part_is_refused_or_changes_nothing(tmp_path):
    part = write_answer(tmp_path, a_generation())
    whole, content = read(part), part.read_bytes()
    chosen = random.Random(0)
    refused = 0
    for place in range(0, len(content), 8):
        damaged = bytearray(content)
        damaged[place + chosen.randrange(min(8, len(content) - place))] ^= 1 << chosen.randrange(8)
        part.write_bytes(damaged)
        try:
            assert read(part) == whole
        except (HaloError, OSError, pa.ArrowException):
            refused += 1
    assert refused > len(content) / 8 / 2


def test_answers_that_were_changed_on_the_disk_are_refused(tmp_path):
    part = write_answer(tmp_path, a_generation())
    content = part.read_bytes()
    assert content.count(b'"text": "12"') == 1
    part.write_bytes(content.replace(b'"text": "12"', b'"text": "13"'))
    with pytest.raises(HaloError, match=r"part-00000.parquet: is damaged \(its end.*its documents are redone"):
        read(part)


def test_a_part_of_answers_without_an_image_has_no_rows_and_is_read_like_any_other(tmp_path):
    (other := tmp_path / "other").mkdir()
    answers, rows = read(write_answer(tmp_path))
    assert answers == {("dots", 0, 0): Answer(text="12", counts=None, values=())}
    assert rows.num_rows == 0
    assert rows.schema.names == pq.read_table(write_answer(other, a_generation())).schema.names


def test_the_heatmaps_of_a_damaged_page_are_refused(tmp_path):
    part = write_answer(tmp_path, a_generation())
    names = [one.path.partition(".")[0] for one in pq.ParquetFile(part).schema]
    column = pq.read_metadata(part).row_group(0).column(names.index("map_eq1"))
    content = bytearray(part.read_bytes())
    content[column.dictionary_page_offset + 60] ^= 1
    part.write_bytes(content)
    with pytest.raises(HaloError, match="CRC"):
        list(_rows(tmp_path, {"dots": None}))


def an_answer(rounds):
    return Answer(text="12", counts=None, values=(token_values(a_generation(), PIECES),) * rounds)


@pytest.mark.parametrize("cut", range(1, 5))
def test_an_interrupt_while_rounds_are_added_leaves_no_round_twice(cut, tmp_path, monkeypatch):
    """The first time it comes while the rows of one of four rounds are made; then the run goes on."""
    rounds, rows_of, made = [(a_generation(), PIECES)] * 2, writing._rows, []

    def interrupted(*given):
        made.append(given)
        if len(made) == cut:
            raise KeyboardInterrupt
        return rows_of(*given)

    def answer_the_rest():
        stored = finished_answers(tmp_path, signature=SIGNATURE, resume=True)
        with MapWriter(tmp_path, signature=SIGNATURE) as writer:
            for document in range(2):
                if ("dots", document, 0) not in stored:
                    writer.add(("dots", document, 0), an_answer(2), rounds)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(writing, "_rows", interrupted)
        answer_the_rest()
    answer_the_rest()
    keys = [name for name in writing.SCHEMA.names if name in {"doc_id", "call", "step", "layer"}]
    rows = pq.read_table(tmp_path).select(keys).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        (document, call, step, 3) for document in range(2) for call in range(2) for step in range(2)
    ]


def test_maps_without_their_answer_are_refused_by_the_run_and_by_the_scores(tmp_path):
    generation = a_generation()
    with MapWriter(tmp_path, signature=SIGNATURE) as writer:
        writer.add(("dots", 0, 0), an_answer(1), [(generation, PIECES)])
        orphans = writing._rows(generation, PIECES, {"task": "dots", "doc_id": 1, "repeat": 0, "call": 0})
        writer._added[0][2].extend(orphans)
    part = tmp_path / "part-00000.parquet"
    with pytest.raises(HaloError, match="part-00000.parquet: .*it holds maps of dots 1 without its answer.*remove it"):
        read(part)
    with pytest.raises(HaloError, match="part-00000.parquet: .*maps of dots 1 without its answer"):
        score_part(part, Circumstances(dots={}, model_layers=4, consistency={}, layers="all", null=False))


def test_maps_of_another_version_of_the_signature_are_refused_with_what_to_do(tmp_path):
    write_answer(tmp_path, a_generation())
    with pytest.raises(UsageError, match=r"another version of halo-probe.*\(format 1, now 2\).*another --output_path"):
        finished_answers(tmp_path, signature={**SIGNATURE, "format": 2}, resume=True)


def long_answer(length):
    return Answer(text="0" * length, counts=None, values=())


def test_parts_whose_answers_are_long_are_read_again_however_many_there_are(tmp_path):
    length = 7 * 10**6  # 16 of them are more than Arrow reads of one footer
    with MapWriter(tmp_path, signature=SIGNATURE) as writer:
        for document in range(16):
            writer.add(("dots", document, 0), long_answer(length))
    answers = finished_answers(tmp_path, signature=SIGNATURE, resume=True)
    assert len(answers) == 16
    assert {len(answer.text) for answer in answers.values()} == {length}


def test_the_longest_answer_that_is_written_is_read_again_and_a_longer_one_is_refused(tmp_path):
    with MapWriter(tmp_path, signature=SIGNATURE) as writer:
        writer.add(("dots", 0, 0), long_answer(15 * 10**6))
        writer.add(("dots", 1, 0), long_answer(writing._LONGEST_ANSWER - 200))
        with pytest.raises(UsageError, match="dots 2: its answer takes 64 MB, more than the 64 MB that can be read"):
            writer.add(("dots", 2, 0), long_answer(writing._LONGEST_ANSWER))
    assert len(finished_answers(tmp_path, signature=SIGNATURE, resume=True)) == 2


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "make room on the disk"),
        (errno.ENOENT, "the folder is gone: make it again"),
        (errno.EROFS, "can only be read"),
        (errno.EACCES, "change its permissions"),
        (errno.EIO, "look at the disk and the folder"),
    ],
)
def test_each_error_of_the_disk_has_its_own_remedy(code, words):
    assert words in remedy(OSError(code, os.strerror(code)))
