"""A step as a graph of scalar operations: traced, differentiated, printed."""
