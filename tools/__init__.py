"""What makes parts of the repository: coefficients, tables, documents. It is in no wheel."""
