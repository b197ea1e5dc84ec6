"""Finds out what is wrong with an installation, and says what to do. It changes nothing.

Each file examines one part and returns findings; `examine` puts them together.
"""
