"""On what a run computes."""

from __future__ import annotations

from typing import Literal

from tunesmith.recipe.section import Count, CountOrZero, Positive, Section


class Compute(Section):
    """The device and its numbers."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes CUDA where there is one, else the CPU with all its cores."""
    precision: Literal["auto", "fp32", "bf16", "fp16", "pure_bf16"] = "auto"
    """`auto` takes bf16 where the hardware has it, else fp32. Trained weights stay fp32 unless
    `pure_bf16` is asked for. `fp16` is for GPUs without bf16: losses are scaled so that gradients
    do not vanish, and an update whose gradients overflow is left out (arXiv:1710.03740)."""
    processes: Count | None = None
    """Processes that share the rows of each update; if not given, one for each GPU, or one on a
    CPU. What is learned stays the same, to the bit only at the same number."""
    threads: CountOrZero = 0
    """CPU threads of a process; 0 parts all cores among the processes. Results repeat to the bit
    only at the same number."""
    tokens_per_batch: Count | None = None
    """Most tokens computed at once; an update is split into such batches. What is learned stays
    the same, to the bit only at the same number. Chosen from the free memory if not given."""
    gradient_checkpointing: Literal["auto", "on", "off", "offload"] = "auto"
    """Compute activations twice to save memory; `offload` keeps in main memory, too, what a GPU
    must remember of each layer. `auto` takes the fastest that fits."""
    memory_gib: Positive | None = None
    """Memory the run may use, on each GPU where there are several; what is free if not given."""
