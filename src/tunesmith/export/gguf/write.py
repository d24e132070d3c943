"""Write a model as one GGUF file, weight by weight."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import require
from tunesmith.export.gguf.families import Family, Field, Fields, describe_model, find_family
from tunesmith.export.gguf.packing import PACKINGS, choose_types, pack
from tunesmith.export.gguf.tensors import Tensor, list_tensors
from tunesmith.export.gguf.vocabulary import describe_vocabulary
from tunesmith.paths import exists, expand, last_part

if TYPE_CHECKING:
    from tunesmith.models.chat import ChatModel


PHI_TOKENS = {"</s>", "<unk>", "<s>", "<|endoftext|>"}


def write_gguf(chat: ChatModel, path: Path, packing: str) -> None:
    """Write a model in evaluation mode, without an adapter beside it.

    Besides the model, no more than one of its weights is held in memory.

    Args:
        packing: one of `PACKINGS`.

    Raises:
        ExportError: if llama.cpp has no such architecture, rope or tokenizer.
    """
    gguf = require("gguf", extra="gguf")
    model, config, family = open_model(chat)
    fields = describe_model(family, config) | describe_vocabulary(chat, config.vocab_size)
    tensors = list_tensors(model, family, config)
    chosen = PACKINGS[packing]
    types = choose_types(tensors, chosen, config.num_hidden_layers)
    writer = gguf.GGUFWriter(str(path), family.name)
    try:
        writer.add_type("model")
        writer.add_name(name_model(chat, family))
        writer.add_file_type(gguf.LlamaFileType[chosen.file_type])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        write_fields(writer, fields)
        write_tensors(writer, tensors, types)
    finally:
        writer.close()


def open_model(chat: ChatModel) -> tuple[Any, Any, Family]:
    """Return a model, its configuration and its family."""
    model: Any = chat.model
    config = model.config
    return model, config, find_family(type(model).__name__, str(chat.folder))


def name_model(chat: ChatModel, family: Family) -> str:
    """Name a model; of one called phi-3, llama.cpp expects certain tokens, and cuts after them."""
    if family.name == "phi3" and chat.tokenizer.get_vocab().keys() >= PHI_TOKENS:
        return "phi-3"
    is_path = exists(expand(chat.name))
    name = last_part(chat.name) if is_path else chat.name.replace("/", "-")  # run and checkpoint
    return re.sub(r"phi-?3", "phi", name, flags=re.IGNORECASE)


def write_fields(writer: Any, fields: Fields) -> None:
    """Add fields, each as what it is."""
    for name, value in fields.items():
        _add_field(writer, name, value)


def _add_field(writer: Any, name: str, value: Field) -> None:
    if isinstance(value, bool):
        writer.add_bool(name, value)
    elif isinstance(value, int):
        writer.add_uint32(name, value)
    elif isinstance(value, float):
        writer.add_float32(name, value)
    elif isinstance(value, str):
        writer.add_string(name, value)
    else:
        writer.add_array(name, value)


def write_tensors(writer: Any, tensors: list[Tensor], types: dict[str, str]) -> None:
    """Write the head of the file, and then each weight."""
    import numpy as np

    gguf = require("gguf", extra="gguf")
    for tensor in tensors:
        kind = gguf.GGMLQuantizationType[types[tensor.name]]
        shape = gguf.quant_shape_to_byte_shape(tensor.shape, kind)
        num_bytes = int(np.prod(shape))
        writer.add_tensor_info(tensor.name, shape, np.dtype(np.uint8), num_bytes, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in tensors:
        writer.write_tensor_data(pack(tensor.read(), types[tensor.name]))
