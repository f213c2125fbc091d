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

**Padding.** Some processors put the image on a larger canvas. Boxes are fractions of the image, so there they reach
beyond 0..1, and they are right to within a token. The probe finds the padding in the pixels that `generate` was given.
An image may have a border of the same colour; where that could be shown alike, the place is unknown and the box is NaN:

| padding | families | place |
|---|---|---|
| less than a token, at the right and the bottom | fuyu, glm5_next, inkling2, kimi_k25 | known |
| at the right and the bottom | llama4 | known where the tiles look like the stretched picture of the image |
| at the right and the bottom | mllama, llama4 with one tile | known where neither edge is black |
| at both ends of a side | unlimited_ocr | known where the whole looks like its tiles |
| at both ends of a side | deepseek_vl, deepseek_vl_hybrid, janus, unlimited_ocr without tiles | known where one of \
two opposite edges is of another colour, as of most square images |
| at both ends of a side | llava_onevision with several images | known from `image_sizes` |
| of an image under 32 pixels and over four times as long | step3p7 | known where three quarters are not black |
| tokens at an edge pool fewer patches | molmo2 | known from `image_token_pooling` |

**Cropping.** The processors of chameleon, fast_vlm, llava, video_llava and vipllava may cut a square out of the middle
of an image, pad it or stretch it, and give the model nothing but the result. Their boxes are NaN, of square images too
(but not with a Pixtral tower, which is given `image_sizes`).

A map of views whose boxes are NaN has sparsity, entropy and mass; spatial metrics are left out, with the reason. Where
the view is the only one, `sparsity_g16` and the clusters (`ck`) are there too: they need its rows and columns alone.

**Tiles without marks.** Some processors do not tell the model how they laid out the tiles of an image. The probe then
tries every layout that their number allows and takes the one that gives the thumbnail; where none clearly does, as for
an empty picture, the boxes of the tiles are NaN.

**Pan and scan.** Gemma 3's processor may put crops of an image after it, which look to the model like further images.
The probe knows them by where they stand and by comparison with the image before them, and makes them views of that
image; the processor cuts at whole pixels, so an edge may be off by a pixel for each crop before it. Where the pixels do
not tell crops from images, as with empty pictures and stripes, the prompt is refused. A single crop repeats the whole
image (`pan_and_scan_max_num_crops=1`) and counts as one more image.

**Proof.** Each family below is proven by a tiny randomly initialised model of its real classes. Tokens and logits are
bit-identical with and without the recording. Every layer, head and step is what the kernel itself weighed: with eager
attention the largest difference over all families is 1.5e-6, and the test allows 3e-6. Two kernels differ by
themselves. The rows of one model, recorded with `sdpa` and with `eager`, differ by 6e-7 in the median family and by
at most 7e-6, but for granite4_vision (1.1e-5) and gemma4 (4.1e-5). So the rows of `sdpa` equal eager attention to
1e-5, 2e-5 and 1e-4.

Boxes are proven through the image processor and the prompt of the family's own classes, on images of 40 × 60 to 1120
× 1120 pixels, one and two in a prompt. A small patch of the image is changed, and the token that moves most is at
most one from the token that the box gives. Where pixels become codes or pass a convolutional tower, the token's
pixels are looked at. In families that pad, images with a border of the padding's colour are where their boxes say, or
their boxes are NaN.

```
pytest tests/halo_probe/capture/test_families.py tests/halo_probe/capture/test_view_boxes.py -k NAME
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
