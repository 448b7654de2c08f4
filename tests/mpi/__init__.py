"""Solves over ranks: programs that processes run under mpirun, and tests that start them."""
