"""Make what every server answers with: Qwen3 of 8 and 159 million random weights, and questions.

    python benchmarks/serving_inputs.py OUTPUT_FOLDER

Both as a folder and as a GGUF in f32, with the tokenizer of the starter or one made like it. The
rows of the tokens that end an answer are zero, so that no likeliest token ever ends one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from tunesmith.export.gguf.write import write_gguf
from tunesmith.models.chat import load_chat_model
from tunesmith.starter import MODEL

SHAPES: dict[str, dict[str, int]] = {
    "8M": {
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 64,
    },
    "159M": {
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 8,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
}
VOCABULARY = {"8M": 8192, "159M": 32_000}
PROMPT_TOKENS, ROUNDS = 35, 5
CELLS = {1: 3, 8: 8, 32: 32}
"""Questions of a round by how many clients ask at once; none comes twice, or it would be cached."""
LOUD = 5
ENDS = ("<|endoftext|>", "<|im_end|>")


def main(output: Path) -> None:
    """Write models, GGUFs and questions."""
    for name, shape in SHAPES.items():
        folder = output / name
        tokenizer = make_tokenizer(VOCABULARY[name])
        model = make_model(shape, tokenizer)
        model.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))
        write_gguf(load_chat_model(folder, precision="fp32", device="cpu"), gguf_of(folder), "f32")
        (folder / "prompts.json").write_text(json.dumps(make_prompts(VOCABULARY[name])))


def gguf_of(folder: Path) -> Path:
    """Name the GGUF of a model folder."""
    return folder.with_name(f"{folder.name}.gguf")


def make_tokenizer(size: int) -> PreTrainedTokenizerFast:
    """Take the starter's tokenizer, or train a larger one on made-up words."""
    own = AutoTokenizer.from_pretrained(str(MODEL))
    if len(own) == size:
        return own
    random = Random(0)
    parts = ["".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=3)) for _ in range(4000)]
    words = (" ".join("".join(random.choices(parts, k=2)) for _ in range(100)) for _ in range(2000))
    backend = Tokenizer.from_str(own.backend_tokenizer.to_str())
    specials = [str(token) for token in own.added_tokens_decoder.values()]
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=specials,
        initial_alphabet=[text for text in own.get_vocab() if len(text) == 1],
        show_progress=False,
    )
    backend.train_from_iterator(words, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=str(own.eos_token),
        pad_token=str(own.pad_token),
        chat_template=own.chat_template,
    )


def make_model(shape: dict[str, int], tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """Draw the weights of a model."""
    torch.manual_seed(0)
    ends = [tokenizer.convert_tokens_to_ids(text) for text in ENDS]
    config = Qwen3Config(
        **shape,
        vocab_size=len(tokenizer),
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=ends[-1],
        pad_token_id=ends[0],
    )
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():
        for weight in model.model.layers.parameters():
            if weight.ndim > 1:
                weight.mul_(LOUD)  # else it says its last token again and again
        model.model.embed_tokens.weight[ends] = 0
    return model.eval()


def make_prompts(size: int) -> list[list[int]]:
    """Draw questions, none of which begins as another does."""
    random = Random(1)
    count = ROUNDS * sum(CELLS.values())
    return [[random.randrange(300, size) for _ in range(PROMPT_TOKENS)] for _ in range(count)]


def places(streams: int, repeat: int) -> range:
    """Say which questions belong to a cell."""
    before = sum(count for clients, count in CELLS.items() if clients < streams)
    start = repeat * sum(CELLS.values()) + before
    return range(start, start + CELLS[streams])


def fresh(count: int, size: int, seed: int) -> list[list[int]]:
    """Draw questions that nobody asked before."""
    random = Random(1000 + seed)
    return [[random.randrange(300, size) for _ in range(PROMPT_TOKENS)] for _ in range(count)]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
