"""Claims of this processor: which it takes, renews and hands back, and its membership."""
