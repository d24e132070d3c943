"""Requests as OpenAI's clients send them; what is not known is refused by name."""
