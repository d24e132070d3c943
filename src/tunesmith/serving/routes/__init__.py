"""Which address does what, one file for each kind of work."""
