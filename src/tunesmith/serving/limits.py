"""How much one request may ask for, and how long it may take to say so."""

from __future__ import annotations

MAX_WAITING = 32
MAX_BODY_BYTES = 8 << 20
MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 << 10
MAX_DEPTH = 64
"""Objects and lists inside each other, in a body of JSON."""
MAX_MESSAGES = 2048
MAX_PARTS = 256
MAX_TOOLS = 256
MAX_CHOICES = 16
MAX_INPUTS = 256
"""Texts in one request for embeddings, scores or completions."""
MAX_STOPS = 16
MAX_OPTIONS = 4096
"""Texts of which an answer is to be one."""
MAX_BIASES = 1024
LONGEST_ANSWER = 1024
"""Tokens of an answer where a request says nothing."""

MAX_CONNECTIONS = 900
"""Below the 1,024 files that a process may hold open by default."""
READ_AT_ONCE = 8
"""Requests read each time the event loop goes round."""
REFUSED_AT_ONCE = 32
"""As many where all of them are refused, which takes a quarter of the time."""
SECONDS_FOR_HEAD = 10
SECONDS_FOR_BODY = 10
BODY_BYTES_PER_SECOND = 64 << 10
"""A body that comes at this speed may take longer."""
SECONDS_TO_READ = 30
"""For how long a client may take nothing of its answer."""
SECONDS_TO_DRAIN = 10

BESIDE = {"forms": 2, "embeddings": 2, "adapters": 1, "scores": 1}
"""Threads for each kind of work beside the event loop; none keeps another kind waiting."""
SLOW_WRITERS = 2
"""Conversations that keep their template longer than a moment; others are written beside them."""
SECONDS_TO_TOKENIZE = 2.0
CHARACTERS_PER_SECOND = 200_000
"""Longer texts may take longer."""
SECONDS_FOR_FORMS = 20.0
"""For reading schemas; the first one reads the vocabulary too."""
