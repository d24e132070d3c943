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


def pack_words(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Put numbers into words, so that `unpack_words` takes them apart again.

    Args:
        codes: [numbers, any]; as many numbers as fill words.

    Returns:
        int32, [numbers * bits / 32, any].
    """
    count = len(codes) * bits // WORD
    begins = torch.arange(len(codes), device=codes.device) * bits
    word, at = begins // WORD, begins % WORD
    wide = codes.long() << at[:, None]
    words = torch.zeros(count + 1, *codes.shape[1:], dtype=torch.long, device=codes.device)
    words.index_add_(0, word, wide & 2**WORD - 1)
    words.index_add_(0, word + 1, wide >> WORD)
    signed = torch.where(words >= 2 ** (WORD - 1), words - 2**WORD, words)
    return signed[:count].to(torch.int32)
