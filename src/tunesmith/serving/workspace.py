"""The folders in which clients may name something; nothing else is opened for them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tunesmith.errors import RequestError
from tunesmith.models.chat import Subject
from tunesmith.models.named import find_named_run, run_names
from tunesmith.paths import exists
from tunesmith.settings import read_settings

MARK = "adapter_config.json"


@dataclass(frozen=True)
class Workspace:
    """Folders, without links on the way to them."""

    roots: tuple[Path, ...]

    def find_adapter(self, name: str) -> str:
        """Find what a client names: a run, its checkpoint, or a folder that holds an adapter.

        Raises:
            RequestError: if it is none, or lies elsewhere; what else is there is not told.
        """
        if name.partition("/")[0] in run_names():
            return name
        folder = _resolved(name)
        if folder is None or not self._holds(folder):
            raise RequestError(
                f"{name!r} is no run, and no folder in reach of this server",
                hint="name a run, or start the server in the folder that holds the adapter",
                where="lora_path",
            )
        run, weights = find_named_run(folder)
        adapter = folder if run is None or weights is None else weights
        if not exists(adapter / MARK):
            raise RequestError(
                f"there is no adapter in {name!r}",
                hint=f"name a run that trained one, or the folder that holds {MARK}",
                where="lora_path",
            )
        for path in adapter.iterdir():
            if not self._holds(path.resolve()):
                raise RequestError(
                    f"{path.name} of {name!r} is a link out of the reach of this server",
                    hint="copy the file itself",
                    where="lora_path",
                )
        return str(folder)

    def _holds(self, path: Path) -> bool:
        return any(path.is_relative_to(root) for root in self.roots)


def find_workspace(subjects: Iterable[Subject] = ()) -> Workspace:
    """Take the runs, the caches, the folder the server was started in, and those beside it.

    Args:
        subjects: what is served, beside which other adapters may lie.
    """
    settings, here = read_settings(), _resolved(".")
    folders = [settings.runs, *settings.hub_caches]
    folders += [(each.run.path if each.run else each.base).parent for each in subjects]
    found = [_resolved(folder) for folder in folders]
    if here is not None and here != Path(here.anchor):
        found.append(here)
    return Workspace(tuple(folder for folder in found if folder is not None))


def _resolved(name: str | Path) -> Path | None:
    """Find a folder; None if it can be none, as where the working folder was deleted."""
    try:
        return Path(name).resolve()  # no `~`: whose home that is stands in a file of the system
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, links in a circle
        return None
