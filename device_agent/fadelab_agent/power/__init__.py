"""What the board's own sensors say of its power draw."""
