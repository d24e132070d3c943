"""Two answers to one question in one row of tokens, the question once."""

from __future__ import annotations

from tunesmith.data.tokens import TokenRow


def join_answers(chosen: TokenRow, rejected: TokenRow) -> TokenRow | None:
    """Lay what two rows share, then the rest of the one and the rest of the other, end to end.

    Shared is what both begin with, up to the first token that either learns.

    Args:
        chosen: question and preferred answer, of which some token is learned.
        rejected: question and other answer, likewise.

    Returns:
        None if both are the same, up to the last token that is learned.
    """
    ends = chosen.learned[-1][1], rejected.learned[-1][1]  # what follows is not learned
    if chosen.ids[: ends[0]] == rejected.ids[: ends[1]]:
        return None
    shared = min(chosen.learned[0][0], rejected.learned[0][0])
    pairs = zip(chosen.ids[:shared], rejected.ids[:shared], strict=True)
    shared = next((at for at, (one, other) in enumerate(pairs) if one != other), shared)
    shift = ends[0] - shared
    return TokenRow(
        chosen.ids[: ends[0]] + rejected.ids[shared : ends[1]],
        [*chosen.learned, *((start + shift, end + shift) for start, end in rejected.learned)],
        answers=(shared, ends[0]),
        was_cut=chosen.was_cut or rejected.was_cut,
    )
