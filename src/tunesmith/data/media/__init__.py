"""What rows hold besides text; kept as a file and its hash, and decoded when a batch is made."""
