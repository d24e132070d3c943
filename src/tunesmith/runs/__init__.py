"""Run directories: the one place that knows how they are laid out."""
