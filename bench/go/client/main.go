// Command client is the bar: a bare net/http client that sends the same body again and again and
// reads every answer to its end. It reads no JSONL, keeps no result and retries nothing.
//
// Its last line is JSON: requests, the CPU that they took in microseconds, and the seconds.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	url := flag.String("url", "", "where to send the requests")
	requests := flag.Int64("requests", 1000, "how many")
	concurrency := flag.Int("concurrency", 64, "how many at once")
	size := flag.Int("bytes", 2000, "size of each body")
	flag.Parse()
	const before, after = `{"model":"m","messages":[{"role":"user","content":"`, `"}]}`
	body := []byte(before + strings.Repeat("x", max(0, *size-len(before)-len(after))) + after)
	client := &http.Client{Transport: &http.Transport{
		MaxIdleConns: *concurrency, MaxIdleConnsPerHost: *concurrency, DisableCompression: true,
	}}
	started, cpu := time.Now(), cpuMicroseconds()
	var left atomic.Int64
	left.Store(*requests)
	var group sync.WaitGroup
	for range *concurrency {
		group.Add(1)
		go func() {
			defer group.Done()
			var answer bytes.Buffer
			for left.Add(-1) >= 0 {
				if err := send(client, *url, body, &answer); err != nil {
					log.Fatal(err)
				}
			}
		}()
	}
	group.Wait()
	fmt.Printf(`{"requests":%d,"cpu_us":%d,"seconds":%.3f}`+"\n",
		*requests, cpuMicroseconds()-cpu, time.Since(started).Seconds())
}

// send posts one body and reads the whole answer into a buffer that is used again.
func send(client *http.Client, url string, body []byte, answer *bytes.Buffer) error {
	reply, err := client.Post(url, "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	answer.Reset()
	if _, err := io.Copy(answer, reply.Body); err != nil {
		return err
	}
	if reply.StatusCode != http.StatusOK {
		return fmt.Errorf("the server answered %s", reply.Status)
	}
	return nil
}

// cpuMicroseconds returns the user and system time of this process.
func cpuMicroseconds() int64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		log.Fatal(err)
	}
	return (usage.Utime.Sec+usage.Stime.Sec)*1_000_000 + int64(usage.Utime.Usec+usage.Stime.Usec)
}
