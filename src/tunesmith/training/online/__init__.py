"""Let the policy answer questions while it learns, and make rows to learn from of its answers."""
