"""The page of families in the documentation: `python -m halo_probe.capture.families_page > docs/families.md`."""

import sys

from halo_probe.capture.families import FAMILIES, GENERAL_TOKENS, Family

_OPENING = """\
# Families of models

`record_attention` and `--model halo` work for every family of image-text-to-text models in transformers whose language
model runs transformers' attention functions. One table in code (`halo_probe/capture/families.py`) knows how the image
tokens of a family are found and which grids they form; this page is made from it:

```
python -m halo_probe.capture.families_page > docs/families.md
```

With `--model halo`, `base=` may be left out: the checkpoint's `config.json` says which model of lmms-eval runs it. A
family that lmms-eval has no model for runs through `base=halo_transformers`, which works with every checkpoint that has
a processor and a chat template, and without the probe as `--model halo_transformers`.

**Views.** A model may be shown an image as several pictures: tiles, crops, a thumbnail. Each is a view with its own
grid and its box in the image (x0, y0, x1, y1 as fractions; 0, 0, 1, 1 is the whole image). Tokens run view after view,
row by row. Start, end, newline and break tokens are no image tokens, nor are class tokens. A family without a grid has
maps without views: sparsity, entropy and mass are defined, spatial metrics are not.

**Padding.** A box is in parts of the image, beyond 0 and 1 where a view shows padding. Llama 4 and Mllama pad an
image with black at the right and at the bottom of their tiles: the probe reads from the pixels how far the image goes.
Where it has black edges of its own, or is normalised in a way that is not known, its tiles are NaN. Fuyu, Inkling 2 and
Kimi K2.5 pad to whole cells, so no place is off by a cell. `pytest tests/halo_probe/capture/test_view_boxes.py` finds a
changed patch again through the real processors.

Some processors crop an image that is not square, or pad it, and do not tell the model (that of LLaVA crops, those of
DeepSeek-VL and Janus pad). Boxes are then fractions of what the model was shown. The images of this project are square,
where that is the same; an overlay on another picture may be shifted.

**Tiles without marks.** Some processors do not tell the model how they laid out the tiles of an image. The probe then
tries every layout that their number allows and takes the one that gives the thumbnail; where none clearly does, as for
an empty picture, the boxes of the tiles are NaN.

**Pan and scan.** Gemma 3's processor may put crops of an image after it, which look to the model like further images.
The probe knows them by where they stand and by comparison with the image before them, and makes them views of that
image; the processor cuts at whole pixels, so an edge may be off by a pixel for each crop before it. Where the pixels do
not tell crops from images, as with empty pictures and stripes, the prompt is refused. A single crop repeats the whole
image (`pan_and_scan_max_num_crops=1`) and counts as one more image.

**Proof.** Each family below is proven by a tiny randomly initialised model of its real classes: every layer, head and
step equals eager attention in float32 to 1e-5 (1e-4 where layers share keys, 2e-5 for Granite 4 Vision: so far apart do
sdpa and eager lie by themselves; beside the eager kernel itself the rows agree to 1e-6). Tokens and logits are
bit-identical with and without the recording. Changing the pixels of one cell changes the features of that cell's token
most (not for families without a grid, nor where pixels become codes, pass a convolutional tower or are keys of
cross-attention):

```
pytest tests/halo_probe/capture/test_families.py -k NAME
```
"""

_CLOSING = """
**Other families** are tried by the general rule: image tokens are those whose id is in the configuration as {tokens};
no grid is guessed, so their maps have no views. An encoder-decoder is refused.
"""


def families_page() -> str:
    """The page, as Markdown."""
    recorded = [family for family in FAMILIES if not family.refusal]
    refused = [family for family in FAMILIES if family.refusal]
    lines = [
        _OPENING,
        f"## The {len(recorded)} families",
        "",
        "| family | layers recorded | image tokens | grid | special |",
        "|---|---|---|---|---|",
        *(_row(family) for family in recorded),
        "",
        "## Not recorded",
        "",
        "| family | why |",
        "|---|---|",
        *(f"| {family.model_type} | {family.refusal} |" for family in refused),
    ]
    tokens = " or ".join(f"`{name}`" for name in GENERAL_TOKENS.split(" or "))
    return "\n".join(lines) + "\n" + _CLOSING.format(tokens=tokens)


def _row(family: Family) -> str:
    types = " and ".join(name.removesuffix("_attention") for name in family.layers)
    layers = f"{types}; not the {family.skipped} layers" if family.skipped else types
    if family.cross:
        tokens = "the keys of the cross-attention layers"
    else:
        tokens = f"marked by `{family.mask}`" if family.mask else f"`{family.token}`"
    cells = [family.model_type, layers, tokens, family.grid.says if family.grid else "none", family.note]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.stdout.write(families_page())
