"""Write a folder that `ollama create` takes."""

from __future__ import annotations

from dataclasses import replace

from tunesmith.errors import ExportError
from tunesmith.export.aside import size_of, writing_aside
from tunesmith.export.gguf.compare import context_of
from tunesmith.export.gguf.export import MODEL, choose_packing, write_proven
from tunesmith.export.gguf.packing import PACKINGS
from tunesmith.export.merged import load_merged
from tunesmith.export.ollama.choose import choose_template
from tunesmith.export.ollama.modelfile import Command, read_modelfile, write_modelfile
from tunesmith.export.order import Exported, Order, write_report
from tunesmith.inference.sampling import default_sampling
from tunesmith.models.chat import ChatModel

MODELFILE = "Modelfile"


def export_ollama(order: Order) -> Exported:
    """Write the model as GGUF, and a Modelfile with template, system prompt and parameters."""
    packing = choose_packing(order)
    merged = load_merged(order, PACKINGS[packing].bytes_per_weight)
    commands = describe(merged.chat, system_of(order))
    text = write_modelfile(commands)
    if read_modelfile(text) != commands:
        raise ExportError(
            "the Modelfile does not say what it was meant to say",
            hint="use --format gguf; please report it",
            where=MODELFILE,
        )
    with writing_aside(order.to) as aside:
        exported = write_proven(order, merged, packing, aside)
        (aside / MODELFILE).write_text(text, "utf-8")
        exported = replace(exported, num_bytes=size_of(aside))
        write_report(order, exported, aside, PACKINGS[packing].limits)
    return exported


def system_of(order: Order) -> str:
    """Return the system prompt that a run's conversations began with."""
    return (order.run.recipe().data.system or "") if order.run else ""


def describe(chat: ChatModel, system: str) -> list[Command]:
    """List the commands of a model's Modelfile.

    Without a template of its own that says the same, none is written, and Ollama takes the one
    in the GGUF.
    """
    commands = [Command("FROM", f"./{MODEL}")]
    template = choose_template(chat)
    if template is not None:
        commands.append(Command("TEMPLATE", template))
    if system:
        commands.append(Command("SYSTEM", system))
    sampling = default_sampling(chat.folder)
    parameters = {
        "num_ctx": context_of(chat),
        "temperature": float(sampling.temperature),
        "top_p": float(sampling.top_p),
        "top_k": sampling.top_k,
        "min_p": float(sampling.min_p),
        "repeat_penalty": float(sampling.repetition_penalty),
        "repeat_last_n": -1,  # the whole text, as where the run was tested
    }
    commands += [Command("PARAMETER", value, name) for name, value in parameters.items()]
    ends = [str(chat.tokenizer.convert_ids_to_tokens(token)) for token in chat.stop_ids]
    return commands + [Command("PARAMETER", text, "stop") for text in ends]
