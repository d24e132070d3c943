"""Write GGUF, which llama.cpp and what builds on it read, and prove it by asking llama.cpp."""
