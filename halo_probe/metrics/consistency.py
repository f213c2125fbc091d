"""How far the answers to a document that was asked several times agree, as lmms-eval's `--repeats` asks it.

Source: the measurement specification, section 7.
"""

from collections.abc import Sequence

from lmms_eval_tasks.parsing import Mode, parse_count

CONSISTENCY_KEYS = ("self_consistency", "pairwise_agreement")
"""The keys of `consistency`."""


def consistency(replies: Sequence[str], *, mode: Mode) -> dict[str, float]:
    """Compare the counts of several replies to one document, by `CONSISTENCY_KEYS`; nothing where there is but one.

    Args:
        replies: As the model wrote them.
        mode: How they are parsed.

    >>> consistency(["12", "twelve", "12 or 13"], mode="first")
    {'self_consistency': 0.6666666666666666, 'pairwise_agreement': 0.3333333333333333}
    """
    if len(replies) < 2:  # noqa: PLR2004 - one reply agrees with itself
        return {}
    # It brings scipy's statistics along, a second of import that processes which score maps do without.
    from halo_probe.metrics.reliability import pairwise_agreement, self_consistency

    counts = [parse_count(reply, mode=mode).value for reply in replies]
    return {"self_consistency": self_consistency(counts), "pairwise_agreement": pairwise_agreement(counts)}
