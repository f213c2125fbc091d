"""Which tokens of a vocabulary are written as digits."""

from typing import Any


def digit_tokens(tokenizer: Any) -> dict[int, str]:
    """The tokens that are decimal digits and nothing else, each with them as ASCII.

    White space around them is passed over, as in the `▁1` that some vocabularies begin a word with.

    Args:
        tokenizer: A tokenizer of transformers.

    Returns:
        Digits by token id: one for most tokens of most vocabularies; several (`12`) where a vocabulary merges digits.
    """
    found = {}
    for token, index in tokenizer.get_vocab().items():
        if any(char.isdecimal() for char in token):  # decoding them all would take a second
            text = tokenizer.decode([index]).strip()
            if text.isdecimal():
                found[index] = "".join(str(int(char)) for char in text)
    return found
