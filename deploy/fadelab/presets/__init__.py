"""Settings of published simulations, as far as they are given."""
