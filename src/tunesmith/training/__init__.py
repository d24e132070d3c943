"""The one loop: a recipe in, a run directory out."""
