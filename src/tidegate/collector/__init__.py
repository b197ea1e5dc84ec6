"""What keeps ledger and blobs clean: expiry, retention, garbage, compaction, drift.

One duty is one file. Each reports what it would do (`plan`, which only reads) and does it (`act`).
All work may be interrupted anywhere, and done by several processes concurrently: the ledger decides
what is deleted, and a blob only after every writer that could need it is fenced (PROTOCOL 18).
"""
