"""Batches without a server: one input file, one output file, and a private ledger beside it.

`job` holds the options; `state` keeps the folder that survives a kill; `rows`, `prompts` and
`model_override` turn an input into lines; `input` uploads them; `run` runs them; `progress`
measures them; `answers`, `tables` and `export` write the results; `validate` only checks a file.
"""
