"""The leaderboard of planted runs: ranks, ties, what is kept apart, and names that would break a table."""

import csv
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import constants
from huggingface_hub.repocard_data import model_index_to_eval_results
from markdown_it import MarkdownIt
from planted_runs import counted, plant_run
from scipy import stats

from dataset_builder.golden import CONTENT_SHA256
from halo_probe.archive.signature import seal
from halo_probe.cli import main
from halo_probe.leaderboard import build_leaderboard
from tests import hub_server

N = 120
HOSTILE = "evil/</td><script>alert(1)</script>|a`b`\\|*c*[d](javascript:alert(2))"


def rows(wrong, **more):
    """Samples of which those in `wrong` are off by one."""
    return [counted(index, int(index in wrong), **more) for index in range(N)]


@pytest.fixture
def ranked(tmp_path):
    """Four runs: the second misses what the first does and two more, the third many, the fourth as many others."""
    return [
        plant_run(tmp_path / "best", {"halo_count": rows(range(10))}, model="org/best"),
        plant_run(tmp_path / "close", {"halo_count": rows(range(12))}, model=HOSTILE),
        plant_run(tmp_path / "third", {"halo_count": rows(range(60))}, model="org/third"),
        plant_run(tmp_path / "fourth", {"halo_count": rows(range(55, 120))}, model="/home/ada/fourth", layers=()),
    ]


def ranking(capsys, *arguments):
    code = main(["leaderboard", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out.splitlines(), printed.err


def test_runs_that_a_test_does_not_tell_apart_share_a_rank(ranked):
    (board,) = build_leaderboard(ranked[::-1]).boards
    assert [entry.rank for entry in board.entries] == [1, 1, 3, 3]
    assert [entry.rank_interval for entry in board.entries] == [(1, 2), (1, 2), (3, 4), (3, 4)]
    assert [entry.model.partition("/")[2] or entry.model for entry in board.entries][::2] == ["best", "third"]
    # The p-values behind it, of discordant documents: (2, 0) and (45, 50) are none, (48, 0) and the like are.
    assert stats.binomtest(2, 2).pvalue > 0.05 < stats.binomtest(55, 115).pvalue
    assert 6 * stats.binomtest(48, 48).pvalue < 0.05
    assert board.entries[0].accuracy_interval == pytest.approx(
        tuple(stats.binomtest(110, N).proportion_ci(method="wilson"))
    )
    assert board.constants[0].answer.startswith("always ")


def test_a_difference_that_holm_takes_away_is_a_tie(tmp_path):
    # 6 documents apart is p = .03125: significant alone, not in a family of three.
    assert stats.binomtest(6, 6).pvalue < 0.05 < 2 * stats.binomtest(6, 6).pvalue
    wrong = [range(10), range(16), range(20, 35)]
    runs = [plant_run(tmp_path / str(k), {"halo_count": rows(one)}, model=f"org/{k}") for k, one in enumerate(wrong)]
    assert [entry.rank for entry in build_leaderboard(runs[:2]).boards[0].entries] == [1, 2]
    assert [entry.rank for entry in build_leaderboard(runs).boards[0].entries] == [1, 1, 1]


def test_runs_that_are_not_comparable_stand_apart_with_the_reason(ranked, tmp_path, capsys):
    other = plant_run(tmp_path / "other", {"halo_count": rows(())}, model="org/other", version=2)
    echo = plant_run(tmp_path / "echo", {"halo_echo": rows(())}, model="org/echo")
    code, paths, error = ranking(capsys, other, *ranked, echo, "--out", tmp_path / "out")
    assert (code, error) == (0, "")
    assert paths == [str(tmp_path / "out" / f"leaderboard.{suffix}") for suffix in ("md", "csv", "json", "html")]
    board = json.loads((tmp_path / "out" / "leaderboard.json").read_text())
    main_table, apart = board["boards"]
    assert (len(main_table["entries"]), main_table["reasons"]) == (4, [])
    assert [entry["model"] for entry in apart["entries"]] == ["org/other"]
    assert apart["reasons"] == [f"the task version differs: 1 in {ranked[0]}, 2 in {other}"]
    assert board["left_out"] == [str(echo)]
    text = (tmp_path / "out" / "leaderboard.md").read_text()
    assert "## Not comparable with the first table: halo_count version 2" in text
    assert f"Without halo_count: {echo}." in text


def test_runs_of_a_server_have_no_attention_and_their_key_is_nowhere(tmp_path, capsys):
    folder = plant_run(tmp_path / "api", {"halo_count": rows(range(4))}, layers=())
    file = next(folder.glob("*/*_results.json"))
    results = json.loads(file.read_text())
    results["config"] = {"model": "async_openai", "model_args": "model_version=gpt-x,base_url=http://h,api_key=sk-123"}
    file.write_text(json.dumps(results))
    code, _, _ = ranking(capsys, folder, "--out", tmp_path / "out", "--model-index")
    assert code == 0
    for path in (tmp_path / "out").iterdir():
        assert "sk-123" not in path.read_text()
    (entry,) = json.loads((tmp_path / "out" / "leaderboard.json").read_text())["boards"][0]["entries"]
    assert entry["model"] == "gpt-x"
    attention = ("t_2", "decay_beyond_echo", "image_tokens", "heads", "layer", "dtype", "signature")
    assert [entry[key] or None for key in attention] == [None] * 7
    assert entry["prompt"]


class _Text(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.cells = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_data(self, data):
        if self.cells and self.tags[-1] == "td":
            self.cells[-1] += data.removesuffix("\n")  # between two cells


def test_a_hostile_name_is_text_in_every_format(ranked, tmp_path, capsys):
    assert ranking(capsys, *ranked, "--out", tmp_path)[0] == 0
    for page in ((tmp_path / "leaderboard.html").read_text(), _rendered((tmp_path / "leaderboard.md").read_text())):
        parser = _Text()
        parser.feed(page)
        assert HOSTILE in parser.cells
        assert not {"script", "a", "em", "code", "img"} & set(parser.tags)
        assert len(parser.cells) == 4 * 17 + 2 * 3
    (line,) = [line for line in csv.DictReader(io.StringIO((tmp_path / "leaderboard.csv").read_text())) if line["rank"] == "1" and line["model"] != "org/best"]  # fmt: skip
    assert line["model"] == HOSTILE
    assert float(line["accuracy_interval_low"]) < float(line["accuracy"]) == pytest.approx(108 / N)


def _rendered(text):
    """With an independent reader of GitHub's tables; raw HTML in it would stay."""
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(text)


def test_t_2_and_the_decay_beyond_echo_come_from_any_plain_run_of_the_model(tmp_path):
    rng = np.random.default_rng(0)
    counts = [row["count"] for row in rows(())]
    decaying = [row | {"sparsity_d1": 0.7, "sparsity_d2": 0.6 + rng.normal(0, 0.01)} for row in rows(range(9))]
    steady = [row | {"sparsity_d1": 0.7, "sparsity_d2": 0.7} for row in rows(())]
    reading = [_wide(index, 10 + index % 90) for index in range(360)]
    runs = [
        plant_run(tmp_path / "count", {"halo_count": decaying}),
        plant_run(tmp_path / "echo", {"halo_echo": steady}),
        plant_run(tmp_path / "wide", {"halo_count_wide": reading}),
        plant_run(tmp_path / "boost", {"halo_count": decaying}, intervention={"name": "boost", "steps": "d2", "layers": "all", "strength": 2.0}),
    ]  # fmt: skip
    (file,) = runs[1].glob("*/*_results.json")
    results = json.loads(file.read_text())
    results["halo"]["signature"]["tasks"]["halo_echo"]["dataset_sha256"] = CONTENT_SHA256["halo_count"]
    results["halo"]["signature"] = seal(results["halo"]["signature"])
    file.write_text(json.dumps(results))
    assert len(counts) == N
    plain, boosted = build_leaderboard(runs).boards[0].entries
    assert plain.decay_beyond_echo == pytest.approx(np.mean([row["sparsity_d2"] - 0.7 for row in decaying]))
    assert plain.decay_beyond_echo_interval[1] < -0.09
    assert plain.t_2 == pytest.approx(1)
    assert boosted.intervention.startswith("name=boost")
    assert np.isnan([boosted.t_2, boosted.decay_beyond_echo]).all()


def _wide(index, count):
    """A document of two-digit counts whose reader sees every digit."""
    digits = np.eye(12)[[count // 10, count % 10]].tolist()
    halo = {"reliance": "measured", "true_digits": str(count), "digit_probabilities": digits}
    seen = {"count": count, "predicted": count, "accuracy": 1.0, "id": f"wide-{index}"}
    return counted(0, 0) | seen | {f"vr_{k}": 1.0 for k in (1, 2)} | {"token_counts": [{"halo": halo}]}


def test_the_snippet_for_a_model_card_is_what_the_hub_reads(ranked, tmp_path, capsys):
    _, paths, _ = ranking(capsys, *ranked, "--out", tmp_path, "--model-index")
    snippets = [path for path in paths if path.endswith(".yaml")]
    assert [path.rpartition("model-index-")[2] for path in snippets][::2] == ["1-best.yaml", "3-third.yaml"]
    name, results = model_index_to_eval_results(yaml.safe_load(Path(snippets[0]).read_text())["model-index"])
    assert name == "best"
    assert {result.metric_type: result.metric_value for result in results} == {
        "accuracy": pytest.approx(110 / N, abs=1e-6),
        "answered": 1.0,
        "mbe": pytest.approx(10 / N, abs=1e-6),
        "slope": pytest.approx(1, abs=0.05),
    }
    assert {(result.dataset_type, result.metric_args["n"]) for result in results} == {("halo_count", N)}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--task", "halo_ocr"], "the leaderboard of halo_ocr is empty: no run has it, they have halo_count"),
        (["--private"], "belong to --push"),
    ],
)
def test_an_empty_leaderboard_and_a_stray_option_are_one_line(arguments, words, tmp_path, capsys):
    run = plant_run(tmp_path / "a", {"halo_count": rows(())})
    code, paths, error = ranking(capsys, run, "--out", tmp_path / "out", *arguments)
    assert (code, paths, error.count("\n")) == (2, [], 1)
    assert words in error
    assert ranking(capsys, run, run, "--out", tmp_path / "out")[0] == 2
    assert ranking(capsys, run, "--out", run / "org__model" / "1_results.json")[0] == 1


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub that the client in this process is logged in to."""
    with hub_server.serve() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
        monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
        yield running


# The client itself hands httpx a file as `data=`, which httpx calls outdated.
@pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")
def test_it_is_pushed_in_one_commit_without_a_folder_of_this_machine(ranked, hub, tmp_path, capsys):
    other = plant_run(tmp_path / "other", {"halo_count": rows(())}, model="org/other", version=2)
    command = [*ranked, other, "--out", tmp_path / "out", "--push", "ada/results"]
    _, shown, _ = ranking(capsys, *command, "--dry-run")
    assert "ada/results" not in hub.repos
    assert "one commit to public dataset ada/results, no tag" in shown
    code, printed, error = ranking(capsys, *command, "--tag", "v1")
    assert (code, error) == (0, "")
    repo = hub.repos["ada/results"]
    assert repo.tags == {"v1": printed[-1]}
    assert [commit.title for commit in repo.commits[1:]] == ["Publish leaderboard of halo_count"]
    files = {path: blob.data for path, blob in repo.commits[-1].files.items()}
    assert hub_server.card_errors(files["README.md"].decode()) == []
    for content in files.values():
        assert str(tmp_path).encode() not in content
        assert b"/home/ada" not in content
    board, documents = (
        pq.read_table(io.BytesIO(files[f"data/{name}/test-00000-of-00001.parquet"])).to_pylist()
        for name in ("leaderboard", "documents")
    )
    assert [row["run"] for row in board] == [f"run-{place}" for place in range(1, 6)]
    assert [(row["board"], row["rank"]) for row in board] == [(1, 1), (1, 1), (1, 3), (1, 3), (2, 1)]
    for row in board:
        of_run = [one["correct"] for one in documents if one["run"] == row["run"]]
        assert np.mean(of_run) == pytest.approx(row["accuracy"])
    assert ranking(capsys, *command)[1:] == (printed, "")
    assert len(repo.commits) == 2
    repo.commits[-1].files["MANIFEST.json"] = repo.commits[-1].files["README.md"]
    code, _, error = ranking(capsys, *command)
    assert code == 1
    assert "ada/results holds sets, which this would take the place of" in error
