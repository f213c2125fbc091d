"""The page of planted runs, opened from disk in a real Chromium, and the command that writes it."""

import re
import shutil
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlencode, urlparse

import numpy as np
import pytest
from planted_runs import TASK, counted, plant_maps, plant_run, plant_scores

from dataset_builder.samples import draw_sample
from dataset_builder.sets import SETS
from halo_probe.archive.generation import View
from halo_probe.cli import main
from halo_probe.page.maps import quantize

EVIL = "<img src=x onerror=window.pwned=1>"
EVIL_REPLY = "</script><script>window.pwned=2</script>\u2028');window.pwned=3//\n${window.pwned=4}{{ 7*7 }}"
FOREIGN = f"other_{EVIL}"
ERRORS = [0, 2, None, -1, 0, 3]
LAYERS_B = (0, 2, 5, 7)
TOP_COLOUR = [253, 231, 36]  # the last of viridis


def peak_cell(document, step, layer):
    """Where the planted map of 8 x 8 image tokens has its largest weight."""
    return (5 * document + 3 * step + layer) % 64


def planted_map(document, step, layer):
    weights = np.ones(64)
    weights[peak_cell(document, step, layer)] = 9 + layer
    weights[(peak_cell(document, step, layer) + 1) % 64] = 0
    return weights


def foreign(index):
    return {"doc_id": index, "filtered_resps": EVIL_REPLY, "target": EVIL, "input": EVIL, "exact_match": 0.5}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """a: probed and scored, a document without maps; b: deeper, hostile in every name; c: another version, no probe."""
    root = tmp_path_factory.mktemp("runs")
    a = plant_run(root / "a", {TASK: [counted(*one) for one in enumerate(ERRORS)]}, model="org/small")
    plant_maps(a, planted_map, documents=range(5))
    plant_scores(
        a, lambda d, s, layer: {"sparsity": 0.1 * layer + 0.01 * s, "halo_index_ns": -d / 8}, documents=range(5)
    )
    (a / "halo" / "part-00007.unfinished").write_bytes(b"half")
    evil = [counted(k, -1, status=EVIL, filtered_resps=EVIL_REPLY) for k in range(6)]
    b = plant_run(
        root / f"b{EVIL}",
        {TASK: evil, FOREIGN: [foreign(0), foreign(1)]},
        model=EVIL,
        layers=LAYERS_B,
        depth=8,
        intervention={"name": EVIL, "steps": "d2", "layers": "all", "strength": 2.0},
    )
    plant_maps(b, planted_map, documents=[0, 1, 2, 4, 5], tokens=("1", EVIL_REPLY), layers=LAYERS_B)
    two_views = (View(0, 4, 4, (0, 0, 0.5, 1)), View(0, 4, 4, (0, 0, 1, 1)))
    plant_maps(b, lambda *_: np.r_[np.ones(31), 5], documents=[3], layers=LAYERS_B, views=two_views)
    plant_maps(b, planted_map, documents=[0], layers=LAYERS_B, task=FOREIGN)
    c = plant_run(root / "c", {TASK: [counted(k, 1) for k in range(6)]}, layers=(), version=2)
    return a, b, c


@pytest.fixture(scope="module")
def site(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "a site"
    assert main(["report", *map(str, runs), "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium here: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright here")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser):
    """A window whose console has to stay silent, and which may ask for files alone."""
    opened = browser.new_page()
    complaints, requests = [], []
    opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("dialog", lambda dialog: complaints.append(dialog.message))
    opened.on("request", lambda request: requests.append(request.url))
    opened.requests = requests
    yield opened
    opened.close()
    assert complaints == []
    assert all(url.startswith("file://") for url in requests if url != "about:blank")


def visit(page, site, *, run, task=TASK, **more):
    """The page opened by a deep link, once its document is shown."""
    page.goto("about:blank")
    page.goto((site / "index.html").as_uri() + "#" + urlencode({"run": run, "task": task, **more}))
    page.wait_for_selector(".panel")
    return page


def wait(page, condition):
    """Until a JavaScript expression holds; the policy of the page forbids playwright's own way."""
    for _ in range(400):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(25)
    pytest.fail(f"never came about: {condition}")


def listed(page):
    return page.locator("#documents option").all_inner_texts()


def readout(page, panel=0):
    return page.locator(".readout").nth(panel).inner_text()


def largest(cell, columns=8):
    return f"Largest: row {cell // columns + 1}, column {cell % columns + 1}: "


def test_the_page_opens_on_the_worst_document_of_the_first_run(page, site):
    page.goto((site / "index.html").as_uri())
    page.wait_for_selector(".panel")
    true = [draw_sample(SETS[TASK], k).count for k in range(6)]
    assert listed(page) == [
        f"✗ 2: {true[2]} → none",
        f"✗ 5: {true[5]} → {true[5] + 3} (+3) · no maps",
        f"✗ 1: {true[1]} → {true[1] + 2} (+2)",
        f"✗ 3: {true[3]} → {true[3] - 1} (−1)",
        f"✓ 0: {true[0]} → {true[0]}",
        f"✓ 4: {true[4]} → {true[4]}",
    ]
    assert page.locator("#documents").input_value() == "2"
    assert "I cannot tell." in page.locator(".answer").inner_text()
    assert page.locator(".panel h3").inner_text().endswith("/a")


def test_filters_narrow_the_list_and_count_it(page, site, runs):
    visit(page, site, run=runs[0])
    for outcome, documents in {"wrong": "2513", "right": "04", "none": "2", "": "251304"}.items():
        page.locator("#outcome").select_option(outcome)
        wait(page, f"document.getElementById('status').textContent.startsWith('{len(documents)} of 6')")
        assert [text[2] for text in listed(page)] == list(documents)
    page.locator("#order").select_option("number")
    wait(page, "document.querySelector('#documents option').textContent.includes(' 0: ')")
    true = draw_sample(SETS[TASK], 3).count
    page.locator("#count").select_option(str(true))
    wait(page, "document.getElementById('documents').length < 6")
    assert all(f": {true} → " in text for text in listed(page))
    page.locator("#outcome").select_option("none")
    if draw_sample(SETS[TASK], 2).count != true:
        wait(page, "document.getElementById('status').textContent.includes('change the filters')")


def test_the_image_has_its_dots_marked_where_they_are(page, site, runs):
    visit(page, site, run=runs[0], doc=3)
    sample = draw_sample(SETS[TASK], 3)
    drawn = page.locator("circle.dot").evaluate_all(
        "all => all.map((one) => ['cx', 'cy', 'r'].map((k) => +one.getAttribute(k)))"
    )
    assert [tuple(place[:2]) for place in drawn] == [tuple(center) for center in sample.centers]
    assert {place[2] for place in drawn} == {SETS[TASK].radius}
    image = page.locator(".stage img")
    image.evaluate("(image) => image.decode()")
    assert image.evaluate("(image) => [image.naturalWidth, image.naturalHeight]") == [512, 512]
    assert image.get_attribute("alt") == f"The image: {len(sample.centers)} dots"
    page.locator("#dots").uncheck()
    assert not page.locator("circle.dot").first.is_visible()


def test_the_sliders_choose_the_map_and_the_digits_are_named(page, site, runs):
    visit(page, site, run=runs[0], doc=1, step=0, layer=0)
    assert readout(page).startswith(largest(peak_cell(1, 0, 0)))
    page.locator("#layer").press("ArrowRight")
    page.locator("#layer").press("ArrowRight")
    page.locator("#step").press("ArrowRight")
    assert readout(page).startswith(largest(peak_cell(1, 1, 2)))
    weights = planted_map(1, 1, 2)
    shown = float(re.search(r": ([\d.]+) × mean", readout(page))[1])
    assert shown == pytest.approx(weights.max() / weights.mean(), rel=0.03)
    assert page.locator("#step").get_attribute("aria-valuetext") == "2 of 3: “2”"
    assert page.locator("#layer").get_attribute("aria-valuetext") == "2 (full attention)"
    assert page.locator(".tokens button").all_inner_texts() == ["1 digit 1", "2 digit 2", "<end> end"]
    page.locator(".tokens button").nth(2).click()
    assert readout(page).startswith(largest(peak_cell(1, 2, 2)))
    numbers = page.locator("dl.numbers").first.inner_text().split("\n")
    assert dict(zip(numbers[::2], numbers[1::2], strict=True)) == {
        "visual_mass": "25 %",
        "peak, × mean": f"{float(np.float32(11 / (63 + 10) * 64)):.3g}",
        "sparsity": "0.22",
        "halo_index_ns": "−0.125",
    }


def test_a_heat_map_is_coloured_on_one_scale_for_all_tokens_layers_and_panels(page, site, runs):
    visit(page, site, run=runs[0], **{"with": runs[1]}, doc=1, step=0, layer=3)
    page.locator("#strength").fill("100")
    colour_at = """(canvas, [cell, columns]) => {
      const side = canvas.width / columns;
      const place = [(cell % columns + 0.5) * side, (Math.floor(cell / columns) + 0.5) * side];
      return [...canvas.getContext("2d").getImageData(...place, 1, 1).data];
    }"""
    canvases = page.locator(".stage canvas")
    cells = [peak_cell(1, 0, 3), peak_cell(1, 0, 7)]
    own, other = (canvases.nth(k).evaluate(colour_at, [cell, 8]) for k, cell in enumerate(cells))
    # The deeper run has the larger peak: the top of the scale is its, and the first run stays below.
    assert other == [*TOP_COLOUR, 255]
    assert own != other
    lowest = canvases.nth(0).evaluate(colour_at, [(cells[0] + 1) % 64, 8])
    assert lowest == [68, 1, 84, 255]
    ticks = page.locator("#ticks span").all_inner_texts()
    assert ticks[0] == "≤ 0.1×"
    top = planted_map(1, 0, 7)
    assert float(ticks[-1][:-1]) == pytest.approx(top.max() / top.mean(), rel=0.01)
    page.locator("#scale").select_option("shown")
    page.locator("#with").select_option("")
    wait(page, "document.querySelectorAll('.panel').length === 1")
    assert page.locator(".stage canvas").evaluate(colour_at, [cells[0], 8]) == [*TOP_COLOUR, 255]


def test_two_runs_stand_side_by_side_on_the_same_image_at_the_nearest_depth(page, site, runs):
    visit(page, site, run=runs[0], doc=4, step=1, layer=2)
    page.locator("#with").select_option("1")
    wait(page, "document.querySelectorAll('.panel').length === 2")
    sources = page.locator(".stage img").evaluate_all("all => all.map((one) => one.getAttribute('src'))")
    assert len(set(sources)) == 1
    assert readout(page, 0).startswith(largest(peak_cell(4, 1, 2)))
    assert readout(page, 1).startswith(largest(peak_cell(4, 1, 5)))  # 2 of 0..3 is nearest to 5 of 0..7
    assert "strength=2.0" in page.locator(".panel h3").nth(1).inner_text()
    page.locator("#step").press("End")
    assert readout(page, 1) == "This reply has no such token."


def test_a_link_leads_to_a_document_and_follows_what_is_chosen(page, site, runs):
    visit(page, site, run=runs[0], doc=3, step=1, layer=1)
    assert page.locator("#documents").input_value() == "3"
    assert readout(page).startswith(largest(peak_cell(3, 1, 1)))
    page.locator("#documents").select_option("4")
    page.locator("#layer").press("ArrowRight")
    wait(page, "location.hash.includes('doc=4') && location.hash.includes('layer=2')")
    page.reload()
    page.wait_for_selector(".panel")
    assert readout(page).startswith(largest(peak_cell(4, 1, 2)))
    page.evaluate("location.hash = 'run=nowhere&task=nothing&doc=99'")
    wait(page, "document.getElementById('status').textContent.startsWith('The link names')")
    assert page.locator("#status").inner_text() == (
        "The link names run “nowhere”, task “nothing”, document “99”, which this report does not have."
    )


def test_everything_can_be_reached_and_moved_from_the_keyboard(page, site, runs):
    visit(page, site, run=runs[0], doc=1, step=0, layer=0)
    page.locator("body").press("Tab")
    seen = []
    for _ in range(60):
        page.keyboard.press("Tab")
        focus = page.evaluate(
            "(() => { const one = document.activeElement; return [one.id || one.className, getComputedStyle(one).outlineStyle]; })()"
        )
        seen.append(focus[0])
        assert focus[1] != "none", focus
        if focus[0] == "stage":
            break
    for name in (
        "task",
        "run",
        "with",
        "count",
        "outcome",
        "order",
        "documents",
        "step",
        "layer",
        "strength",
        "dots",
        "stage",
    ):
        assert name in seen
    page.keyboard.press("ArrowRight")
    assert readout(page).startswith("row 5, column 6: ")  # from the middle
    page.locator("#documents").press("ArrowDown")
    wait(page, "document.querySelector('.readout').textContent.startsWith('Largest')")
    assert readout(page).startswith(largest(peak_cell(3, 0, 0)))


def test_views_of_an_image_are_drawn_where_they_lie(page, site, runs):
    visit(page, site, run=runs[1], doc=3, step=0, layer=7)
    assert page.locator("#view").input_value() == "1"  # the whole image comes first
    assert readout(page).startswith(largest(15, columns=4))
    page.locator("#view").select_option("0")
    empty = page.locator(".stage canvas").evaluate("(one) => one.getContext('2d').getImageData(400, 100, 1, 1).data[3]")
    filled = page.locator(".stage canvas").evaluate(
        "(one) => one.getContext('2d').getImageData(100, 100, 1, 1).data[3]"
    )
    assert (empty, filled) == (0, 153)


def test_nothing_is_wider_than_a_narrow_window(page, site, runs):
    page.set_viewport_size({"width": 390, "height": 800})
    visit(page, site, run=runs[0], **{"with": runs[1]}, doc=1)
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_what_is_missing_is_said_with_its_reason(page, site, runs):
    visit(page, site, run=runs[0], doc=5)
    assert page.locator(".missing").all_inner_texts() == ["No maps: its maps are not there."]
    visit(page, site, run=runs[2], doc=1)
    assert page.locator(".missing").all_inner_texts() == ["No maps: the run was made without the probe."]
    assert page.locator("circle.dot").count() == draw_sample(SETS[TASK], 1).count
    visit(page, site, run=runs[1], task=FOREIGN, doc=1)
    assert page.locator(".missing").all_inner_texts() == [
        "No image: lmms-eval keeps no images, and this task is on no set of halo-dataset.",
        "No maps: its maps are not there.",
    ]
    visit(page, site, run=runs[1], task=FOREIGN, doc=0)
    assert readout(page).startswith(largest(peak_cell(0, 0, 7)))  # a map without an image


def test_a_file_that_was_lost_is_named(browser, site, runs, tmp_path):
    shutil.copytree(site, tmp_path / "site", ignore=shutil.ignore_patterns("3.js"))
    page = browser.new_page()
    visit(page, tmp_path / "site", run=runs[0], doc=3)
    message = "data/0-0/3.js cannot be loaded: keep the folder of the report together."
    assert page.locator(".missing").all_inner_texts() == [message]
    page.locator("#documents").select_option("1")
    wait(page, "document.querySelector('.readout') !== null")
    page.close()


def test_warnings_come_first_and_count_what_was_left_out(page, site, runs):
    page.goto((site / "index.html").as_uri())
    assert page.locator("main > section").first.get_attribute("id") == "warnings"
    warnings = page.locator("#warnings li").all_inner_texts()
    a, b, c = runs
    assert warnings[0].startswith(
        "These runs are not comparable; what stands side by side below is of different things."
    )
    assert f"{TASK}: the task version differs: 1 in {a}, 2 in {c}." in warnings[0]
    assert f"{a / 'halo'}: 1 half-written parts were passed over." in warnings
    assert f"{a}: 1 of 6 documents of {TASK} have no maps." in warnings
    assert f"{b}: 1 of 2 documents of {FOREIGN} have no maps." in warnings
    assert f"{c}: made without the probe, so there are scores and no attention." in warnings
    assert f"No counting tasks, so without scores, verdicts and figures (1): {FOREIGN}." in warnings
    assert page.locator("#figures h3").all_inner_texts() == [f"{a}, {b}", str(c)]
    drawn = page.locator("#figures img")
    assert drawn.count() >= 4
    for place in range(drawn.count()):
        figure = drawn.nth(place)
        figure.scroll_into_view_if_needed()
        figure.evaluate("(image) => image.decode()")
        assert figure.get_attribute("alt")
    assert page.locator("#leaderboard table").count() >= 2
    assert page.locator("#leaderboard > details").count() == 0  # one counting task
    assert page.locator(".verdict").count() >= 5


def test_nothing_that_runs_say_is_ever_run(page, site, runs):
    visit(page, site, run=runs[1], **{"with": runs[0]}, doc=1)
    assert page.locator(".answer dd").nth(1).evaluate("(one) => one.textContent") == EVIL_REPLY
    assert page.locator(".tokens button").nth(1).get_attribute("aria-label") == f"Token 2: {EVIL_REPLY}, digit 2, end"
    assert f"b{EVIL}" in page.locator(".panel h3").first.inner_text()
    visit(page, site, run=runs[1], task=FOREIGN, doc=0)
    assert page.locator("#task").input_value() == FOREIGN
    page.locator("details").evaluate_all("all => all.forEach((one) => { one.open = true; })")
    assert page.evaluate("window.pwned") is None
    assert page.locator("img[src=x], [onerror]").count() == 0
    names = [str(path.relative_to(site)) for path in site.rglob("*")]
    assert all(re.fullmatch(r"[\w./-]+", name) for name in names)


def test_the_policy_of_the_page_stops_scripts_that_got_in(browser, site):
    page = browser.new_page()
    refused = []
    page.on("console", lambda message: refused.append(message.text))
    page.goto((site / "index.html").as_uri())
    page.wait_for_selector(".panel")
    page.evaluate("""() => {
      const script = document.createElement("script");
      script.textContent = "window.pwned = 1";
      document.body.append(script);
      document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.pwned = 2'>");
    }""")
    page.wait_for_timeout(200)
    assert page.evaluate("window.pwned") is None
    assert sum("Content Security Policy" in text for text in refused) == 2
    page.close()


def test_the_page_is_small_and_loads_documents_on_demand(page, site):
    page.goto((site / "index.html").as_uri())
    page.wait_for_selector(".panel")
    documents = [url for url in page.requests if re.search(r"/data/\d+-\d+/\d+\.js$", url)]
    assert len(documents) == 1
    sizes = [Path(unquote(urlparse(url).path)).stat().st_size for url in page.requests if url not in documents]
    assert sum(sizes) < 3e6


def test_every_control_and_image_has_a_name(page, site, runs):
    visit(page, site, run=runs[0], **{"with": runs[1]}, doc=1)
    nameless = page.evaluate("""() => [...document.querySelectorAll("select, input, button, [tabindex='0'], img, canvas:not([aria-hidden])")]
      .filter((one) => !(one.labels?.length || one.getAttribute("aria-label") || one.textContent.trim() || one.alt))
      .filter((one) => one.tagName !== "CANVAS" || !one.closest("[aria-label]"))
      .map((one) => one.outerHTML)""")
    assert nameless == []
    assert page.locator("html").get_attribute("lang") == "en"
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3, h4')].map((one) => Number(one.tagName[1]))")
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def luminance(colour):
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_legible_in_light_and_in_dark(page, site, runs, scheme):
    page.emulate_media(color_scheme=scheme)
    visit(page, site, run=runs[0], doc=1)
    background = page.locator("body").evaluate("(one) => getComputedStyle(one).backgroundColor")
    assert (luminance(background) > 0.5) == (scheme == "light")
    for where in (
        "body",
        "header p",
        "caption",
        "nav a",
        ".wrong-text",
        "#documents option.wrong",
        ".readout",
        "summary",
    ):
        colour = page.locator(where).first.evaluate("(one) => getComputedStyle(one).color")
        dark, light = sorted((luminance(colour), luminance(background)))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, where


def report(capsys, *arguments):
    """Exit code, output, and what was said on stderr besides progress: of a set, and of matplotlib's first use."""
    code = main(["report", *map(str, arguments)])
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if line and "image/s]" not in line and "font cache" not in line]
    return code, printed.out, lines


@pytest.fixture
def small(tmp_path):
    run = plant_run(tmp_path / "run", {TASK: [counted(0, 1)]}, layers=(3,))
    return plant_maps(run, planted_map, documents=[0], layers=(3,))


def test_bad_usage_is_one_line_and_leaves_nothing(capsys, tmp_path, small):
    out = tmp_path / "out" / "site"
    for arguments, message in {
        (tmp_path / "gone",): "there is no such folder",
        (small, small): "is named twice",
        (small, "--tasks", "halo_ocr"): "no run has this task; choose of halo_count",
        (small, "--layers", "1,2"): "recorded none of these; choose of 3",
        (small, "--documents", "0"): "give at least 1",
    }.items():
        code, printed, error = report(capsys, *arguments, "--out", out)
        assert (code, printed, len(error)) == (2, "", 1)
        assert message in error[0]
        assert not list((tmp_path / "out").glob("*"))


def test_a_damaged_part_is_one_line(capsys, tmp_path, small):
    part = small / "halo" / "part-00001.parquet"
    part.write_bytes((small / "halo" / "part-00000.parquet").read_bytes()[:-40])
    code, printed, error = report(capsys, small, "--out", tmp_path / "site")
    assert (code, printed, len(error)) == (1, "", 1)
    assert error[0].startswith(
        f"halo-probe: {part}: is damaged (its end is not what was written, or only half of it is there)"
    )
    assert not (tmp_path / "site").exists()


def test_only_an_earlier_report_is_ever_replaced(capsys, tmp_path, small):
    out = tmp_path / "site"
    out.mkdir()
    code, printed, _ = report(capsys, small, "--out", out)
    assert (code, printed) == (0, f"{out / 'index.html'}\n")
    code, _, error = report(capsys, small, "--out", out)
    assert code == 2
    assert "replace it with --force" in error[0]
    (out / "stale").write_text("")
    assert report(capsys, small, "--out", out, "--force")[0] == 0
    assert not (out / "stale").exists()
    other = tmp_path / "precious"
    other.mkdir()
    (other / "thesis.tex").write_text("")
    code, _, error = report(capsys, small, "--out", other, "--force")
    assert code == 2
    assert "holds something else than a report" in error[0]
    assert [path.name for path in other.iterdir()] == ["thesis.tex"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["precious", "run", "site"]


def test_a_run_without_counting_tasks_has_a_page_of_documents(capsys, tmp_path):
    run = plant_run(tmp_path / "run", {FOREIGN: [foreign(0)]}, layers=())
    code, _, error = report(capsys, run, "--out", tmp_path / "site")
    assert (code, error) == (0, [])
    text = (tmp_path / "site" / "index.html").read_text()
    assert "No run has a counting task" in text
    assert (tmp_path / "site" / "data" / "0-0" / "0.js").exists()


def test_a_byte_keeps_a_weight_within_three_percent():
    rng = np.random.default_rng(0)
    weights = rng.lognormal(0, 2, (50, 1024)).astype(np.float32)
    weights[0, 0] = 9 * weights[0].sum()
    codes, peaks = quantize(weights)
    relative = weights / weights.mean(axis=1, keepdims=True)
    decoded = 0.01 * (peaks[:, None] / 0.01) ** ((codes.astype(float) - 1) / 254)
    assert peaks == pytest.approx(relative.max(axis=1), rel=1e-5)
    kept = relative >= 0.01
    assert (codes[~kept] == 0).all()
    assert np.abs(decoded / relative - 1)[kept].max() < 0.03


def test_a_map_without_attention_has_no_peak():
    codes, peaks = quantize([[0.0, 0.0], [np.nan, 1.0], [1.0, 3.0]])
    assert np.isnan(peaks).tolist() == [True, True, False]
    assert codes.tolist()[:2] == [[0, 0], [0, 0]]
