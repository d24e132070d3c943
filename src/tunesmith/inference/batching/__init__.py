"""Many answers at once from one model of this process, each joining and leaving when it likes."""
