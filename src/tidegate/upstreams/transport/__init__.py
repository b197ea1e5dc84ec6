"""How a connection to a model server is opened: names, addresses, TLS and proxies."""
