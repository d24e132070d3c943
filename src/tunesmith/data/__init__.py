"""Files to rows of token ids and labels; knows nothing of losses."""

from __future__ import annotations
