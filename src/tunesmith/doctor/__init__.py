"""What this machine and this installation can do, found out by doing it."""
