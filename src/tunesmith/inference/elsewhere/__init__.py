"""Engines in other processes: how they are started, asked, and ended."""
