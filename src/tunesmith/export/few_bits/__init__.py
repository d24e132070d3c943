"""From whole weights to few bits, in folders that transformers and servers load."""
