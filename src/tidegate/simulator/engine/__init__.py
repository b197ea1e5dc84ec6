"""A continuous-batching engine on paper: what a model server does in each step, without a model.

Pure: no clock, no I/O, no tasks. Time is an integer number of picoseconds, so that many steps at
once give exactly what the same steps one by one give.
"""
