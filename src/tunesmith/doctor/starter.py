"""Ask the starter model for one token."""

from __future__ import annotations

from tunesmith.doctor.findings import Finding
from tunesmith.errors import TunesmithError


def try_starter() -> Finding:
    """Load the model that ships with the package, and let it answer."""
    from tunesmith.inference.sampling import Sampling
    from tunesmith.inference.session import ChatSession
    from tunesmith.models.chat import load_chat_model

    try:
        session = ChatSession(load_chat_model("starter"), Sampling(max_tokens=1, temperature=0.0))
        answer = "".join(session.ask("hello"))
    except TunesmithError as problem:
        return Finding("starter", "answers", problem.message, "broken", problem.hint)
    except Exception as problem:  # noqa: BLE001  a damaged installation raises anything
        why = f"{type(problem).__name__}: {problem}".splitlines()[0]
        return Finding("starter", "answers", why, "broken", "install tunesmith anew")
    return Finding("starter", "answers", f"one token: {answer!r}")
