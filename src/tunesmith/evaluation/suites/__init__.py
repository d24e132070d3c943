"""Published benchmarks from local files: read, asked in their own way, counted."""
