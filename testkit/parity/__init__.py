"""The same questions to a real model server and to the simulator, and how the answers differ."""
