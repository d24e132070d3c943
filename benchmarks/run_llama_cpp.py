"""llama.cpp's own server through xllamacpp, with weights and cache in f32.

python benchmarks/run_llama_cpp.py GGUF PORT SLOTS
"""

from __future__ import annotations

import sys
import threading

import xllamacpp

path, port, slots = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
params = xllamacpp.CommonParams()
params.model.path, params.port, params.n_parallel = path, port, slots
params.n_ctx, params.fit_params = slots * 256, False
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
# Its flash attention on CPUs rounds more than f32 does.
params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
params.verbosity, params.ui = 1, False
server = xllamacpp.Server(params)
threading.Event().wait()
