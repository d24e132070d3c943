"""One tool from a company's questions and answers to a language model it runs itself."""

__version__ = "0.1.0"
