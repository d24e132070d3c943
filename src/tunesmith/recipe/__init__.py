"""What one run should do: validated options, read from a file, explained, checked. Never torch."""
