"""Tiny models that see and hear, with the real processors of their families, made on the spot."""

from __future__ import annotations

import base64
import io
import json
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import AddedToken, Tokenizer
from transformers import AutoConfig, AutoModelForMultimodalLM

from tests import tiny
from tunesmith.inference.generate import answer, encode_prompt
from tunesmith.inference.sampling import Sampling
from tunesmith.models.chat import ChatModel
from tunesmith.templates import PLACES

SIDE, PATCH = 16, 4
QWEN = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
QWEN_VISION = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2,
               "out_hidden_size": 32, "patch_size": PATCH, "spatial_merge_size": 2,
               "temporal_patch_size": 2}  # fmt: skip
QWEN_ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
QWEN_TOKENS = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>",
               "vision_start_token_id": "<|vision_start|>",
               "vision_end_token_id": "<|vision_end|>"}  # fmt: skip
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
         "num_attention_heads": 2, "image_size": SIDE, "patch_size": PATCH}  # fmt: skip
CLIP = {"model_type": "clip_vision_model", **TOWER, "projection_dim": 32}
QWEN_PICTURES = {"patch_size": PATCH, "merge_size": 2,
                 "size": {"shortest_edge": 64, "longest_edge": SIDE * SIDE},
                 "image_processor_type": "Qwen2VLImageProcessor"}  # fmt: skip
SQUARE = {"height": SIDE, "width": SIDE}
PARTED = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]
FAMILIES: dict[str, dict[str, Any]] = {
    "LLaVA": {
        "config": {"model_type": "llava", "vision_config": CLIP,
                   "vision_feature_select_strategy": "default", "vision_feature_layer": -1},
        "text": {"model_type": "llama"},
        "specials": ["<image>"],
        "tokens": {"image_token_index": "<image>", "image_token_id": "<image>"},
        "picture": {"image_processor_type": "CLIPImageProcessor",
                    "size": {"shortest_edge": SIDE}, "crop_size": SQUARE},
        "processor": {"processor_class": "LlavaProcessor", "patch_size": PATCH,
                      "vision_feature_select_strategy": "default",
                      "num_additional_image_tokens": 1, "image_token": "<image>"},
        "written": "<image>",
    },
    "LLaVA NeXT": {
        "config": {"model_type": "llava_next", "vision_config": CLIP,
                   "vision_feature_select_strategy": "default", "vision_feature_layer": -1,
                   "image_grid_pinpoints": PARTED},
        "text": {"model_type": "llama"},
        "specials": ["<image>"],
        "tokens": {"image_token_index": "<image>", "image_token_id": "<image>"},
        "picture": {"image_processor_type": "LlavaNextImageProcessor",
                    "size": {"shortest_edge": SIDE}, "crop_size": SQUARE,
                    "image_grid_pinpoints": PARTED},
        "processor": {"processor_class": "LlavaNextProcessor", "patch_size": PATCH,
                      "vision_feature_select_strategy": "default",
                      "num_additional_image_tokens": 1, "image_token": "<image>"},
        "written": "<image>",
    },
    "GLM 4V": {
        "config": {"model_type": "glm4v", "vision_config": {
            **QWEN_VISION, "image_size": SIDE, "in_channels": 3}},
        "text": {"model_type": "glm4v_text",
                 "rope_parameters": {**QWEN_ROPE, "partial_rotary_factor": 1.0}},
        "specials": ["<|begin_of_image|>", "<|end_of_image|>", "<|image|>", "<|video|>",
                     "<|begin_of_video|>", "<|end_of_video|>"],
        "tokens": {"image_token_id": "<|image|>", "video_token_id": "<|video|>",
                   "image_start_token_id": "<|begin_of_image|>",
                   "image_end_token_id": "<|end_of_image|>",
                   "video_start_token_id": "<|begin_of_video|>",
                   "video_end_token_id": "<|end_of_video|>"},
        "picture": {**QWEN_PICTURES, "image_processor_type": "Glm4vImageProcessor"},
        "processor": {"processor_class": "Glm4vProcessor"},
        "written": "<|begin_of_image|><|image|><|end_of_image|>",
    },
    "Qwen 2 VL": {
        "config": {"model_type": "qwen2_vl", "vision_config": {
            "depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "patch_size": PATCH,
            "spatial_merge_size": 2, "temporal_patch_size": 2, "mlp_ratio": 2}},
        "text": {"model_type": "qwen2_vl_text", "rope_parameters": QWEN_ROPE},
        "specials": QWEN, "tokens": QWEN_TOKENS, "picture": QWEN_PICTURES,
        "processor": {"processor_class": "Qwen2VLProcessor"},
        "written": "<|vision_start|><|image_pad|><|vision_end|>",
    },
    "Qwen 2.5 VL": {
        "config": {"model_type": "qwen2_5_vl", "vision_config": {
            **QWEN_VISION, "window_size": 16, "fullatt_block_indexes": [1]}},
        "text": {"model_type": "qwen2_5_vl_text", "rope_parameters": QWEN_ROPE},
        "specials": QWEN, "tokens": QWEN_TOKENS, "picture": QWEN_PICTURES,
        "processor": {"processor_class": "Qwen2_5_VLProcessor"},
        "written": "<|vision_start|><|image_pad|><|vision_end|>",
    },
    "Qwen 3 VL": {
        "config": {"model_type": "qwen3_vl", "vision_config": {
            **QWEN_VISION, "deepstack_visual_indexes": [0], "num_position_embeddings": 16}},
        "text": {"model_type": "qwen3_vl_text", "rope_parameters": QWEN_ROPE, "head_dim": 8},
        "specials": QWEN, "tokens": QWEN_TOKENS, "picture": QWEN_PICTURES,
        "processor": {"processor_class": "Qwen3VLProcessor"},
        "written": "<|vision_start|><|image_pad|><|vision_end|>",
    },
    "SmolVLM": {
        "config": {"model_type": "smolvlm", "vision_config": {
            "model_type": "smolvlm_vision", **TOWER}, "scale_factor": 2},
        "text": {"model_type": "llama"},
        "specials": ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>",
                     *(f"<row_{r}_col_{c}>" for r in range(1, 4) for c in range(1, 4))],
        "named": {"image_token": "<image>", "fake_image_token": "<fake_token_around_image>",
                  "global_image_token": "<global-img>"},
        "tokens": {"image_token_id": "<image>"},
        "picture": {"image_processor_type": "SmolVLMImageProcessor",
                    "size": {"longest_edge": SIDE}, "max_image_size": {"longest_edge": SIDE},
                    "do_image_splitting": False},
        "processor": {"processor_class": "SmolVLMProcessor", "image_seq_len": 4},
        "written": "<image>",
    },
    "Idefics 3": {
        "config": {"model_type": "idefics3", "vision_config": {
            "model_type": "idefics3_vision", **TOWER}, "scale_factor": 2},
        "text": {"model_type": "llama"},
        "specials": ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>",
                     *(f"<row_{r}_col_{c}>" for r in range(1, 4) for c in range(1, 4))],
        "named": {"image_token": "<image>", "fake_image_token": "<fake_token_around_image>",
                  "global_image_token": "<global-img>"},
        "tokens": {"image_token_id": "<image>"},
        "picture": {"image_processor_type": "Idefics3ImageProcessor",
                    "size": {"longest_edge": SIDE}, "max_image_size": {"longest_edge": SIDE},
                    "do_image_splitting": False},
        "processor": {"processor_class": "Idefics3Processor", "image_seq_len": 4},
        "written": "<image>",
    },
    "Gemma 3": {
        "config": {"model_type": "gemma3", "vision_config": {
            "model_type": "siglip_vision_model", **TOWER}, "mm_tokens_per_image": 4},
        "text": {"model_type": "gemma3_text", "head_dim": 16, "sliding_window": 6,
                 "layer_types": ["sliding_attention", "full_attention"]},
        "specials": ["<start_of_image>", "<end_of_image>", "<image_soft_token>"],
        "named": {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>",
                  "image_token": "<image_soft_token>"},
        "tokens": {"image_token_id": "<image_soft_token>",
                   "image_token_index": "<image_soft_token>",
                   "boi_token_index": "<start_of_image>", "eoi_token_index": "<end_of_image>"},
        "picture": {"image_processor_type": "Gemma3ImageProcessor", "size": SQUARE},
        "processor": {"processor_class": "Gemma3Processor", "image_seq_length": 4},
        "written": "<start_of_image>",
    },
    "Mistral 3": {
        "config": {"model_type": "mistral3", "vision_config": {
            "model_type": "pixtral", **TOWER, "head_dim": 16}, "spatial_merge_size": 2},
        "text": {"model_type": "mistral"},
        "specials": ["[IMG]", "[IMG_BREAK]", "[IMG_END]"],
        "tokens": {"image_token_index": "[IMG]", "image_token_id": "[IMG]"},
        "picture": {"image_processor_type": "PixtralImageProcessor",
                    "size": {"longest_edge": SIDE}, "patch_size": PATCH},
        "processor": {"processor_class": "PixtralProcessor", "patch_size": PATCH,
                      "spatial_merge_size": 2},
        "written": "[IMG]",
    },
    "InternVL": {
        "config": {"model_type": "internvl", "vision_config": {
            "model_type": "internvl_vision", **TOWER, "image_size": [SIDE, SIDE],
            "patch_size": [PATCH, PATCH]}, "downsample_ratio": 0.5},
        "text": {"model_type": "qwen2"},
        "specials": ["<img>", "</img>", "<IMG_CONTEXT>", "<video>"],
        "named": {"start_image_token": "<img>", "end_image_token": "</img>",
                  "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>"},
        "tokens": {"image_token_id": "<IMG_CONTEXT>"},
        "picture": {"image_processor_type": "GotOcr2ImageProcessor", "size": SQUARE},
        "processor": {"processor_class": "InternVLProcessor", "image_seq_length": 4},
        "written": "<IMG_CONTEXT>",
    },
}  # fmt: skip
"""How each is written: its config, what its text model is, its tokens, its processor's options."""
HEARS: dict[str, Any] = {
    "config": {"model_type": "qwen2_audio", "audio_config": {
        "model_type": "qwen2_audio_encoder", "d_model": 32, "encoder_layers": 2,
        "encoder_attention_heads": 2, "encoder_ffn_dim": 64, "num_mel_bins": 16,
        "max_source_positions": 50}},
    "text": {"model_type": "qwen2"},
    "specials": ["<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"],
    "tokens": {"audio_token_index": "<|AUDIO|>", "audio_token_id": "<|AUDIO|>"},
    "picture": {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 16,
                "chunk_length": 1, "hop_length": 160, "n_fft": 400, "sampling_rate": 16000,
                "padding_value": 0.0},
    "processor": {"processor_class": "Qwen2AudioProcessor"},
    "written": "<|audio_bos|><|AUDIO|><|audio_eos|>",
}  # fmt: skip
"""Qwen 2 Audio."""
MIXED: dict[str, Any] = {
    **FAMILIES["Qwen 3 VL"],
    "config": {"model_type": "qwen3_5", "vision_config": {
        **QWEN_VISION, "num_position_embeddings": 16}},
    "text": {"model_type": "qwen3_5_text", "head_dim": 8,
             "rope_parameters": {**QWEN_ROPE, "partial_rotary_factor": 1.0},
             "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8,
             "linear_value_head_dim": 8, "layer_types": ["linear_attention", "full_attention"]},
}  # fmt: skip
"""Qwen 3.5, whose layers are of two kinds."""

REFUSED = {"SmolVLM": "num2words", "Mistral 3": "Torchvision"}
"""Families whose processor needs a package that is not installed."""

TEMPLATE = """{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content -%}
{% if part.type == 'text' %}{{ part.text }}{% elif part.type == 'video' %}MOVING{% else %}WRITTEN
{%- endif -%}
{% endfor %}{% endif %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


NOTHING: Mapping[str, Any] = {}
COLOURS = {"red": (230, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 230)}


def make_seeing_model(
    folder: Path,
    family: str = "LLaVA",
    *,
    seed: int = 0,
    vision: Mapping[str, Any] = NOTHING,
    picture: Mapping[str, Any] = NOTHING,
    **text: Any,
) -> Path:
    """Write a model folder with random weights, a tokenizer and the processor's options.

    Args:
        vision, picture: what differs of its tower, and of how images are made ready for it.
    """
    made = {**FAMILIES, "Qwen 2 Audio": HEARS, "Qwen 3.5": MIXED}[family]
    ids = make_tokenizer(folder, made)
    shape = {**tiny.COMMON, "num_key_value_heads": 2, "vocab_size": 400 + len(ids), **made["text"]}
    config = AutoConfig.for_model(
        made["config"]["model_type"],
        text_config={**shape, **text},
        **{
            name: {**value, **vision} if name in ("vision_config", "audio_config") else value
            for name, value in made["config"].items()
            if name != "model_type"
        },
        **{name: ids[token] for name, token in made["tokens"].items()},
    )
    torch.manual_seed(seed)
    AutoModelForMultimodalLM.from_config(config).save_pretrained(str(folder))
    ready = {**made["picture"], **picture}
    ready["processor_class"] = made["processor"]["processor_class"]
    (folder / "preprocessor_config.json").write_text(json.dumps(ready), "utf-8")
    (folder / "processor_config.json").write_text(json.dumps(made["processor"]), "utf-8")
    return folder


def make_tokenizer(folder: Path, made: dict[str, Any]) -> dict[str, int]:
    """Write a tokenizer with a family's own tokens, and a template; return their ids."""
    tiny.make_tokenizer(folder)
    path = folder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in made["specials"]]
    )
    tokenizer.save(str(path))
    options = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    moving = (
        "<|vision_start|><|video_pad|><|vision_end|>" if made["specials"] == QWEN else "<video>"
    )
    written = TEMPLATE.replace("WRITTEN", made["written"]).replace("MOVING", moving)
    options["chat_template"] = written
    options["extra_special_tokens"] = made.get("named", {})
    (folder / "tokenizer_config.json").write_text(json.dumps(options), "utf-8")
    return {token: tokenizer.token_to_id(token) for token in made["specials"]}


def make_picture(colour: str, number: int = 0) -> Image.Image:
    """Draw a noisy image of a colour; each number has its own size."""
    random = np.random.default_rng([number, *COLOURS[colour]])
    noise = random.integers(-30, 30, (16 + 4 * (number % 3), 24, 3))
    return Image.fromarray(np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8))


def as_address(image: Image.Image) -> str:
    """Write an image as a data: address."""
    content = io.BytesIO()
    image.save(content, "PNG")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def ask(model: ChatModel, colour: str) -> str:
    """Ask for the colour of an image that nobody has learned from."""
    media = [["image", as_address(make_picture(colour, 20)), ""]]
    question = {"role": "user", "content": PLACES["image"] + "which colour?", "media": media}
    (given,) = answer(model, [encode_prompt(model, [question])], Sampling(max_tokens=6))
    return given.text


def write_rows(folder: Path, count: int = 8) -> Path:
    """Write images and questions about them, in alpaca form."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for label in COLOURS:
        for number in range(count):
            name = f"{label}{number}.png"
            make_picture(label, number).save(folder / name)
            rows.append({"instruction": "<image>which colour?", "output": label, "images": [name]})
    return tiny.write_rows(folder / "rows.jsonl", rows)


def write_sound(path: Path, pitch: float, *, rate: int = 16_000, seconds: float = 0.5) -> Path:
    """Write a tone with some noise, as WAV."""
    random = np.random.default_rng(int(pitch))
    count = int(rate * seconds)
    tone = np.sin(2 * np.pi * pitch * np.arange(count) / rate) + random.normal(0, 0.1, count)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((tone * 12_000).astype("<i2").tobytes())
    return path
