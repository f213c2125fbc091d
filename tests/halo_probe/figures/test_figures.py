"""Figures of planted runs: what is drawn is what the runs hold, and what they lack is named."""

import numpy as np
import pandas as pd
import pytest
from planted_runs import counted, plant_maps, plant_run, plant_scores
from scipy import spatial, stats

from halo_probe.archive.runs import open_run
from halo_probe.cli import main
from halo_probe.errors import HaloError, NothingToDrawError
from halo_probe.figures import draw_figures, read_frames
from halo_probe.figures.correctness import draw_accuracy_against_sparsity
from halo_probe.figures.counts import draw_accuracy_and_bias, draw_predicted_and_true
from halo_probe.figures.digits import draw_digit_sparsity
from halo_probe.figures.halo import radial_profile
from halo_probe.figures.heatmaps import draw_layers_and_tokens
from halo_probe.figures.layers import draw_layers
from halo_probe.figures.maps import StoredMap, read_dots, read_maps, read_picture
from halo_probe.figures.style import save

DOCUMENTS = 24
HOSTILE = "org/<script>$x^{$`點"


def replies(rng, *, right=0.5, shift=-0.05):
    """Samples with attention at both digits: sparser where the reply is right, and less so at digit 2."""
    rows = []
    for index in range(DOCUMENTS):
        error = None if index == 3 else 0 if rng.random() < right else int(rng.choice([-2, -1, 1, 40]))
        d1 = 0.6 + 0.1 * (error == 0) + rng.normal(0, 0.02)
        d2 = d1 + shift + rng.normal(0, 0.01)
        generation = {
            "layer": 3, "layer_type": "full_attention", "tokens": ["1", "點", "<end>"], "content": 2,
            "sparsity": [d1, d2, 0.1], "entropy": [1 - d1, 1 - d2, None], "visual_mass": [0.3, 0.2, 0.1],
        }  # fmt: skip
        values = {"sparsity_d1": d1, "sparsity_d2": d2, "vision_sparsity": (d1 + d2) / 2}
        halo = {"digit_status": "split", "digit_steps": [0, 1], "generations": [generation]}
        rows.append(counted(index, error, **values, token_counts=[{"output_tokens": 3, "halo": halo}]))
    return rows


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A plain run with an enhanced task, its intervention, another model, and one without the probe."""
    root, rng = tmp_path_factory.mktemp("runs"), np.random.default_rng(0)
    rows = replies(rng)
    enhanced = [row | {"id": row["id"].replace("halo_count", "halo_enhance_r32")} for row in rows]
    boost = {"name": "boost", "steps": "d2", "layers": "all", "strength": 2.0}
    plain = plant_run(root / "plain", {"halo_count": rows, "halo_enhance_r32": enhanced})
    folders = {
        "plain": plain,
        "boosted": plant_run(root / "boosted", {"halo_count": replies(rng, right=0.8)}, intervention=boost),
        "hostile": plant_run(root / "hostile", {"halo_count": replies(rng, right=0.2, shift=0)}, model=HOSTILE),
        "api": plant_run(
            root / "api", {"halo_count": [counted(index, 0) for index in range(DOCUMENTS)]}, layers=(), model="x"
        ),
    }
    for name, task in (
        *(("plain", "halo_count"), ("plain", "halo_enhance_r32")),
        *(("boosted", "halo_count"), ("hostile", "halo_count")),
    ):
        plant_maps(
            folders[name], lambda *_: rng.random(64) ** 4, documents=range(DOCUMENTS), layers=(0, 3),
            tokens=("1", "點", "<end>"), task=task,
        )  # fmt: skip
    for name in ("plain", "hostile"):
        plant_scores(
            folders[name],
            lambda document, *_: {
                "visual_mass": rng.random(),
                "entropy": rng.random(),
                "halo_index_ns_z": rng.normal(),
                "hull_contrast_ns_z": None if document == 5 else rng.normal(),
            },
            documents=range(DOCUMENTS),
            layers=(0, 3),
        )
    return folders


@pytest.fixture(scope="module")
def frames(folders):
    return read_frames(list(folders.values()))


def of_task(frame):
    return frame[frame["task"] == "halo_count"]


def test_every_figure_is_drawn_and_says_of_what(folders, tmp_path):
    figures = draw_figures(list(folders.values()), tmp_path / "new", document=7)
    assert figures.left_out == ()
    written = [path for figure in figures.drawn for path in (figure.path_png, figure.path_svg)]
    assert sorted(written) == sorted((tmp_path / "new").iterdir())
    assert [path.name[0] for path in written] == [digit for digit in "123456789" for _ in (".png", ".svg")]
    for path in written:
        start = path.read_bytes()[:200]
        assert start.startswith(b"\x89PNG" if path.suffix == ".png" else b"<?xml")
    for figure in figures.drawn:
        assert figure.caption.startswith("halo_count version 1")
        assert "n = " in figure.caption
        assert "layer" in figure.caption
    assert "document 7, model: counted " in figures.drawn[0].caption


def test_what_a_run_without_attention_lacks_is_named(folders, tmp_path, capsys):
    assert main(["figures", str(folders["api"]), "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert [line.rpartition("/")[2] for line in printed.out.splitlines()] == [
        f"{name}.{suffix}" for name in ("2-accuracy-and-bias", "7-predicted-and-true") for suffix in ("png", "svg")
    ]
    lines = printed.err.splitlines()
    assert len(lines) == 7
    for line in lines:
        assert line.startswith("halo-probe: left out: ")
        assert "; evaluate " in line or "; run halo-probe score" in line


def test_the_same_figure_is_the_same_bytes(frames, tmp_path):
    content = []
    for name in ("first", "second"):
        drawing = draw_accuracy_and_bias(of_task(frames.summary), about="halo_count version 1")
        content.append([path.read_bytes() for path in save(drawing, tmp_path / name)])
    assert content[0] == content[1]


def test_bars_and_whiskers_are_accuracy_and_its_wilson_interval(frames):
    drawing = draw_accuracy_and_bias(of_task(frames.summary), about="")
    accuracy, bias = drawing.figure.axes
    right = [
        of_task(frames.documents).query("run == @name")["correct"].to_numpy() for name in ("model", "model + boost")
    ]
    for bar, whiskers, correct in zip(accuracy.patches, accuracy.collections[0].get_segments(), right, strict=False):
        assert bar.get_width() == pytest.approx(correct.mean())
        interval = stats.binomtest(int(correct.sum()), DOCUMENTS).proportion_ci(method="wilson")
        assert whiskers[:, 0] == pytest.approx([interval.low, interval.high])
    errors = of_task(frames.documents).query("run == 'model'").eval("predicted - count")
    assert bias.patches[0].get_width() == pytest.approx(errors.mean())
    labels = [line.get_label() for line in bias.lines if line.get_label().startswith("always")]
    assert labels == list(of_task(frames.summary)["run"][-len(labels) :])
    assert "(96% answered)" in accuracy.get_yticklabels()[0].get_text()


def test_every_document_of_a_true_count_is_somewhere_in_its_column(frames):
    drawing = draw_predicted_and_true(of_task(frames.documents).query("run == 'model'"), about="")
    panel = drawing.figure.axes[0]
    shares = np.asarray(panel.collections[0].get_array())
    present = np.isin(range(10, 17), of_task(frames.documents)["count"])
    assert shares.sum(axis=0) == pytest.approx(present.astype(float))
    # One reply has no count, and those that are 40 too many stand in the highest row.
    rows = of_task(frames.documents).query("run == 'model'")
    unanswered, far = rows[rows["predicted"].isna()], rows[rows["predicted"] > 30]
    per_count = rows["count"].value_counts()
    assert shares[0].sum() == pytest.approx(sum(1 / per_count[count] for count in unanswered["count"]))
    assert shares[-1].sum() == pytest.approx(sum(1 / per_count[count] for count in far["count"]))


def test_the_boxes_hold_the_digits_and_the_test_is_that_of_scipy_after_holm(frames):
    documents = of_task(frames.documents)
    drawing = draw_digit_sparsity(documents, about="")
    panel = drawing.figure.axes[0]
    names = list(dict.fromkeys(documents.dropna(subset=["sparsity_d2"])["run"]))
    medians = [
        line.get_ydata()[0] for line in panel.lines if line.get_color() == "black" and len(line.get_ydata()) == 2
    ]
    expected = [documents.query("run == @name")[f"sparsity_d{digit}"].median() for name in names for digit in (1, 2)]
    assert set(np.round(expected, 9)) <= set(np.round(medians, 9))
    p_values = [
        stats.wilcoxon(rows["sparsity_d2"] - rows["sparsity_d1"]).pvalue
        for rows in (documents.query("run == @name") for name in names)
    ]
    largest = max(p_values)  # Holm leaves the largest as it is, unless one before it is adjusted above it
    text = next(text.get_text() for text, p in zip(panel.texts, p_values, strict=True) if p == largest)
    assert text.endswith(f"p = {largest:.3f}".replace("0.", ".")) or largest < 0.001


def test_sparsity_that_goes_with_being_right_is_shown_within_counts(frames):
    def labels_of(documents):
        drawn = draw_accuracy_against_sparsity(documents, about="")
        return drawn.figure.axes, drawn.figure.axes[0].get_legend_handles_labels()[1]

    documents = of_task(frames.documents)
    (_, over), few = labels_of(documents)
    assert len(few) == 3
    # Of 24 documents.
    assert all("wrong, too few for r" in label for label in few)
    _, enough = labels_of(pd.concat([documents] * 4, ignore_index=True))
    assert all(float(label.partition(": r ")[2].split()[0]) > 0.5 for label in enough)
    # The run with an intervention tells nothing of models.
    assert over.texts[0].get_text() == "2 models: no correlation over models"


def test_accuracy_and_sparsity_are_held_against_each_other_over_models_and_not_over_runs(frames):
    """One model with two interventions is one model."""
    documents = of_task(frames.documents)
    plain = documents[documents["run"] == "model"]
    runs = [plain, *(plain.assign(run=f"model + {name}", model=None) for name in ("boost", "knockout"))]
    _, over = draw_accuracy_against_sparsity(pd.concat(runs), about="").figure.axes
    assert over.texts[0].get_text() == "1 model: no correlation over models"
    three = [plain.assign(run=name, model=name) for name in "abc"]
    _, over = draw_accuracy_against_sparsity(pd.concat(three), about="").figure.axes
    assert "over 3 models: a picture, no test;\nso few need |r| > 0.997" in over.texts[0].get_text()


def stored(weights, *, layer=3, step=0, box=(0, 0, 1, 1)):
    return StoredMap(
        doc_id=0, step=step, token="1", layer=layer, layer_type="full_attention",
        weights=np.asarray(weights, dtype=np.float32), box=box,
    )  # fmt: skip


def test_the_colours_of_all_panels_are_on_one_scale_and_dots_and_hull_are_where_they_are(folders):
    picture = read_picture(open_run(folders["plain"]), "halo_count", 0)
    maps = [stored(np.ones((8, 8))), stored(np.eye(8), step=1), stored(np.eye(8), layer=0, box=(0, -0.5, 1, 1.5))]
    *panels, bar = draw_layers_and_tokens(picture, maps, about="").figure.axes
    drawn = [panel for panel in panels if panel.images]
    assert len(drawn) == 3
    assert {image.norm for panel in drawn for image in panel.images[1:]} == {drawn[0].images[1].norm}
    assert drawn[0].images[1].norm.vmax == pytest.approx(8)  # 1/8 of the attention on each of 8 in 64 cells
    assert bar.get_ylabel() == "attention / uniform"
    assert drawn[0].images[1].get_extent() == [0, 1024, 1536, -512]  # padded: the map is taller than the image
    assert drawn[1].get_ylim() == (1024, 0)
    *rings, hull = drawn[1].patches
    centers = np.array(picture.dots.centers) + 0.5
    assert np.array([ring.center for ring in rings]) == pytest.approx(centers)
    corners = hull.get_xy()
    x, y = corners.T
    area = abs(x[:-1] @ y[1:] - x[1:] @ y[:-1]) / 2
    assert area == pytest.approx(spatial.ConvexHull(centers).volume)


def test_a_profile_of_uniform_attention_is_flat_and_one_on_the_dots_is_steep(folders):
    dots = read_dots(open_run(folders["plain"]), "halo_count")
    flat = radial_profile([stored(np.full((32, 32), 1 / 1024))], dots)
    assert flat["enrichment"].to_numpy() == pytest.approx(1)
    assert flat["null"].to_numpy() == pytest.approx(1)
    weights = np.full((32, 32), 0.01)
    for x, y in dots[0].centers:
        weights[y // 32, x // 32] = 1
    steep = radial_profile([stored(weights)], dots)
    assert steep["enrichment"].iloc[0] > 3 * steep["null"].iloc[0]
    assert steep["enrichment"].iloc[-1] < 0.5
    with pytest.raises(NothingToDrawError, match="fewer than two"):
        radial_profile([], [dots[0], None])


def test_layers_of_which_a_measure_is_unknown_leave_its_panel_empty(frames):
    scores = frames.scores[frames.scores["step"] == 0].assign(count=12)
    drawing = draw_layers(scores, about="")
    mass, _, change = drawing.figure.axes
    means = scores[scores["run"] == "model"].groupby("layer")["visual_mass"].mean()
    assert mass.lines[0].get_ydata() == pytest.approx(means)
    assert [text.get_text() for text in change.texts] == ["not measured"]
    with pytest.raises(NothingToDrawError, match="layers=all"):
        draw_layers(scores[scores["layer"] == 3], about="")
    with pytest.raises(NothingToDrawError, match="layers=all"):
        draw_layers(scores.assign(visual_mass=None, entropy=None), about="")


def test_frames_hold_what_the_samples_hold(frames, folders):
    run = open_run(folders["hostile"])
    rows = frames.documents.query("run == @name", local_dict={"name": "<script>$x^{$`\\u9ede"})
    assert list(rows["sparsity_d1"]) == [row["sparsity_d1"] for row in run.tasks["halo_count"].samples]
    assert rows["predicted"].isna().sum() == 1
    tokens = frames.tokens.query("run == 'model' and task == 'halo_count'")
    assert len(tokens) == 2 * DOCUMENTS  # the end of sequence is none of the reply
    assert list(tokens["token"][:2]) == ["1", "點"]
    assert set(frames.scores["run"]) == {"model", "<script>$x^{$`\\u9ede"}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--document", "99"], 2, "--document 99: halo_count has 0 to 23 in these runs"),
        (["--task", "halo_ocr"], 2, "no run has the task halo_ocr"),
        (["--out", "/dev/null/x"], 1, "cannot be made"),
    ],
)
def test_what_cannot_be_drawn_at_all_is_one_line(arguments, code, words, folders, tmp_path, capsys):
    assert main(["figures", str(folders["api"]), "--out", str(tmp_path), *arguments]) == code
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_runs_that_are_not_comparable_are_not_drawn_together(folders, tmp_path, capsys):
    fewer = plant_run(tmp_path / "fewer", {"halo_count": [counted(index, 0) for index in range(5)]})
    assert main(["figures", str(folders["api"]), str(fewer), "--out", str(tmp_path / "out")]) == 2
    assert "the number of documents differs" in capsys.readouterr().err
    (tmp_path / "fewer" / "halo").mkdir()
    (tmp_path / "fewer" / "halo" / "part-00000.parquet").write_bytes(b"PAR1")
    assert main(["figures", str(fewer), "--out", str(tmp_path / "out")]) == 1


def test_every_change_of_a_run_is_shown_or_named(tmp_path):
    boost = {"name": "boost", "steps": "d2", "layers": "all"}
    rows, maps = [counted(0, 0, vision_sparsity=0.5)], lambda *_: np.ones(64)
    plain, mild, strong, hidden = (
        plant_maps(plant_run(tmp_path / str(k), {"halo_count": rows}, intervention=did), weights, documents=[0])
        for k, (did, weights) in enumerate(
            [
                (None, maps),
                ({**boost, "strength": 2.0}, maps),
                ({**boost, "strength": 4.0}, maps),
                ({"name": "knockout", "steps": "all", "layers": "all"}, lambda *_: np.full(64, np.nan)),
            ]
        )
    )
    drawn = draw_figures([plain, mild, strong, hidden], tmp_path / "out").drawn
    (caption,) = [figure.caption for figure in drawn if figure.path_png.name.startswith("4")]
    assert "not shown: knockout all all;" in caption
    written = (tmp_path / "out" / "4-before-and-after.svg").read_text()
    assert all(label in written for label in ("plain", "boost d2 all 2.0", "boost d2 all 4.0"))
    left = dict(draw_figures([plain, hidden], tmp_path / "out").left_out)
    assert left["The same image before and after a change"].endswith("; not shown: knockout all all")


def test_a_run_is_drawn_once_and_its_scores_are_of_this_version(folders, tmp_path, capsys):
    assert main(["figures", *[str(folders["api"])] * 2, "--out", str(tmp_path)]) == 2
    assert "is named twice" in capsys.readouterr().err
    run = plant_run(tmp_path / "a", {"halo_count": [counted(0, 0)]})
    plant_scores(run, lambda *_: {}, documents=[0])
    scores = pd.read_parquet(run / "scores.parquet")
    scores.drop(columns="delta_entropy").to_parquet(run / "scores.parquet")
    assert main(["figures", str(run), "--out", str(tmp_path)]) == 2
    assert "has no column delta_entropy: it is of another version; score the run again" in capsys.readouterr().err


def test_hidden_image_tokens_have_no_map_and_half_a_part_is_an_error(tmp_path):
    run = plant_run(tmp_path / "a", {"halo_count": [counted(index, 0) for index in range(2)]})
    plant_maps(run, lambda document, *_: np.full(64, np.nan if document else 1.0), documents=range(2), layers=(3,))
    read = open_run(run)
    (first,) = read_maps(read, "halo_count", documents=[0], steps=[0])
    assert first.weights == pytest.approx(np.full((8, 8), 1 / 64))
    with pytest.raises(NothingToDrawError, match="no map of 1 documents"):
        read_maps(read, "halo_count", documents=[1])
    (run / "halo" / "part-00000.parquet").write_bytes(b"PAR1")
    with pytest.raises(HaloError, match="is damaged .*; remove it and give the same lmms-eval command again"):
        read_maps(read, "halo_count", documents=[0])
