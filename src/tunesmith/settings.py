"""Settings of the machine, read from the environment; a run never depends on them silently."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import psutil
from platformdirs import user_cache_path, user_config_path

from tunesmith.paths import expand

LOOPBACK = "127.0.0.1"
VISIBLE = "CUDA_VISIBLE_DEVICES"
SECRET = re.compile(
    r"(?:^|_)(?:TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|(?:API|ACCESS|PRIVATE)_?KEY)(?:$|_)",
    re.IGNORECASE,
)
"""Names of variables that nobody but their owner may read."""


@dataclass(frozen=True)
class Settings:
    """Where things lie on this machine.

    Attributes:
        runs: folder that holds the run directories (`TUNESMITH_RUNS`, else `./runs`).
        cache: folder of what can be made again (`TUNESMITH_CACHE`).
        config: folder of what a person set up, such as keys (`TUNESMITH_CONFIG`).
        hub_caches: folders in the Hugging Face cache layout, searched in this order
            (`HF_HUB_CACHE`, `HF_HOME`/hub, `HF_HOME`, the default place).
        vllm_python: the Python of an environment that holds vLLM (`TUNESMITH_VLLM_PYTHON`).
        threads: how many compute (`OMP_NUM_THREADS`, which torch reads too); 0 for all cores.
    """

    runs: Path
    cache: Path
    config: Path
    hub_caches: tuple[Path, ...]
    vllm_python: Path | None = None
    threads: int = 0


def read_settings() -> Settings:
    """Read the environment, now: tests and servers may change it between calls."""
    environment = os.environ
    runs = Path(environment.get("TUNESMITH_RUNS") or "runs")
    cache = Path(environment.get("TUNESMITH_CACHE") or user_cache_path("tunesmith"))
    config = Path(environment.get("TUNESMITH_CONFIG") or user_config_path("tunesmith"))
    hubs: list[Path] = []
    if environment.get("HF_HUB_CACHE"):
        hubs.append(Path(environment["HF_HUB_CACHE"]))
    if environment.get("HF_HOME"):
        hubs += [Path(environment["HF_HOME"]) / "hub", Path(environment["HF_HOME"])]
    else:
        hubs.append(expand("~/.cache/huggingface/hub"))
    vllm = environment.get("TUNESMITH_VLLM_PYTHON")
    threads = environment.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return Settings(
        expand(runs),
        expand(cache),
        expand(config),
        tuple(hubs),
        expand(vllm) if vllm else None,
        int(threads) if threads.isdecimal() else 0,
    )


def forbid_network() -> None:
    """Tell every library underneath to stay offline; call before importing them."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def tokenize_in_one_thread(_: int = 0) -> None:
    """Tell tokenizers to do without threads; call in a forked process, which has none of them.

    They would wait for those for ever, as `forbid_network` has said that there are some.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def environment_offline(**more: str) -> dict[str, str]:
    """Copy the environment for another process, which reaches no other machine and needs no key."""
    own = {name: value for name, value in os.environ.items() if not SECRET.search(name)}
    offline = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "DO_NOT_TRACK")
    return {**own, **dict.fromkeys(offline, "1"), "HF_HUB_DISABLE_TELEMETRY": "1", **more}


def stay_on_this_machine() -> None:
    """Let processes that train together talk through the machine's own address alone.

    Call before they meet.
    """
    names = [
        name
        for name, addresses in psutil.net_if_addrs().items()
        if any(address.address == LOOPBACK for address in addresses)
    ]
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ[name] = names[0]


def environment_with_gpu(number: int | None) -> dict[str, str]:
    """Copy the environment for another process, which is to see one GPU of ours only.

    Args:
        number: which of them; None leaves all.
    """
    environment = dict(os.environ)
    if number is not None:
        seen = environment.get(VISIBLE)
        environment[VISIBLE] = seen.split(",")[number].strip() if seen else str(number)
    return environment


def take_large_pages() -> None:
    """Have torch lay large tensors on large pages where Linux has them; before it makes any.

    Cores then look up fewer pages; a value that a person set stays.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
