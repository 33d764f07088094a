"""Generators of parts of the repository: coefficients, tables, documents. No wheel has them."""
