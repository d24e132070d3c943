"""Join rows into batches: laid end to end where the model can, else padded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from tunesmith.data.token_rows import UNLEARNED
from tunesmith.methods.method import Batch, Joining, Row

if TYPE_CHECKING:
    import torch

    from tunesmith.models.row_attention import Segment

PAD_TO = 8
COMPARED = frozenset({"good", "reward", "answer"})
"""What rows have whose one answer is compared with those of others."""


def join(rows: Sequence[Row], how: Joining) -> Batch:
    """Join rows into one batch.

    Returns:
        input_ids; predict_at, the tokens of the flattened batch after which one is learned, and
        targets, the ones learned, [learned] each; weights, how much each counts, [learned], where
        some count other than 1; of rows whose answers are compared owner,
        whose answer they are, counted through all rows, [learned], and num_answers; what tells
        the model its rows; and shown, the tensors of what they show, if they show something.
    """
    shown = gather_shown(rows, flat=how.flat, shared=how.shared)
    if not how.flat:
        return pad(rows) | shown
    if not how.shared:
        rows = [text for row in rows for text in split_answers(row)]
    if how.coarse:
        rows = [*rows, *_filling([len(row["input_ids"]) for row in rows])]
    return lay_end_to_end(rows) | shown


def joining_of(model: torch.nn.Module) -> Joining:
    """Find out how rows become a batch for a model."""
    from tunesmith.models.layout import find_layout

    layout = find_layout(model)
    return Joining(flat=layout.is_flat, shared=layout.shared)


def gather_shown(rows: Sequence[Row], *, flat: bool, shared: bool = True) -> Batch:
    """Decode what rows show.

    Returns:
        shown, the tensors that a model takes beside the tokens; nothing if they show nothing.
    """
    senses = next((row["shown"].senses for row in rows if "shown" in row), None)
    if senses is None:
        return {}
    opened = [row["shown"].open() if "shown" in row else [] for row in rows]
    texts = [
        shown
        for row, shown in zip(rows, opened, strict=True)
        for _ in range(2 if "answers" in row and not (flat and shared) else 1)
    ]
    together = [[each for shown in texts for each in shown]] if flat else texts
    return {"shown": senses.numbers(together)}


def _filling(lengths: Sequence[int]) -> list[Row]:
    """Make rows that nobody learns from, no longer than others, up to a coarse size."""
    tokens, longest = sum(lengths), max(lengths)
    step = max(PAD_TO, 1 << max(tokens.bit_length() - 5, 0))
    whole, rest = divmod(-tokens % step, longest)
    sizes = [longest] * whole + [rest] * (rest > 0)
    return [{"input_ids": [0] * size, "labels": [UNLEARNED] * size} for size in sizes]


def lay_end_to_end(rows: Sequence[Row]) -> Batch:
    """Join rows into one sequence; a question that has two answers comes once.

    Returns:
        input_ids and position_ids, which begin anew at each row, each [1, seq]; segments, a list;
        and what is learned (see `join`). The first token of a row is never learned.
    """
    import torch

    starts = list(accumulate((len(row["input_ids"]) for row in rows), initial=0))
    laid = [_lay(row, start) for row, start in zip(rows, starts, strict=False)]
    labels = torch.tensor([label for row in rows for label in row["labels"]])
    before = torch.cat([each[1] for each in laid])
    learned = (labels != UNLEARNED) & (before >= 0)
    segments = [segment for each in laid for segment in each[2]]
    batch: Batch = {
        "input_ids": torch.tensor([[token for row in rows for token in row["input_ids"]]]),
        "position_ids": torch.cat([each[0] for each in laid])[None],
        "segments": segments,
        "predict_at": before[learned],
        "targets": labels[learned],
    } | weigh(rows)
    if count_answers(rows[0]):
        sizes = torch.tensor([end - start for start, end, *_ in segments])
        batch["owner"] = torch.arange(len(sizes)).repeat_interleave(sizes)[learned]
        batch["num_answers"] = sum(map(count_answers, rows))
    return batch


def _lay(row: Row, start: int) -> tuple[torch.Tensor, torch.Tensor, list[Segment]]:
    """Number the tokens of a row that begins at `start`.

    Returns:
        the position of each token in its text; the token before each, -1 for none; and the
        stretches that the row is made of: one, or question and first answer, and second answer.
    """
    import torch

    size = len(row["input_ids"])
    positions, before = torch.arange(size), torch.arange(start - 1, start + size - 1)
    before[0] = -1
    if "answers" not in row:
        return positions, before, [(start, start + size, start, start)]
    first, second = row["answers"]
    positions[second:] -= second - first
    before[second] = start + first - 1 if first else -1
    question = start, start + first
    return (
        positions,
        before,
        [(start, start + second, start, start), (start + second, start + size, *question)],
    )


def pad(rows: Sequence[Row]) -> Batch:
    """Join rows into one batch, padded on the right to the longest.

    Returns:
        input_ids and attention_mask, each [batch, seq], and what is learned (see `join`); a row
        with two answers makes two rows of the batch.
    """
    import torch

    texts = [text for row in rows for text in split_answers(row)]
    longest = max(len(text["input_ids"]) for text in texts)
    seq = -(-longest // PAD_TO) * PAD_TO
    ids = torch.zeros(len(texts), seq, dtype=torch.long)
    mask = torch.zeros(len(texts), seq, dtype=torch.long)
    labels = torch.full((len(texts), seq), UNLEARNED, dtype=torch.long)
    for place, text in enumerate(texts):
        length = len(text["input_ids"])
        ids[place, :length] = torch.tensor(text["input_ids"])
        mask[place, :length] = 1
        labels[place, 1:length] = torch.tensor(text["labels"][1:])
    owner, at = (labels != UNLEARNED).nonzero(as_tuple=True)
    batch: Batch = {
        "input_ids": ids,
        "attention_mask": mask,
        "predict_at": owner * seq + at - 1,
        "targets": labels[owner, at],
    } | weigh(rows)
    if count_answers(rows[0]):
        batch |= {"owner": owner, "num_answers": len(texts)}
    return batch


def weigh(rows: Sequence[Row]) -> Batch:
    """Return how much each learned token counts, if rows say so; a row's first is never learned."""
    import torch

    if not any("weights" in row for row in rows):
        return {}
    found: list[float] = []
    for row in rows:
        learned = sum(label != UNLEARNED for label in row["labels"])
        first = int(row["labels"][0] != UNLEARNED)
        found += row.get("weights", [1.0] * learned)[first:]
    return {"weights": torch.tensor(found)}


def count_learned(batch: Batch) -> float:
    """Count the learned tokens of a batch, each by its weight."""
    return float(batch["weights"].sum()) if "weights" in batch else len(batch["targets"])


def count_answers(row: Row) -> int:
    """Count the answers of a row that are compared with others."""
    return 2 if "answers" in row else int(not COMPARED.isdisjoint(row))


def split_answers(row: Row) -> Iterator[Row]:
    """Yield the texts of a row: itself, or its question with each of two answers."""
    if "answers" not in row:
        yield row
        return
    first, second = row["answers"]
    parts = {name: row[name] for name in ("input_ids", "labels")}
    yield {name: values[:second] for name, values in parts.items()} | {"answer": 0}
    yield {name: values[:first] + values[second:] for name, values in parts.items()} | {"answer": 1}


def count_tokens(row: Row, how: Joining) -> int:
    """Count the tokens that a row takes in a batch, padding between its answers included.

    A row with another one's answer beside its own takes as many as the longer of the two, since
    they are computed one after the other.
    """
    if "mismatched" in row:
        return max(len(row["input_ids"]), len(row["mismatched"]["input_ids"]))
    if "answers" not in row or (how.flat and how.shared):
        return len(row["input_ids"])
    lengths = [len(text["input_ids"]) for text in split_answers(row)]
    return sum(lengths) if how.flat else 2 * max(lengths)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move the tensors of a batch."""
    import torch

    moved = {
        name: each.to(device) for name, each in batch.items() if isinstance(each, torch.Tensor)
    }
    inner = {
        name: to_device(each, device) for name, each in batch.items() if isinstance(each, dict)
    }
    return {**batch, **moved, **inner}


def split_update(lengths: Sequence[int], *, tokens: int, flat: bool) -> list[slice]:
    """Split the rows of an update into as few batches as can be, as even as can be.

    Args:
        lengths: tokens of each row, [rows]; for padded batches the longest first.
        tokens: most tokens of a batch, padding included; a longer row is a batch of its own.
    """
    parts = _fill(lengths, tokens, flat=flat)
    low, high = -(-sum(lengths) // len(parts)), tokens
    while low < high:  # the least that does not take more batches
        middle = (low + high) // 2
        evener = _fill(lengths, middle, flat=flat)
        if len(evener) > len(parts):
            low = middle + 1
        else:
            parts, high = evener, middle
    return parts


def _fill(lengths: Sequence[int], tokens: int, *, flat: bool) -> list[slice]:
    """Fill one batch after the other, a row each at least."""
    parts: list[slice] = []
    start = held = widest = 0
    for row, length in enumerate(lengths):
        widest = max(widest, length)
        now = held + length if flat else widest * (row + 1 - start)
        if row > start and now > tokens:
            parts.append(slice(start, row))
            start, now, widest = row, length, length
        held = now
    return [*parts, slice(start, len(lengths))]
