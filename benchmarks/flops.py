"""Count the work that training cannot do without."""

from __future__ import annotations


def operations(
    sizes: list[tuple[int, int]], shape: dict[str, int], vocabulary: int, tuning: str
) -> float:
    """Count the operations that learning from rows cannot do without, adapters left out.

    Products of layers for every token, the head's where a token is learned, attention's below
    the diagonal; twice forward, twice back to the inputs, and twice to the weights that learn.
    """
    width = shape["num_attention_heads"] * shape["head_dim"]
    shared = shape["num_key_value_heads"] * shape["head_dim"]
    hidden, layers = shape["hidden_size"], shape["num_hidden_layers"]
    layer = hidden * (2 * width + 2 * shared + 3 * shape["intermediate_size"])
    tokens, learned = (sum(column) for column in zip(*sizes, strict=True))
    products = tokens * layers * layer + learned * hidden * vocabulary
    attention = layers * width * sum(size * size for size, _ in sizes)
    return float((4 if tuning == "lora" else 6) * products + 6 * attention)
