// Command files serves one file with net/http's own means, which hand its bytes from the page cache
// to the socket with sendfile: for scale beside a server that knows what the bytes are.
//
// It says "ready URL" once it listens, and ends when its standard input ends.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
)

func main() {
	path := flag.String("file", "", "what to serve, at every path")
	flag.Parse()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fmt.Printf("ready http://%s\n", listener.Addr())
	log.Fatal(http.Serve(listener, http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("content-type", "application/octet-stream")
			http.ServeFile(w, r, *path)
		})))
}
