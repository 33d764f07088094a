"""Speed and accuracy, measured: ``python -m bench`` compares with other libraries."""
