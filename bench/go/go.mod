module tidegate.dev/bench

go 1.24
