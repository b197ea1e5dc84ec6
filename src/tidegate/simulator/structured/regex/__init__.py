"""Texts that a rule accepts: regular expressions and grammars are read, and texts made for them."""
