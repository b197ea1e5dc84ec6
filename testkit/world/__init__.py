"""A whole deployment in one process and in virtual time, drawn from one seed, with all its faults.

Stages: `odds` (what may go wrong, and how often), `host` and `ports` (a process and how it sees the
rest), `machines`, `users` and `model_server` (who acts), `account` and `watch` (what must hold at
every step), `checks` (what must hold in the end), `world` (all of it, from seed to report).
"""
