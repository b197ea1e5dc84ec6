"""HTTP in: parse, call one function of the desk, render. No rule of the product lives here."""
