"""A batch from claimed to closed: planning, shards, finalizing.

Reading order is the life of a batch: `batches/planner` (lines into a plan), `leases/claimer` (what
to work on), `dispatch/open_batch` and `open_shard` (what is being worked on), `dispatch/dispatcher`
(lines to endpoints and back), `dispatch/settle` (what a reply means for its line), `committer`
(results into the ledger), `batches/loops` (planning and finalizing). `service` owns the tasks.
"""
