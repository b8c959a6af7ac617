"""The formula twin of methods with contacts: the same decisions over links that obey formulas."""
