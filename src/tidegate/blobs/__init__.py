"""The family of blob stores: named runs of bytes. The ledger alone says which of them count."""
