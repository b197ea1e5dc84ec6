"""A batch from claimed to closed: planning, shards, finalizing.

Reading order is the life of a batch: `claimer` (what to work on), `planner` (lines into a plan),
`open_shard` and `run` (what is held open here), `dispatcher` (lines to endpoints and back),
`outcome` (what a reply means), `committer` (what came back becomes true), `closer` (what is over).
`service` owns the tasks.
"""
