"""What every program under test must find."""

import signal

# A run of the tests that was started in the background ignores Ctrl-C, and so would each program
# that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
