"""Window semantics: how a link is closed and opened again, one file for each mode."""
