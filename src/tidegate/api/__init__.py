"""OpenAI's files and batches over HTTP: parse, call one function of `application`, render."""
