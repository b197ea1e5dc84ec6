"""The HTTP server of the simulator: routes, the driver of virtual time, and operators' calls."""
