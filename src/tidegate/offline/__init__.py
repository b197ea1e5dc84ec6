"""Batches without a server: one input file, one output file, and a private ledger beside it.

`job` says what is asked for; `state` keeps the folder that survives a kill; `rows`, `sheets`,
`prompts` and `models` turn an input into lines; `intake` uploads them; `progress` tells how it
goes; `answers` and `export` write the results; `validation` only judges.
"""
