"""What operators see: every metric and log event of the product is declared here once."""
