"""Write a folder that `ollama create` takes: a GGUF and a Modelfile that speaks as the run did."""
