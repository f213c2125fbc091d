"""Maps as a run stores them, planted and real, through the command `halo-probe score`."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_builder.build import build_set
from dataset_builder.golden import CONTENT_SHA256
from dataset_builder.load import load_set
from dataset_builder.sets import SETS
from halo_probe.archive import writing as stored
from halo_probe.archive.answers import Answer
from halo_probe.archive.footer import seal_footer
from halo_probe.archive.generation import Generation, Layer, View
from halo_probe.archive.scores import SCORES_SCHEMA
from halo_probe.archive.signature import seal
from halo_probe.cli import main
from halo_probe.errors import HaloError
from halo_probe.metrics.geometry import lay_out
from halo_probe.metrics.null import NULL_KEYS, choose_others, compare_with_null
from halo_probe.metrics.sparsity import entropy, entropy_nats, gini, kl_uniform, sparsity_eq2, sparsity_g16
from halo_probe.metrics.sparsity import sparsity_norm as norm
from halo_probe.metrics.spatial import SPATIAL_KEYS, spatial_metrics
from halo_probe.metrics.structure import ck, ck_mass30, ck_obj, hs
from halo_probe.score.run import processes

GRID = (32, 32)
TASK = "halo_count"
FOREIGN = "fingerprint:0123456789abcdef"
PLANTED = ("dots", "ring", "sink", "noise")


def signature_of(tasks):
    return seal(
        {"model": {"base": "qwen3_vl"}, "tasks": {task: {"dataset_sha256": sha} for task, sha in tasks.items()}}
    )


def generation(maps, *, layers=(3,), grids=(GRID,), raw=None, visible=None, mass=0.5):
    """What a capture hands to the writer: maps of (steps, layers, image tokens); the last step ends the reply."""
    eq1 = np.asarray(maps, dtype=np.float32)
    steps, _, tokens = eq1.shape
    return Generation(
        token_ids=np.arange(steps),
        ended=True,
        views=tuple(View(image, height, width) for image, (height, width) in enumerate(grids)),
        layers=tuple(Layer(layer, "full_attention") for layer in layers),
        eq1=eq1,
        raw=np.asarray(eq1 * mass if raw is None else raw, dtype=np.float32),
        visual_mass=np.full(eq1.shape[:2], mass, dtype=np.float32),
        first_mass=np.full(eq1.shape[:2], 0.1, dtype=np.float32),
        visible=np.full(eq1.shape[:2], tokens if visible is None else visible, dtype=np.int32),
    )


def write_maps(folder, generations, *, tasks):
    """A part for each list of (task, doc_id, generation)."""
    (folder / "halo").mkdir(parents=True)
    with stored.MapWriter(folder / "halo", signature=signature_of(tasks)) as writer:
        for part in generations:
            for task, doc_id, one in part:
                shown = [(one, [str(token) for token in one.token_ids])]
                writer.add((task, doc_id, 0), Answer(text="", counts=None, values=()), shown)
            writer.flush()
    return folder


def write_results(folder, *, tasks, names):
    place = folder / "org__model"
    place.mkdir(exist_ok=True)
    results = {
        "config": {},
        "n-samples": {},
        "versions": {},
        "halo": {"signature": signature_of(tasks)},
        "configs": {t: {"dataset_name": n} for t, n in names.items()},
    }
    (place / "1_results.json").write_text(json.dumps(results))


def score(capsys, *arguments):
    code = main(["score", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def scored(capsys, folder, *arguments):
    """The scores of a run, by task, document, step and layer."""
    code, out, error = score(capsys, folder, *arguments)
    assert (code, error) == (0, "")
    assert out == f"{folder / 'scores.parquet'}\n{folder / 'scores.csv'}\n"
    assert not list(folder.glob("*.unfinished"))
    return pd.read_parquet(folder / "scores.parquet").set_index(["task", "doc_id", "step", "layer"])


def layouts_of(rows, grid=GRID):
    return [lay_out(r["centers"], radius=r["radius"], image=(r["height"], r["width"]), grid=grid) for r in rows]


def planted(kind, layout, rng):
    if kind == "dots":
        return layout.dot_areas.sum(axis=0) / layout.dot_areas.sum()
    if kind == "ring":
        return layout.around / layout.around.sum()
    weights = rng.lognormal(size=layout.around.size)
    if kind == "sink":
        weights[np.flatnonzero(~layout.near)[-1]] = 9 * weights.sum()
    return weights / weights.sum()


@pytest.fixture(scope="module")
def geometry():
    columns = ["centers", "radius", "width", "height", "count"]
    return list(load_set(TASK).select_columns(columns))


@pytest.fixture(scope="module")
def planted_run(tmp_path_factory, geometry):
    """Four documents in two parts, each with one kind of map at its first step and layer 3, noise elsewhere; scored."""
    folder, rng = tmp_path_factory.mktemp("planted"), np.random.default_rng(0)
    layouts = layouts_of(geometry[:4])
    documents = []
    for index, kind in enumerate(PLANTED):
        maps = rng.dirichlet(np.full(1024, 0.3), size=(2, 3))
        maps[0, 2] = planted(kind, layouts[index], rng)
        raw = 0.5 * rng.dirichlet(np.ones(1024), size=(2, 3))
        documents.append((TASK, index, generation(maps, layers=(0, 2, 3), raw=raw)))
    write_maps(folder, [documents[:3], documents[3:]], tasks={TASK: CONTENT_SHA256[TASK]})
    assert main(["score", str(folder), "--null"]) == 0
    return folder


@pytest.fixture(scope="module")
def planted_scores(planted_run):
    return pd.read_parquet(planted_run / "scores.parquet").set_index(["task", "doc_id", "step", "layer"])


@pytest.fixture(scope="module")
def planted_maps(planted_run):
    return pd.read_parquet(planted_run / "halo").set_index(["task", "doc_id", "step", "layer"])


def test_there_is_one_row_for_each_row_of_maps_in_their_order(planted_scores, planted_maps):
    assert planted_scores.index.tolist() == planted_maps.index.tolist()
    assert len(planted_scores) == 4 * 2 * 3
    assert planted_scores.reason.isna().all()
    assert (planted_scores.end == planted_maps.end).all()
    assert (planted_scores.visual_mass == 0.5).all()
    assert (planted_scores.image_tokens == 1024).all()


def test_planted_maps_are_told_apart(planted_scores):
    dots, ring, sink, noise = (planted_scores.loc[TASK, index, 0, 3] for index in range(4))
    assert dots.halo_index < -0.99
    assert (dots.auroc_dot, dots.coverage, dots.sim_dot) == pytest.approx((1, 1, 1))
    assert ring.halo_index == 1
    assert sink.sink_share > 0.89
    assert sink.sparsity > 0.9 > sink.hull_contrast_ns
    assert noise.sink_share < 0.1
    # Many others have no cell with attention to compare, or R alone has it: the null of a ring reaches 1 too.
    assert ring.halo_index_z > 2
    assert dots.halo_index_z < -2
    assert dots.dot_mass_z > 10
    # None of the 200 is as extreme.
    assert dots.dot_mass_p == pytest.approx(2 / 201)
    assert abs(noise.halo_index_ns_z) < 4
    assert noise.dot_mass_p > 0.01


def test_every_value_is_that_of_its_function(planted_scores, planted_maps, geometry):
    layouts = layouts_of(geometry)
    counts = [row["count"] for row in geometry]
    for place in ((0, 0, 3), (1, 0, 3), (2, 0, 3), (3, 1, 2)):
        row, map_row = planted_scores.loc[(TASK, *place)], planted_maps.loc[(TASK, *place)]
        document = place[0]
        expected = {"hs": hs(map_row.map_eq1)}
        expected |= {metric.__name__: metric(map_row.map_eq1, grid=GRID) for metric in (ck, ck_mass30, ck_obj)}
        for suffix, one in (("", map_row.map_eq1), ("_rn", map_row.map_raw)):
            expected |= {
                f"sparsity{suffix}": gini(one),
                f"sparsity_eq2{suffix}": sparsity_eq2(one),
                f"sparsity_norm{suffix}": norm(one),
                f"entropy{suffix}": entropy(one),
                f"kl_uniform{suffix}": kl_uniform(one),
                f"sparsity_g16{suffix}": sparsity_g16(one, height=32, width=32),
            }
        expected |= spatial_metrics(map_row.map_eq1, layouts[document])
        others = [layouts[other] for other in choose_others(counts, document)]
        assert len(others) == 200
        for key, comparison in compare_with_null(map_row.map_eq1, layouts[document], others).items():
            expected |= {f"{key}_z": comparison.z, f"{key}_p": comparison.p}
        assert row[list(expected)].to_numpy(dtype=float) == pytest.approx(
            list(expected.values()), rel=1e-6, abs=1e-6, nan_ok=True
        )
        assert {*expected, "delta_entropy"} == {*row.index} - {
            *("repeat", "call", "layer_type", "end", "image_tokens", "visual_mass", "first_mass", "reason"),
            *("head_sparsity", "head_entropy", "visual_sinks", "visual_sink_share", "early_lock", "late_diffuse"),
            *("self_consistency", "pairwise_agreement"),
        }


def test_the_entropy_changes_from_the_layer_before_where_that_was_recorded(planted_scores, planted_maps):
    for document, step in ((0, 0), (3, 1)):
        h = {layer: entropy_nats(planted_maps.loc[TASK, document, step, layer].map_eq1) for layer in (0, 2, 3)}
        changes = planted_scores.loc[TASK, document, step].delta_entropy
        assert changes[3] == pytest.approx(h[3] - h[2])
        assert changes[[0, 2]].isna().all()


def test_the_csv_file_says_the_same(planted_run):
    table, text = pd.read_parquet(planted_run / "scores.parquet"), pd.read_csv(planted_run / "scores.csv")
    assert text.columns.tolist() == table.columns.tolist() == SCORES_SCHEMA.names
    numbers = table.select_dtypes("number").columns
    assert np.allclose(text[numbers], table[numbers], equal_nan=True)
    assert (text.task == TASK).all()


def test_without_the_null_its_columns_are_empty_and_the_last_layer_can_be_had_alone(
    capsys, tmp_path, planted_run, planted_scores
):
    shutil.copytree(planted_run, tmp_path / "run")
    found = scored(capsys, tmp_path / "run", "--layers", "last", "--workers", "1")
    null = [f"{key}_{part}" for key in NULL_KEYS for part in "zp"]
    assert found.index.tolist() == [place for place in planted_scores.index if place[-1] == 3]
    assert found[null].isna().all().all()
    same = planted_scores.loc[found.index, list(SPATIAL_KEYS)]
    assert np.allclose(found[list(SPATIAL_KEYS)], same, equal_nan=True)


def test_what_is_undefined_is_null_with_a_reason_and_the_rest_is_computed(capsys, tmp_path, geometry):
    rng = np.random.default_rng(1)
    some = rng.dirichlet(np.ones(1024), size=(2, 1))
    broken, silent = some.copy(), 0.5 * some
    broken[0] = np.nan
    silent[0] = 0
    small = rng.dirichlet(np.ones(12), size=(1, 1))
    load_set("halo_ocr")  # built here, not with a progress bar in the command
    capsys.readouterr()
    tasks = {TASK: CONTENT_SHA256[TASK], "halo_ocr": CONTENT_SHA256["halo_ocr"], "foreign": FOREIGN}
    rows = [
        (TASK, 0, generation(some)),
        (TASK, 1, generation(some, visible=[[1000], [1024]])),
        (TASK, 2, generation(broken)),
        (TASK, 3, generation(some, raw=silent)),
        (TASK, 4, generation(some, grids=((16, 32), (16, 32)))),
        (TASK, 5, generation(some, grids=((32, 31),))),
        (TASK, 6, generation(small, grids=((3, 4),))),
        (TASK, 7, generation(np.ones((1, 1, 1)), grids=((1, 1),))),
        ("halo_ocr", 0, generation(some)),
        ("foreign", 0, generation(some)),
    ]
    found = scored(capsys, write_maps(tmp_path, [rows], tasks=tasks))
    whole = found.loc[TASK, 0, 0, 3]
    always = {"sparsity", "entropy_rn", "hs"}
    gridded = {"sparsity_g16", "ck"}
    spatial = {"dot_mass", "halo_index_ns"}
    looked_at = [*always, *gridded, *spatial, "sparsity_rn", "visual_mass"]
    for place, missing, reason in (
        ((TASK, 0, 0, 3), (), None),
        ((TASK, 1, 0, 3), (*always, *gridded, *spatial, "sparsity_rn"), "does not see every image token"),
        ((TASK, 1, 1, 3), (), None),
        ((TASK, 2, 0, 3), (*always, *gridded, *spatial, "sparsity_rn"), "no distribution"),
        ((TASK, 3, 0, 3), ("entropy_rn", "sparsity_rn"), "the renormalised map is no distribution"),
        ((TASK, 4, 0, 3), (*gridded, *spatial), "2 images"),
        ((TASK, 5, 0, 3), (*gridded, *spatial), "1024 image tokens are no 32 x 31 grid"),
        ((TASK, 6, 0, 3), (), None),
        ((TASK, 7, 0, 3), (*always, *gridded, *spatial, "sparsity_rn"), "two image tokens or more"),
        (("halo_ocr", 0, 0, 3), spatial, "the document has no dots"),
        (("foreign", 0, 0, 3), spatial, "the task has no set of dots"),
    ):
        row = found.loc[place]
        assert {key for key in looked_at if pd.isna(row[key])} == set(missing), place
        assert pd.isna(row.reason) if reason is None else (reason in row.reason), place
    assert found.loc["foreign", 0, 0, 3].sparsity == whole.sparsity == found.loc[TASK, 4, 0, 3].sparsity


def amend(run, **columns):
    """Give the only part of a run these columns in place of its own, or beside them; None takes one away."""
    table = pq.read_table(part_of(run))
    for name, values in columns.items():
        table = table.drop([name]) if name in table.column_names else table
        table = table if values is None else table.append_column(name, pa.array(values))
    write_sealed(table, part_of(run))


def write_sealed(table, part, **settings):
    """A part that is whole, whatever it says."""
    with part.open("w+b") as file:
        pq.write_table(table, file, write_page_checksum=True, **settings)
        seal_footer(file)


def test_heads_sinks_and_the_course_over_the_layers_are_scored_where_they_are_recorded(capsys, tmp_path):
    rng = np.random.default_rng(3)
    uniform, narrow = np.full(64, 1 / 64), np.repeat([0.5, 0], [2, 62])
    maps = [[uniform, narrow, narrow, narrow, uniform], [uniform] * 5]
    one = generation(maps, layers=range(5), grids=((8, 8),))
    signature = seal({**signature_of({"foreign": FOREIGN}), "model": {"layers": 5}})
    (tmp_path / "halo").mkdir()
    with stored.MapWriter(tmp_path / "halo", signature=signature) as writer:
        writer.add(("foreign", 0, 0), Answer(text="", counts=None, values=()), [(one, ["1", "2"])])
    heads = rng.dirichlet(np.ones(64), size=(10, 3))
    heads[7, 1] = 0
    sinks = np.arange(64) < 2
    amend(tmp_path, map_heads=heads.reshape(10, -1).tolist(), sink_tokens=[sinks.tolist()] * 10, first_mass=[0.25] * 10)
    found = scored(capsys, tmp_path).loc["foreign", 0]
    assert found.early_lock.tolist() == [1] * 5 + [0] * 5 == found.late_diffuse.tolist()
    assert (found.visual_sinks == 2).all()
    assert found.loc[0].visual_sink_share.tolist() == pytest.approx([1 / 32, 1, 1, 1, 1 / 32])
    assert (found.first_mass == 0.25).all()
    # Of each head by pairs of tokens, then the mean.
    differences = np.abs(heads[..., :, None] - heads[..., None, :]).mean(axis=(-1, -2)) * 64 / 2
    known = np.arange(10) != 7
    assert found.head_sparsity.to_numpy()[known] == pytest.approx(differences.mean(axis=1)[known])
    plogp = np.where(heads > 0, heads * np.log(np.where(heads > 0, heads, 1)), 0).sum(axis=-1)
    assert found.head_entropy.to_numpy()[known] == pytest.approx(-plogp.mean(axis=1)[known] / np.log(64))
    assert found.head_sparsity.isna().tolist() == (~known).tolist() == found.head_entropy.isna().tolist()
    assert "the map of a head is no distribution" in found.reason.iloc[7]
    assert found.drop(columns=["reason"]).iloc[7].sparsity == 0

    # Without its last layer there is no course.
    amend(tmp_path, layer=[0, 1, 2, 3, 5] * 2, map_heads=[None] * 10, sink_tokens=[None] * 10)
    found = scored(capsys, tmp_path).loc["foreign", 0]
    assert found[["early_lock", "late_diffuse", "head_sparsity", "visual_sink_share"]].isna().all().all()
    assert found.delta_entropy.notna().sum() == 6


def test_the_view_of_the_whole_image_is_scored_with_the_dots(capsys, tmp_path, geometry):
    rng = np.random.default_rng(4)
    maps = rng.dirichlet(np.ones(32 + 1024), size=(2, 1))
    maps[1, 0, 32:] = 0
    run = write_maps(
        tmp_path, [[(TASK, 0, generation(maps, grids=((4, 4), (4, 4), GRID)))]], tasks={TASK: CONTENT_SHA256[TASK]}
    )
    boxes = [[0, 0, 0.5, 1], [0.5, 0, 1, 1], [0.0, 0, 1, 1]]
    amend(run, view_image=[[0, 0, 0]] * 2, view_box=[boxes] * 2)
    found = scored(capsys, run).loc[TASK, 0]
    first, second = found.loc[0, 3], found.loc[1, 3]
    assert first.sparsity == pytest.approx(gini(np.float32(maps[0, 0])))
    whole = np.float32(maps[0, 0, 32:])
    assert first.ck == ck(whole, grid=GRID)
    assert first.sparsity_g16 == pytest.approx(sparsity_g16(whole, height=32, width=32))
    for key, value in spatial_metrics(whole, layouts_of(geometry[:1])[0]).items():
        assert first[key] == pytest.approx(value, nan_ok=True), key
    assert pd.isna(first.reason)
    assert second.reason == "no attention is on the view of the whole image"
    assert pd.isna(second.ck)
    assert second.sparsity > 0.9


def test_answers_to_a_document_asked_several_times_are_compared(capsys, tmp_path):
    tasks = {"counting": FOREIGN, "talking": FOREIGN}
    maps = generation(np.ones((1, 1, 4)), grids=((2, 2),))
    (tmp_path / "halo").mkdir()
    with stored.MapWriter(tmp_path / "halo", signature=signature_of(tasks)) as writer:
        for repeat, text in enumerate(("12", "twelve", "**12**", "13", "10 or 11")):
            for task in tasks:
                writer.add((task, 0, repeat), Answer(text=text, counts=None, values=()), [(maps, ["12"])])
        writer.flush()  # the answers of a document may be in several parts
        writer.add(("counting", 0, 5), Answer(text="12", counts=None, values=()), [(maps, ["12"])])
        writer.add(("counting", 1, 0), Answer(text="12", counts=None, values=()), [(maps, ["12"])])
    write_results(tmp_path, tasks=tasks, names={"counting": "counting", "talking": "talking"})
    (file,) = tmp_path.glob("*/*_results.json")
    results = json.loads(file.read_text())
    results["configs"]["counting"]["metadata"] = {"version": 1, "halo_digits": True}
    file.write_text(json.dumps(results))
    found = scored(capsys, tmp_path, "--workers", "1").sort_index()
    asked_often = found.loc["counting", 0]
    assert len(asked_often) == 6
    # Four say 12, one 13, and one nothing that counts.
    assert asked_often.self_consistency.tolist() == pytest.approx([4 / 6] * 6)
    assert asked_often.pairwise_agreement.tolist() == pytest.approx([6 / 15] * 6)
    assert found.loc["counting", 1].self_consistency.isna().all()
    assert found.loc["talking"].self_consistency.isna().all()


def test_another_set_counts_where_the_run_and_the_variable_name_it(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no-cache"))
    spec = SETS["halo_count_single"]
    manifest = build_set(type(spec)(name="mine", n=3, counts=(2, 4), size=256), tmp_path / "set")
    tasks = {"counting": manifest.content_sha256}
    run = write_maps(
        tmp_path / "run", [[("counting", 1, generation(np.ones((1, 1, 64)), grids=((8, 8),)))]], tasks=tasks
    )
    assert scored(capsys, run).reason.tolist() == ["the task has no set of dots"]
    write_results(run, tasks=tasks, names={"counting": "mine"})
    code, out, error = score(capsys, run)
    assert (code, out, error.count("\n")) == (1, "", 1)
    assert "no set is named 'mine'" in error
    monkeypatch.setenv("HALO_DATASET", str(tmp_path / "set"))
    row = scored(capsys, run, "--null").iloc[0]
    assert (row.auroc_dot, row.frame_enrichment, row.auroc_dot_p) == pytest.approx((0.5, 1, 1))
    assert pd.isna(row.reason)

    monkeypatch.setenv("HALO_DATASET", str(tmp_path / "other"))
    build_set(type(spec)(name="mine", n=3, seed=1, counts=(2, 4), size=256), tmp_path / "other")
    code, out, error = score(capsys, run)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert f"mine: the run saw content {manifest.content_sha256}, what is here has" in error
    assert "HALO_DATASET" in error


def test_a_set_with_a_single_image_has_no_null(capsys, tmp_path, monkeypatch):
    manifest = build_set(type(SETS[TASK])(name="mine", n=1, counts=(2, 4), size=256), tmp_path / "set")
    monkeypatch.setenv("HALO_DATASET", str(tmp_path / "set"))
    tasks = {"counting": manifest.content_sha256}
    run = write_maps(
        tmp_path / "run", [[("counting", 0, generation(np.ones((1, 1, 64)), grids=((8, 8),)))]], tasks=tasks
    )
    write_results(run, tasks=tasks, names={"counting": "mine"})
    row = scored(capsys, run, "--null").iloc[0]
    assert row.reason == "no other document has dots"
    assert row.auroc_dot == 0.5
    assert np.isnan(row.auroc_dot_z)


def part_of(run):
    return run / "halo" / "part-00000.parquet"


def cut(run):
    part_of(run).write_bytes(part_of(run).read_bytes()[:-100])


def damage_pages(run):
    data = bytearray(part_of(run).read_bytes())
    data[4:400] = bytes(396)
    part_of(run).write_bytes(data)


def flip_a_bit(run):
    """One bit of a map that is stored as it is."""
    table = pq.read_table(part_of(run))
    write_sealed(table, part_of(run), compression="none", use_dictionary=False)
    data = bytearray(part_of(run).read_bytes())
    data[data.index(np.float32(table["map_eq1"][0].as_py()).tobytes())] ^= 1
    part_of(run).write_bytes(data)


def restate(run, **metadata):
    """Give the only part of a run other metadata."""
    table = pq.read_table(part_of(run))
    kept = {key.decode(): value for key, value in table.schema.metadata.items()}
    write_sealed(table.replace_schema_metadata({**kept, **metadata}), part_of(run))


def renumber(run):
    """The maps and the answer of a document that the set does not have."""
    shutil.rmtree(run / "halo")
    write_maps(run, [[(TASK, 256, generation(np.ones((1, 1, 1024))))]], tasks={TASK: CONTENT_SHA256[TASK]})


def ragged(run):
    amend(run, map_eq1=[[1.0] * 1024, [1.0] * 1000])


WHOLE = {"config": {}, "configs": {}, "n-samples": {}, "versions": {}}


def write_one_result(run, results):
    (run / "1_results.json").write_text(json.dumps(results))


def mix(run):
    other = write_maps(
        run / "other", [[("foreign", 0, generation(np.ones((1, 1, 4)), grids=((2, 2),)))]], tasks={"b": "c"}
    )
    shutil.copy(part_of(other), run / "halo" / "part-00001.parquet")


def replace_by_a_table(run):
    write_sealed(pa.table({"a": [1]}), part_of(run))


def block_the_output(run):
    (run / "scores.csv").mkdir()


def halve_the_results(run):
    write_results(run, tasks={}, names={})
    (run / "org__model" / "1_results.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "code", "words"),
    [
        (shutil.rmtree, 2, ["there is no such folder", "--output_path"]),
        (lambda run: shutil.rmtree(run / "halo"), 2, ["holds no maps", "--model halo"]),
        (lambda run: part_of(run).rename(part_of(run).with_suffix(".unfinished")), 2, ["holds no maps"]),
        (cut, 1, ["part-00000.parquet: is damaged", "only half of it"]),
        (damage_pages, 1, ["part-00000.parquet: is damaged"]),
        (flip_a_bit, 1, ["part-00000.parquet: is damaged", "CRC"]),
        (lambda run: restate(run, halo_probe="{"), 1, ["part-00000.parquet", "Expecting"]),
        (lambda run: restate(run, halo_probe="{}"), 1, ["part-00000.parquet", "its signature does not say"]),
        (lambda run: restate(run, halo_probe='{"model": {}, "tasks": []}'), 1, ["its signature does not say"]),
        (lambda run: restate(run, halo_answers="nope"), 1, ["part-00000.parquet", "Expecting"]),
        (
            lambda run: restate(run, halo_answers="[[1]]"),
            1,
            ["part-00000.parquet", "its answers are none that a run writes"],
        ),
        (lambda run: amend(run, doc_id=[-1] * 2), 1, ["it holds maps of halo_count -1 without its answer"]),
        (renumber, 1, ["halo_count has 256 documents, and none is 256"]),
        (lambda run: amend(run, grid=[None, [[32, 32]]]), 1, ["part-00000.parquet", "grid is missing in a row"]),
        (lambda run: amend(run, view_image=[[0, 0]] * 2), 1, ["view_image and view_box are not those of each grid"]),
        (ragged, 1, ["part-00000.parquet", "map_eq1 has rows of 1000 and 1024 weights"]),
        (lambda run: amend(run, map_eq1=[[]] * 2), 1, ["map_eq1 has rows of 0 weights"]),
        (lambda run: amend(run, map_raw=[[1.0] * 1000] * 2), 1, ["maps of different numbers of image tokens"]),
        (lambda run: amend(run, map_heads=[[1.0] * 1025] * 2), 1, ["maps of different numbers of image tokens"]),
        (lambda run: amend(run, sink_tokens=[[True]] * 2), 1, ["maps of different numbers of image tokens"]),
        (
            lambda run: write_one_result(run, {"halo": None, **WHOLE}),
            2,
            ["1_results.json: is damaged (halo is null, no object)"],
        ),
        (
            lambda run: write_one_result(run, {**WHOLE, "halo": {"signature": signature_of({})}, "configs": None}),
            2,
            ["1_results.json: is damaged (configs is null, no object)"],
        ),
        (mix, 2, ["part-00001.parquet: is of another run than part-00000.parquet"]),
        (replace_by_a_table, 1, ["part-00000.parquet: is damaged (it holds no signature and no answers)"]),
        (block_the_output, 1, ["scores.csv: cannot be written"]),
        (halve_the_results, 2, ["1_results.json: is damaged (cannot be read, or only half of it"]),
    ],
)
def test_a_damaged_run_is_refused_with_one_line_and_leaves_earlier_scores(damage, code, words, capsys, tmp_path):
    maps = generation(np.random.default_rng(2).dirichlet(np.ones(1024), size=(2, 1)))
    run = write_maps(tmp_path / "run", [[(TASK, 0, maps)]], tasks={TASK: CONTENT_SHA256[TASK]})
    (run / "scores.parquet").write_text("earlier")
    damage(run)
    found, out, error = score(capsys, run)
    assert (found, out) == (code, "")
    assert error.startswith("halo-probe: ")
    assert error.count("\n") == 1
    for word in words:
        assert word in error
    assert not list(run.glob("*.unfinished"))
    assert not run.exists() or (run / "scores.parquet").read_text() == "earlier"


def test_two_commands_that_score_one_run_at_once_leave_whole_scores_or_one_is_refused(tmp_path):
    maps = generation(np.random.default_rng(2).dirichlet(np.ones(1024), size=(2, 1)))
    run = write_maps(tmp_path / "run", [[(TASK, 0, maps)]], tasks={TASK: CONTENT_SHA256[TASK]})
    (run / "scores.csv.unfinished").write_text("of a command that was killed")
    command = [Path(sys.executable).with_name("halo-probe"), "score", run, "--workers", "1"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ended = [(one.communicate(), one.returncode) for one in both]
    for (_, error), code in ended:
        assert code == 0 or (code, "another command is scoring this run; wait for it" in error) == (2, True)
    assert 0 in {code for _, code in ended}
    assert len(pd.read_parquet(run / "scores.parquet")) == len(pd.read_csv(run / "scores.csv")) == 2
    assert not list(run.glob("*.unfinished"))


def test_no_workers_are_bad_usage(capsys, tmp_path):
    code, _, error = score(capsys, tmp_path, "--workers", "0")
    assert (code, error) == (2, "halo-probe: --workers 0: give at least 1.\n")


def test_a_real_run_is_scored_and_its_scores_are_compared(capsys, tmp_path, qwen3_vl_checkpoint, lmms_eval):
    run = tmp_path / "run"
    arguments = ["--model_args", f"base=qwen3_vl,layers=all,pretrained={qwen3_vl_checkpoint},device_map=cpu"]
    arguments += ["--model", "halo", "--device", "cpu", "--tasks", "halo_count", "--limit", "2", "--log_samples"]
    finished = lmms_eval([*arguments, "--output_path", run])
    assert finished.returncode == 0, finished.stderr[-3000:]
    found = scored(capsys, run, "--null")
    assert found.reason.isna().all()
    assert len(found) == 2 * 3 * 4
    (file,) = run.glob("*/*_results.json")
    table = json.loads(file.read_text())["results"]["halo_count"]
    # Live and offline alike, at the digits, over the middle layers and over the last one.
    samples = [json.loads(line) for line in next(run.glob("*/*_samples_halo_count.jsonl")).read_text().splitlines()]
    for digit in (1, 2):
        for key in ("halo_index", "coverage", "hull_contrast_ns", "frame_enrichment"):
            steps = [sample["token_counts"][0]["halo"]["digit_steps"][digit - 1] for sample in samples]
            offline = [found.loc["halo_count", document, step, 3][key] for document, step in enumerate(steps)]
            assert [sample[f"{key}_d{digit}"] for sample in samples] == pytest.approx(offline, abs=1e-9)
            assert table[f"{key}_d{digit},none"] == pytest.approx(np.mean(offline))
    content = found[~found.end].reset_index()
    middle = content[content.layer.isin((1, 2))].groupby("doc_id")[["sparsity", "visual_mass"]].mean().mean()
    assert middle.sparsity == pytest.approx(table["vision_sparsity_mid,none"], abs=1e-6)
    assert middle.visual_mass == pytest.approx(table["vision_mass_mid,none"], abs=1e-6)
    pooled = content[content.layer == 3].groupby("doc_id").sparsity_g16.mean().mean()
    assert pooled == pytest.approx(table["vision_sparsity_g16,none"], abs=1e-6)
    assert json.loads(file.read_text())["halo"]["digits"] == {"halo_count split": 2}
    last = found[~found.end].xs(3, level="layer")
    by_document = last.groupby("doc_id")[["sparsity", "entropy_rn", "visual_mass"]].mean().mean()
    for key, name in (
        ("sparsity", "vision_sparsity"),
        ("entropy_rn", "vision_entropy_rn"),
        ("visual_mass", "vision_mass"),
    ):
        assert by_document[key] == pytest.approx(table[f"{name},none"], abs=1e-6)
    assert main(["compare", str(run), "--json", str(tmp_path / "report.json")]) == 0
    (halo,) = [one for one in json.loads((tmp_path / "report.json").read_text())["verdicts"] if one["rule"] == "Halo"]
    assert [demand["numbers"]["halo_index z n"] for demand in halo["demands"]] == [2], halo
    capsys.readouterr()
    # Scores without the null are no evidence, and no error.
    scored(capsys, run)
    assert main(["compare", str(run)]) == 0


def test_a_process_that_is_killed_is_told_in_one_line():
    with pytest.raises(HaloError, match=r"was killed.*--workers 1"), processes(1) as pool:
        list(pool.map(os._exit, [1]))
