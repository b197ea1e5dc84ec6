"""What keeps ledger and blobs clean: expiry, retention, garbage, compaction, drift.

One duty is one file. Each says what it would do (`plan`, which only reads) and does it (`act`).
Everything may be interrupted anywhere, and done by several processes at once: the ledger decides
what may go, and a blob is deleted only after whoever could still need it was fenced (PROTOCOL 18).
"""
