"""Serve a GGUF with llama.cpp until stdin is closed; run by `watched.py`, without imports of ours.

TOLD, which `watched.py` sets, is the JSON of `LlamaCpp`'s options and a key.
"""

import json
import threading

import xllamacpp

told = json.loads(TOLD)  # type: ignore[name-defined]  # noqa: F821
params = xllamacpp.CommonParams()
params.model.path = told["path"]
params.n_parallel = told["slots"]
params.n_ctx = told["slots"] * told["longest"]
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = told["threads"]
cache = {"f16": xllamacpp.ggml_type.GGML_TYPE_F16, "f32": xllamacpp.ggml_type.GGML_TYPE_F32}
params.cache_type_k = params.cache_type_v = cache[told["cache"]]
if told["cache"] == "f32":
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
params.swa_full = True  # else beginnings could not be kept of models with sliding windows
params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, 1.0) for path in told["adapters"]]
params.lora_init_without_apply = True
params.fit_params = False  # it would choose another length than we promise
params.api_keys = [told["key"]]
params.hostnames = ["127.0.0.1"]
params.port = 0
params.ui = False
params.endpoint_slots = False  # it shows prompts
params.verbosity = 2
try:
    server = xllamacpp.Server(params)
except RuntimeError as problem:  # llama.cpp has said why; where it was called from tells nobody
    raise SystemExit(str(problem)) from None
print("listening", server.listening_address, flush=True)  # noqa: T201
threading.Event().wait()
