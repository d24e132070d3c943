"""Whole numbers of few bits in words of 32."""

from __future__ import annotations

import torch

WORD = 32


def unpack_words(words: torch.Tensor, bits: int) -> torch.Tensor:
    """Take numbers apart that follow one another from the lowest bit up, across words too.

    Args:
        words: int32, [words, any].

    Returns:
        [words * 32 / bits, any], of 8 bits each.
    """
    count = len(words) * WORD // bits
    begins = torch.arange(count, device=words.device) * bits
    word, at = begins // WORD, begins % WORD
    wide = words.long() & 2**WORD - 1
    following = wide[(word + 1).clamp(max=len(words) - 1)]
    both = wide[word] | following << WORD if bits in (3, 5, 6, 7) else wide[word]
    codes: torch.Tensor = both >> at[:, None] & 2**bits - 1
    return codes.to(torch.uint8)
