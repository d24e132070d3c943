"""Write constraints.txt and locks/ anew from pyproject.toml; run where pip-tools can be had."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parent.parent
TORCH = "2.13.0"
PINNED = (
    f"torch=={TORCH}",
    "transformers==5.23.0",
    "peft==0.21.2",
    "accelerate==1.15.0",
    "datasets==5.2.0",
    "trl==1.16.0",
)
"""Known to work together; the rest is what the index holds today."""
INDEX = "https://pypi.org/simple/torch/"
TORCH_LOCK = "locks/torch.sha256"
"""Apart from the rest: a machine may hold a build for the CPU or take one for CUDA."""
EXTRAS = ("optim", "quant", "torchao", "serve", "gguf", "video", "audio", "dev", "docs")
PYTHONS = ("cp311", "cp312", "cp313")


def main() -> None:
    """Resolve, then part torch, whose build differs by machine, from the rest."""
    with tempfile.TemporaryDirectory() as folder:
        venv, pinned, found = (Path(folder) / name for name in ("venv", "pinned.txt", "found.txt"))
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)  # noqa: S603
        subprocess.run([f"{venv}/bin/pip", "install", "--quiet", "pip-tools"], check=True)  # noqa: S603
        pinned.write_text("\n".join(PINNED) + "\n", encoding="utf-8")
        extras = [part for extra in EXTRAS for part in ("--extra", extra)]
        plain = [f"--no-emit-{what}" for what in ("index-url", "find-links", "trusted-host")]
        options = ["--generate-hashes", "--strip-extras", "--allow-unsafe", "--no-header"]
        command = [f"{venv}/bin/pip-compile", "--quiet", "--no-annotate", *options, *plain, *extras]
        subprocess.run(  # noqa: S603
            [*command, "--constraint", str(pinned), "--output-file", str(found), "pyproject.toml"],
            check=True,
            cwd=ROOT,
        )
        write_locks(found.read_text(encoding="utf-8"))


def write_locks(resolved: str) -> None:
    """Write the three files from what pip-compile resolved; other builds of torch stay known."""
    blocks = [b for b in re.split(r"\n(?=\S)", resolved.strip()) if not b.startswith("#")]
    rest = sorted(block for block in blocks if not block.startswith("torch=="))
    _write(
        "locks/packages.txt",
        "# Every package but torch, with the hashes of its files; written by `make lock`.\n"
        + "\n".join(rest),
    )
    known = (ROOT / TORCH_LOCK).read_text(encoding="utf-8").splitlines()
    builds = [line for line in known if f"torch-{TORCH}+" in line]
    _write(TORCH_LOCK, "\n".join(torch_hashes() + builds))
    versions = sorted([block.split()[0] for block in rest] + [f"torch=={TORCH}"])
    _write(
        "constraints.txt",
        "# Exact versions that were tested together; written by `make lock`.\n"
        + "\n".join(versions),
    )


def torch_hashes() -> list[str]:
    """Ask the index for the hashes of torch's wheels, as lines that `sha256sum` reads."""
    request = urllib.request.Request(
        INDEX, headers={"Accept": "application/vnd.pypi.simple.v1+json"}
    )
    with urllib.request.urlopen(request) as answer:  # noqa: S310  a fixed https address
        files = json.load(answer)["files"]
    wanted = tuple(f"torch-{TORCH}-{python}-{python}-" for python in PYTHONS)
    return sorted(
        f"{file['hashes']['sha256']}  {file['filename']}"
        for file in files
        if file["filename"].startswith(wanted)
    )


def _write(name: str, text: str) -> None:
    (ROOT / name).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
