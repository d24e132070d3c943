"""Answers and errors as OpenAI's clients read them."""
