"""Whatever computes a recurrence on this machine, side by side with this package.

`cases` says what is computed and `contestants` by whom; `timing` checks every answer and then
takes times, `report` and `picture` show them. No module here imports a contestant's library
before that contestant is asked for.
"""
