"""The whole way in three minutes, on what ships in the package."""
