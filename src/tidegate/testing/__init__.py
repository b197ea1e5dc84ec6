"""What tests of Tidegate stand on: contract suites, faults, and a loop with virtual time."""
