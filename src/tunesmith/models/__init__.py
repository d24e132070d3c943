"""From a name to models that are ready to train or to answer."""
