"""The family of upstreams, through which model servers are called."""
