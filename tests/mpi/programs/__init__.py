"""What mpirun starts. A program fails where an assertion of one of its ranks does."""
