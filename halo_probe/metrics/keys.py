"""The names of all numbers of maps and documents, in one table: which are measured where, and which are shown where.

A suffix says how a number was made: `_rn` of the renormalised head mean, `_ns` without sinks, `_mid` a mean over the
middle layers, `_z` and `_p` against the null, `_d1` and `_d2` at the first and second digit, `_g16` on 16 x 16 cells.
"""

from halo_probe.metrics.consistency import CONSISTENCY_KEYS
from halo_probe.metrics.null import NULL_KEYS
from halo_probe.metrics.spatial import SPATIAL_KEYS

MEASURES = ("sparsity", "entropy", "visual_mass")
"""What every generated token has; the figures and tables of digits and layers are about these."""

TOKEN_KEYS = (*MEASURES, "sparsity_rn", "entropy_rn", "sparsity_g16")
"""Measured while a run goes on, of every generated token at the headline layer, the last one recorded."""
MIDDLE_KEYS = ("sparsity_mid", "entropy_mid", "visual_mass_mid")
"""The same over the middle layers, where all of them are recorded."""
DOT_KEYS = (
    *("halo_index", "ring_contrast", "ring_contrast_ns", "auroc_dot", "coverage", "dot_mass"),
    *("hull_contrast", "hull_contrast_ns", "hull_dot_contrast", "sink_share", "frame_enrichment"),
)
"""The same where the dots of the documents are known."""
LARGE_DOT_KEYS = ("penetration",)
"""The same where dots may cover several tokens."""

_SPARSITY = ("sparsity", "sparsity_eq2", "sparsity_norm", "entropy", "kl_uniform")
MAP_KEYS = (
    *(key + suffix for suffix in ("", "_rn") for key in (*_SPARSITY, "sparsity_g16")),
    *("head_sparsity", "head_entropy", "visual_sinks", "visual_sink_share"),
    *("hs", "ck", "ck_mass30", "ck_obj", "delta_entropy", "early_lock", "late_diffuse"),
    *SPATIAL_KEYS,
    *(f"{key}_{part}" for key in NULL_KEYS for part in ("z", "p")),
)
"""Computed of every stored map, in the order of the columns of the scores."""

ASSOCIATED_KEYS = (
    *("vision_sparsity", "vision_sparsity_g16", "vision_entropy", "vision_mass"),
    *(f"{measure}_d{digit}" for measure in MEASURES for digit in (1, 2)),
    *("halo_index_d1", "auroc_dot_d1", "coverage_d1", "dot_mass_d1", "hull_contrast_ns_d1", "sink_share_d1"),
    CONSISTENCY_KEYS[0],
)
"""Of a document: what may go with being right."""
HALO_RULE_KEYS = ("ring_contrast_ns", "halo_index_ns", "hull_contrast_ns")
"""The contrasts of the Halo rule (spec §11), after sink removal; their z-scores have `_z` behind them."""
PAGE_KEYS = (
    *("sparsity", "entropy", "halo_index_ns", "hull_contrast_ns", "halo_index_ns_z", "hull_contrast_ns_z"),
    *("auroc_dot", "coverage", "sink_share"),
)
"""Of a map: what the explorer of documents shows beside it."""
