"""Checks an installation, and says how to fix what is wrong. It changes nothing.

Each file examines one part and returns findings; `tidegate.cli.doctor` runs them all.
"""
