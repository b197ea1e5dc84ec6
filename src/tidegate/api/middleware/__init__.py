"""What each request passes before a handler answers it, one file each."""
