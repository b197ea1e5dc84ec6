"""Development only: simulated worlds, power loss, fuzzing, parity, deliberate breaks, servers."""
