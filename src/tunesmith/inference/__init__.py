"""Messages in, tokens out: what chat, evaluation, export checks and servers answer with."""
