"""Models and maps whose truth is known, and the verdicts on them: what `benchmarks/verdicts.py` counts and tests assert.

A planted model is written as run folders and judged as `halo-probe compare` judges any run. A planted map is scored with
its null as `halo-probe score --null` does.
"""

import json
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise

import numpy as np
from planted_runs import plant_run
from scipy import stats
from scipy.spatial import Delaunay

from dataset_builder.samples import draw_sample
from dataset_builder.sets import SETS
from halo_probe.archive.runs import open_runs
from halo_probe.archive.signature import seal
from halo_probe.compare.comparability import require_comparable
from halo_probe.compare.evidence import judge
from halo_probe.compare.verdicts import CONTRASTS, HaloCell, halo
from halo_probe.errors import UsageError
from halo_probe.metrics.geometry import lay_out
from halo_probe.metrics.null import choose_others
from halo_probe.metrics.pairs import score_pairs
from halo_probe.statistics.intervals import stratified_draws

PAPER = np.repeat(np.arange(10, 17), 30)
WIDE = np.repeat(np.arange(10, 100), 4)
BOOST = {"name": "boost", "strength": 2.0, "steps": "d2", "layers": "all"}
SAMPLED = {"max_new_tokens": 16, "do_sample": True, "temperature": 0.7}
UNIFORM = np.pad(np.full((WIDE.size, 10), 0.1), ((0, 0), (0, 2)))
TAKEOVER, MAGNITUDE = "Language Takeover", "Noisy magnitude estimation"


@dataclass(frozen=True, kw_only=True)
class Model:
    """What a planted model does. Lists of replies are over `WIDE`, NaN where it gives no count."""

    plain: np.ndarray
    reversed: np.ndarray
    boosted: np.ndarray
    units: np.ndarray
    """Distributions of the units digit, (n, 12)."""
    counting: float = 0.0
    """How much the sparsity changes from digit 1 to digit 2 when counting."""
    echoing: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A planted model, how its runs are handed to compare, and what may follow."""

    model: object
    """From a generator to a `Model`."""
    true: tuple[str, ...] = ()
    """The rules that hold of it, each of which has to be found."""
    unclear: tuple[str, ...] = ()
    """The rules that hold of it, though what is handed over does not show it."""
    condition: dict = field(default_factory=lambda: BOOST)
    documents: slice = field(default_factory=lambda: slice(None))
    """Of the wide sets, those that were evaluated."""
    repeats: int = 1
    """How often each document stands in a run."""
    options: dict | None = None
    """Generation options of the boosted run, where they differ."""
    boosted_documents: slice | None = None
    order: tuple[int, ...] = (0, 1)
    force: bool = False
    twins: int = 1
    """How many boosted runs there are."""
    blanks: int = 0
    """Documents without digit probabilities."""


def sample(place, count, predicted, **more):
    silent = predicted is None or np.isnan(predicted)
    return {
        "doc_id": int(place),
        "id": f"set-{place:05d}",
        "count": int(count),
        "predicted": None if silent else int(predicted),
        "accuracy": 0.0 if silent else float(predicted == count),
        "input": "How many?",
        "token_counts": [{"output_tokens": 3}],
        **more,
    }


def reliance(count, distributions):
    """What `reliance=true` leaves in a sample."""
    probabilities = [one.tolist() for one in distributions]
    return {"reliance": "measured", "true_digits": str(count), "digit_probabilities": probabilities}


def probed(place, count, predicted, *, d1, d2, halo=(), **more):
    """A sample of a probed run; its entropy falls as its sparsity grows, its mass stays."""
    halo = {"digit_status": "split", "digit_steps": [0, 1], **dict(halo)}
    values = {"sparsity_d1": d1, "sparsity_d2": d2, "entropy_d1": 1 - d1, "entropy_d2": 1 - d2}
    values |= {"visual_mass_d1": 0.5, "visual_mass_d2": 0.5, "vision_sparsity": (d1 + d2) / 2}
    return sample(place, count, predicted, token_counts=[{"output_tokens": 3, "halo": halo}], **values, **more)


def counted(rng, *, extra_decay):
    d1 = rng.uniform(0.6, 0.8, PAPER.size)
    d2 = d1 + extra_decay + rng.normal(0, 0.02, PAPER.size)
    return [probed(k, n, n, d1=d1[k], d2=d2[k]) for k, n in enumerate(PAPER)]


def written(predicted, units, *, blanks=0, **more):
    """Replies to the wide set; the first `blanks` documents have no digit probabilities."""
    tens = np.pad(np.eye(10)[WIDE // 10], ((0, 0), (0, 2)))
    return [
        probed(k, n, predicted[k], d1=0.7, d2=0.7, halo={} if k < blanks else reliance(n, [tens[k], units[k]]), **more)
        for k, n in enumerate(WIDE)
    ]


def mixed(rng, share, better, worse):
    """Each document from `better` with this chance, else from `worse`."""
    chosen = rng.random(WIDE.size) < share
    return np.where(chosen if better.ndim == 1 else chosen[:, np.newaxis], better, worse)


def made_up(rng):
    """Counts with the true tens and units from a prior that depends on the tens, and the distributions of these."""
    priors = rng.dirichlet(np.ones(10), size=10)
    units = np.array([rng.dirichlet(300 * prior + 1e-3) for prior in priors[WIDE // 10]])
    said = np.array([rng.choice(10, p=prior) for prior in priors[WIDE // 10]])
    return 10 * (WIDE // 10) + said, np.pad(units, ((0, 0), (0, 2)))


def perceived(rng, weber):
    """A visual counter: the count with noise in proportion, and what that says of the units once the tens are given."""
    seen = WIDE * (1 + weber * rng.normal(size=WIDE.size))
    digits = 10 * (WIDE // 10)[:, np.newaxis] + np.arange(10)
    weights = stats.norm.logpdf(digits, seen[:, np.newaxis], weber * WIDE[:, np.newaxis])
    weights = np.exp(weights - weights.max(axis=1, keepdims=True))
    return np.clip(np.rint(seen), 0, 999), np.pad(weights / weights.sum(axis=1, keepdims=True), ((0, 0), (0, 2)))


def silenced(rng, replies, share):
    return np.where(rng.random(replies.size) < share, np.nan, replies)


def take_over(rng, *, looked=0.6, decay=-0.03, reverse=True, boost=True, read=0.0):
    """It reads the tens and makes the units up; asked for them first, or made to look, it reads them."""
    said, units = made_up(rng)
    better = mixed(rng, looked, WIDE, said)
    return Model(
        plain=said,
        reversed=better if reverse else made_up(rng)[0],
        boosted=better if boost else made_up(rng)[0],
        units=mixed(rng, read, np.eye(12)[WIDE % 10], units),
        counting=decay,
    )


def steady(rng, replies, units, **more):
    """The same replies whatever is asked or done."""
    return Model(plain=replies, reversed=replies, boosted=replies, units=units, **more)


def estimate(rng, *, weber, **more):
    replies, units = perceived(rng, weber)
    return steady(rng, replies, units, **more)


def exact(rng, *, silent=0.0):
    return steady(rng, silenced(rng, WIDE.astype(float), silent), np.eye(12)[WIDE % 10])


def blind(rng):
    return steady(rng, rng.integers(10, 100, WIDE.size), made_up(rng)[1], counting=-0.03)


def guessing(rng, shares):
    """The units right on half of the answered documents in all runs; a share of each is unanswered."""
    wrong = 10 * (WIDE // 10) + (WIDE + 1) % 10
    plain, first, boosted = (silenced(rng, mixed(rng, 0.5, WIDE, wrong).astype(float), share) for share in shares)
    return Model(plain=plain, reversed=first, boosted=boosted, units=UNIFORM, counting=-0.03)


def choosy(rng):
    """Boosted, and asked for the units first, it is silent on a fifth: only where its plain reply is wrong."""
    said, units = made_up(rng)
    silent = (said != WIDE) & (rng.random(WIDE.size) < 0.21)
    better = np.where(silent, np.nan, said)
    return Model(plain=said, reversed=better, boosted=better, units=units, counting=-0.03)


def magnitude(rng, *, weber=0.015, slope=1.0, silent=0.0, read=None, shift=0.0, factor=1.0):
    replies, units = perceived(rng, weber)
    replies = WIDE.mean() + slope * (replies - WIDE.mean()) if slope != 1 else factor * replies + shift
    units = units if read is None else mixed(rng, read, np.eye(12)[WIDE % 10], UNIFORM)
    return steady(rng, silenced(rng, np.rint(replies), silent), units)


def tens_alone(rng):
    """It says the tens and always a 0: rounding."""
    return steady(rng, 10 * (WIDE // 10), np.tile(np.eye(12)[0], (WIDE.size, 1)))


def units_alone(rng):
    """The units from the image, the tens made up."""
    return steady(rng, 10 * rng.integers(1, 10, WIDE.size) + WIDE % 10, np.eye(12)[WIDE % 10])


def partly_silent(rng, model, share=0.1):
    """Its plain replies to the wide set are missing in a share of the documents."""
    return replace(model, plain=silenced(rng, model.plain.astype(float), share))


def kind(model, **more):
    return Kind(model=model, **more)


MODELS = {
    "takeover": kind(take_over, true=(TAKEOVER,)),
    "takeover, weak gain": kind(lambda rng: take_over(rng, looked=0.3), true=(TAKEOVER,)),
    "takeover, runs in the other order": kind(take_over, true=(TAKEOVER,), order=(1, 0)),
    "takeover, a tenth unanswered": kind(lambda rng: partly_silent(rng, take_over(rng)), true=(TAKEOVER,)),
    "takeover, one document without probabilities": kind(take_over, true=(TAKEOVER,), blanks=1),
    "takeover, a tenth of the units read": kind(lambda rng: take_over(rng, read=0.1), unclear=(TAKEOVER,)),
    "takeover on 25 documents": kind(take_over, unclear=(TAKEOVER,), documents=slice(0, 360, 15)),
    "takeover on 70 % of the documents": kind(take_over, unclear=(TAKEOVER,), documents=slice(0, 252)),
    "takeover, every document six times": kind(take_over, unclear=(TAKEOVER,), repeats=6),
    "takeover, boosted run sampled, forced": kind(take_over, unclear=(TAKEOVER,), options=SAMPLED, force=True),
    "takeover, half the documents boosted, forced": kind(
        take_over, unclear=(TAKEOVER,), boosted_documents=slice(0, 360, 2), force=True
    ),
    "takeover, boosted in the middle layers": kind(
        take_over, unclear=(TAKEOVER,), condition={**BOOST, "layers": "mid"}
    ),
    "takeover, boosted by 1.2": kind(take_over, unclear=(TAKEOVER,), condition={**BOOST, "strength": 1.2}),
    "takeover, boosted at all steps": kind(take_over, unclear=(TAKEOVER,), condition={**BOOST, "steps": "all"}),
    "takeover, two boosted runs": kind(take_over, unclear=(TAKEOVER,), order=(0, 1, 2), twins=2),
    "made up units, the order does not help": kind(lambda rng: take_over(rng, reverse=False)),
    "made up units, the boost does not help": kind(lambda rng: take_over(rng, boost=False)),
    "made up units, no decay": kind(lambda rng: take_over(rng, decay=0)),
    "made up units, echoing decays alike": kind(
        lambda rng: replace(take_over(rng), echoing=-0.03),
    ),
    "made up units, echoing decays more": kind(lambda rng: replace(take_over(rng, decay=0), echoing=-0.03)),
    "half of the units read": kind(lambda rng: take_over(rng, read=0.5), unclear=(MAGNITUDE,)),
    "blind": kind(blind),
    "only answers more": kind(lambda rng: guessing(rng, (0.4, 0, 0))),
    "only answers a little more": kind(lambda rng: guessing(rng, (0.18, 0, 0))),
    "only answers less": kind(lambda rng: guessing(rng, (0, 0.18, 0.18))),
    "answers only what it knows": kind(choosy),
    "visual counter": kind(lambda rng: estimate(rng, weber=0.015), true=(MAGNITUDE,)),
    "visual counter whose sparsity decays": kind(
        lambda rng: estimate(rng, weber=0.015, counting=-0.03), true=(MAGNITUDE,)
    ),
    "visual counter, a tenth unanswered": kind(lambda rng: magnitude(rng, silent=0.1), true=(MAGNITUDE,)),
    "visual counter, one document without probabilities": kind(
        lambda rng: estimate(rng, weber=0.015), true=(MAGNITUDE,), blanks=1
    ),
    "visual counter, runs in the other order": kind(
        lambda rng: estimate(rng, weber=0.02), true=(MAGNITUDE,), order=(1, 0)
    ),
    "visual counter, every document six times": kind(
        lambda rng: estimate(rng, weber=0.015), unclear=(MAGNITUDE,), repeats=6
    ),
    "visual counter on 25 documents": kind(
        lambda rng: estimate(rng, weber=0.015), unclear=(MAGNITUDE,), documents=slice(0, 360, 15)
    ),
    "visual counter, 30 % unanswered": kind(
        lambda rng: partly_silent(rng, estimate(rng, weber=0.015), 0.3), unclear=(MAGNITUDE,)
    ),
    "perfect counter": kind(exact),
    "perfect counter, a sixth unanswered": kind(lambda rng: exact(rng, silent=0.16)),
    "perfect counter, half unanswered": kind(lambda rng: exact(rng, silent=0.5)),
    "coarse counter": kind(lambda rng: estimate(rng, weber=0.2, counting=-0.03)),
    "counter of half the dots": kind(lambda rng: magnitude(rng, factor=0.5)),
    "counter of a third too many": kind(lambda rng: magnitude(rng, factor=1.33)),
    "counter drawn to the middle": kind(lambda rng: magnitude(rng, slope=0.5)),
    "counter that adds 20": kind(lambda rng: magnitude(rng, shift=20)),
    "counter whose digit says little": kind(lambda rng: magnitude(rng, read=0.2)),
    "rounds to tens": kind(tens_alone),
    "units without tens": kind(units_alone),
}
"""By name; a rule that is neither true nor unclear of a kind is false of it."""

NULL_MODELS = {
    "takeover but for a gain": kind(lambda rng: take_over(rng, boost=False)),
    "takeover but for the decay": kind(lambda rng: take_over(rng, decay=0)),
    "takeover but for T .05": kind(lambda rng: take_over(rng, read=0.05**0.5)),
    "magnitude but for T .10": kind(lambda rng: magnitude(rng, read=0.1**0.5)),
    "magnitude but for errors of .10": kind(lambda rng: magnitude(rng, weber=0.127, read=0.9)),
    "magnitude but for an accuracy of .9": kind(
        lambda rng: steady(rng, WIDE - (rng.random(WIDE.size) < 0.1), np.eye(12)[WIDE % 10])
    ),
}
"""Each lies on the bound of one demand and meets the others: to be supported in 5 % at most."""


remembered_draws = cache(lambda counts: stratified_draws(np.array(counts)))


def conclude(folder, one, rng):
    """The conclusion of each rule on a planted model, `error` where compare refuses it."""
    plant(folder, one, rng)
    try:
        runs = open_runs([folder / str(place) for place in one.order])
        if not one.force:
            require_comparable(runs)
        verdicts = judge(runs, draws_of=lambda counts: remembered_draws(tuple(counts.tolist())))
    except UsageError:
        return dict.fromkeys((TAKEOVER, MAGNITUDE), "error")
    return {verdict.rule: verdict.conclusion for verdict in verdicts}


def plant(folder, one, rng):
    """The runs of a planted model below a folder: `0` the plain one, from `1` on the boosted ones."""
    model = one.model(rng)
    wide, first, boosted = (
        written(replies, model.units, blanks=one.blanks)[places] * one.repeats
        for replies, places in (
            (model.plain, one.documents),
            (model.reversed, one.documents),
            (model.boosted, one.boosted_documents or one.documents),
        )
    )
    plain = {
        "halo_count": counted(rng, extra_decay=model.counting),
        "halo_echo": counted(rng, extra_decay=model.echoing),
        "halo_count_wide": wide,
        "halo_count_rev": first,
    }
    plant_run(folder / "0", plain)
    for twin in range(1, one.twins + 1):
        plant_run(folder / str(twin), {"halo_count_wide": boosted}, intervention=one.condition)
        _amend(folder / str(twin), one)
    _amend(folder / "0", replace(one, options=None))


def _amend(folder, one):
    """All wide documents are those of the task, however many were evaluated; options as they were asked for."""
    file = folder / "org__model" / "1_results.json"
    results = json.loads(file.read_text())
    for task, numbers in results["n-samples"].items():
        numbers["original"] = max(WIDE.size if "wide" in task or "rev" in task else 0, numbers["original"])
    for fields in results["halo"]["signature"]["tasks"].values():
        fields["dataset_sha256"] = "d"
    results["halo"]["signature"] = seal(results["halo"]["signature"])
    if one.options:
        results["configs"]["halo_count_wide"]["generation_kwargs"] = one.options
    file.write_text(json.dumps(results))


LAYOUTS = ("halo_count", "halo_layout_annulus", "halo_layout_center", "halo_layout_grid")


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """The dots of an image on a grid, and what planted maps are made of."""

    layout: object
    centers: np.ndarray
    """(N, 2), pixels."""
    x: np.ndarray
    """Of the middle of each cell, (M,), pixels."""
    y: np.ndarray
    cell: float
    """Side of a cell, pixels."""
    index: int

    @property
    def distances(self):
        """From each cell to each dot, (M, N)."""
        return np.hypot(self.x[:, None] - self.centers[:, 0], self.y[:, None] - self.centers[:, 1])

    @property
    def nearest(self):
        return self.distances.min(axis=1)

    @property
    def hull(self):
        """Share of each cell in the hull's band; 0 next to the dots."""
        return self.layout.band / self.cell**2

    def rolled(self, weights, rows, columns):
        """Weights of the cells, so many cells further."""
        return np.roll(weights.reshape(self.layout.grid), (rows, columns), axis=(0, 1)).ravel()


def bell(distance, sigma):
    return np.exp(-(distance**2) / (2 * sigma**2))


@cache
def scenes(task, side, number):
    y, x = ((np.mgrid[:side, :side] + 0.5) * 1024 / side).reshape(2, -1)
    found = []
    for index in range(number):
        centers = np.array(draw_sample(SETS[task], index).centers)
        layout = lay_out(centers, radius=10, image=(1024, 1024), grid=(side, side))
        found.append(Scene(layout=layout, centers=centers, x=x, y=y, cell=1024 / side, index=index))
    return tuple(found)


def on_dots(scene):
    return 0.1 + 50 * scene.layout.dot_shares


def blurred(sigma):
    return lambda scene: 0.02 + bell(scene.distances, sigma).sum(axis=1)


def edges(scene, pairs):
    """Attention along straight lines between dots."""
    places = np.stack([scene.x, scene.y], axis=1)
    found = np.zeros(scene.x.size)
    for a, b in pairs:
        start, along = scene.centers[a], scene.centers[b] - scene.centers[a]
        share = np.clip((places - start) @ along / (along @ along), 0, 1)
        found = np.maximum(found, bell(np.linalg.norm(places - start - share[:, None] * along, axis=1), 30))
    return 0.1 + found


def tour(scene):
    """From each dot to the nearest one that is left."""
    path, left = [0], set(range(1, len(scene.centers)))
    while left:
        path.append(min(left, key=lambda one: np.hypot(*(scene.centers[one] - scene.centers[path[-1]]))))
        left.remove(path[-1])
    return edges(scene, pairwise(path))


def triangles(scene):
    corners = Delaunay(scene.centers).simplices
    return edges(scene, {tuple(sorted((t[a], t[b]))) for t in corners for a, b in ((0, 1), (1, 2), (0, 2))})


def at_random(cells, number, weight):
    """So many of some cells, others for every image, on a flat background."""

    def draw(scene):
        weights = np.full(scene.x.size, 0.2)
        chosen = np.flatnonzero(cells(scene))
        weights[np.random.default_rng(scene.index).choice(chosen, min(number, chosen.size), replace=False)] = weight
        return weights

    return draw


def from_middle(scene):
    return np.hypot(*(np.stack([scene.x, scene.y]) - scene.centers.mean(axis=0)[:, None]))


def box(scene):
    """The frame around all dots, its sides along the image's."""
    (left, top), (right, bottom) = scene.centers.min(axis=0), scene.centers.max(axis=0)
    inside_x, inside_y = (scene.x >= left) & (scene.x <= right), (scene.y >= top) & (scene.y <= bottom)
    sides = np.where(inside_y, np.minimum(abs(scene.x - left), abs(scene.x - right)), 1e3)
    return 0.2 + bell(
        np.minimum(sides, np.where(inside_x, np.minimum(abs(scene.y - top), abs(scene.y - bottom)), 1e3)), 30
    )


def between(scene):
    """Along the borders of the dots' regions: equally far from two of them."""
    first, second = np.sort(scene.distances, axis=1).T[:2]
    return 0.1 + bell(second - first, 25)


def in_ring(strength):
    return lambda scene: 0.3 + strength * (2 * scene.layout.around + 2 * scene.hull)


TRUE_MAPS = {
    "ring and hull": in_ring(1),
    "ring and hull, weak": in_ring(0.15),
    "ring and hull, strong": in_ring(4),
    "ring and hull with a sink": lambda scene: in_ring(1)(scene) + 60 * (np.arange(scene.x.size) == scene.x.size - 1),
    "ring and hull, dots empty": lambda scene: in_ring(1)(scene) * np.where(scene.layout.on_dots, 0.1, 1),
}
FALSE_MAPS = {
    "away, exp(-1.5 sum)": lambda scene: np.exp(-1.5 * bell(scene.distances, 120).sum(axis=1)),
    "away, exp(-sum)": lambda scene: np.exp(-bell(scene.distances, 120).sum(axis=1)),
    "away, dips": lambda scene: 1 - 0.95 * bell(scene.nearest, 120),
    "away, in proportion": lambda scene: 0.1 + scene.nearest / 300,
    "away, between the dots": between,
    "away, wide rings": lambda scene: 0.05 + bell(scene.nearest - 150, 30),
    "on the dots": on_dots,
    "blurred 32": blurred(32),
    "blurred 64": blurred(64),
    "blurred 128": blurred(128),
    "shifted by a cell": lambda scene: scene.rolled(on_dots(scene), 0, 1),
    "shifted by a cell, slantwise": lambda scene: scene.rolled(on_dots(scene), 1, 1),
    "shifted by two cells": lambda scene: scene.rolled(on_dots(scene), 2, 2),
    "uniform": lambda scene: np.ones(scene.x.size),
    "holes": lambda scene: np.where(scene.layout.on_dots, 0.1, 1.0),
    "registers": at_random(lambda scene: scene.x >= 0, 6, 40),
    "registers away from the dots": at_random(lambda scene: scene.nearest > 120, 5, 30),
    "registers next to dots": at_random(lambda scene: scene.layout.around, 3, 30),
    "one sink": lambda scene: 0.2 + 500.0 * (np.arange(scene.x.size) == 0),
    "frame": lambda scene: 1.0 + 6 * scene.layout.frame,
    "centre": lambda scene: 0.05 + bell(np.hypot(scene.x - 512, scene.y - 512), 250),
    "inside the hull": lambda scene: 0.2 + (scene.layout.interior > 0),
    "outside the hull": lambda scene: 1.2 - (scene.layout.interior > 0),
    "hull alone": lambda scene: 0.2 + 2 * scene.hull,
    "ring alone": lambda scene: 0.3 + 2.0 * scene.layout.around,
    "plateau over dots, ring and hull": lambda scene: np.where(scene.layout.near | (scene.hull > 0), 1, 0.1),
    "rows and columns of dots": lambda scene: (
        0.2
        + bell(scene.x[:, None] - scene.centers[:, 0], 20).sum(axis=1)
        + bell(scene.y[:, None] - scene.centers[:, 1], 20).sum(axis=1)
    ),
    "path from dot to dot": tour,
    "triangles between dots": triangles,
    "box around all dots": box,
    "middle of the dots": lambda scene: 0.05 + bell(from_middle(scene), 200),
    "away from the middle of the dots": lambda scene: 0.02 + from_middle(scene) / 500,
    "outer dots alone": lambda scene: 0.1 + bell(scene.distances[:, scene.layout.hull_dots], 40).sum(axis=1),
    "last dot alone": lambda scene: 0.1 + 20 * bell(scene.distances[:, -1], 30),
    "blurred with holes": lambda scene: blurred(80)(scene) * (1 - 0.9 * bell(scene.nearest, 40)),
    "half of the image": lambda scene: 0.1 + (scene.x < 512),
    "borders of tiles": lambda scene: 0.2 + 3 * (scene.x // scene.cell % 8 == 0) + 3 * (scene.y // scene.cell % 8 == 0),
    "reading order": lambda scene: np.linspace(2, 0.2, scene.x.size),
}
MISTAKEN_MAPS = {
    "ring and frame": lambda scene: 0.3 + 2.0 * scene.layout.around + 3 * scene.layout.frame,
}
"""No halo, for nothing follows the hull; the rule as specified calls them one. See the test of them for the reason."""

MAPS = {**TRUE_MAPS, **FALSE_MAPS, **MISTAKEN_MAPS}


@cache
def nulls(counts):
    """The other images of the null of each."""
    return np.array([choose_others(counts, place) for place in range(len(counts))])


def contrasts_of(maps, layouts):
    """Each map on its own dots, as it is and against those of 200 other images, as `compare_with_null` does."""
    others = nulls(tuple(len(layout.hull_dots) for layout in layouts))
    raw, z = {}, {}
    scores = score_pairs(maps, layouts, keys=[f"{name}_ns" for name in CONTRASTS])
    for name, values in zip(CONTRASTS, scores.values(), strict=True):
        raw[name] = np.diag(values)
        null = np.take_along_axis(values, others, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            spread = null.std(axis=1, ddof=1, where=~np.isnan(null))
            mean = null.mean(axis=1, where=~np.isnan(null))
            z[name] = np.where(spread > 1e-9, (raw[name] - mean) / spread, np.nan)
    return raw, z


def halo_cells(draw, rng, *, side, layouts=LAYOUTS, number=256, noise=0.5, families=("a", "b")):
    """A cell for each family and layout of a model whose maps are `draw` with noise."""
    for family in families:
        for task in layouts:
            own = scenes(task, side, number)
            maps = np.array([draw(scene) for scene in own]) * rng.lognormal(0, noise, (number, side * side))
            raw, z = contrasts_of(maps, [scene.layout for scene in own])
            counts = tuple(len(scene.centers) for scene in own)
            yield HaloCell(family=family, layout=task, raw=raw, z=z, draws=remembered_draws(counts), documents=number)


def conclude_halo(draw, rng, **more):
    return halo("all runs", tuple(halo_cells(draw, rng, **more))).conclusion
