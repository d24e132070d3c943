"""From a run to a model that other programs load, published only if it answers the same."""
