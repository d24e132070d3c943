"""Clients ready to be copied, as texts with a few places to fill in."""
