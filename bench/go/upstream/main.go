// Command upstream is a model server that answers every request at once with the same chat
// completion of about 1 KB. It speaks HTTP/1.1 with keep-alive straight on its connections, which
// costs less than net/http, so that what it is measured with is the client and not this server.
//
// It says "ready URL" once it listens, and ends when its standard input ends, so that it never
// outlives the benchmark that started it. GET /counts tells how many requests it answered.
package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	headBytesMax = 16 << 10
	bodyBytesMax = 64 << 20
	bufferBytes  = 32 << 10
	textBytes    = 640
)

var errRequest = errors.New("a request that this server does not understand")

// books counts what was asked, over all connections.
type books struct {
	requests atomic.Int64
	bytes    atomic.Int64
}

// server answers every connection alike.
type server struct {
	books books
	reply []byte
	delay time.Duration
}

func main() {
	delay := flag.Duration("delay", 0, "mean time before an answer: half of it to one and a half")
	certFile := flag.String("tls-cert", "", "speak TLS, and write the certificate to this file")
	flag.Parse()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	scheme := "http"
	address := listener.Addr().String()
	if *certFile != "" {
		config, err := throwAwayTLS(*certFile)
		if err != nil {
			log.Fatal(err)
		}
		listener, scheme = tls.NewListener(listener, config), "https"
	}
	go endWithInput()
	fmt.Printf("ready %s://%s\n", scheme, address)
	s := &server{reply: answer(completion()), delay: *delay}
	for {
		connection, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go s.serve(connection)
	}
}

// endWithInput ends this process when whoever started it is gone.
func endWithInput() {
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// serve answers the requests of one connection in turn, until it breaks or asks what we don't know.
func (s *server) serve(connection net.Conn) {
	defer connection.Close()
	buffer := make([]byte, bufferBytes)
	filled := 0
	for {
		end := bytes.Index(buffer[:filled], []byte("\r\n\r\n"))
		for end < 0 {
			if filled >= headBytesMax {
				return
			}
			count, err := connection.Read(buffer[filled:])
			if err != nil {
				return
			}
			filled += count
			end = bytes.Index(buffer[:filled], []byte("\r\n\r\n"))
		}
		head, start := buffer[:end], end+4
		length, err := contentLength(head)
		if err != nil {
			return
		}
		told := s.tell(head)
		rest, err := skip(connection, buffer, start, filled, length)
		if err != nil {
			return
		}
		filled = rest
		if told == nil {
			told = s.think(length)
		}
		if _, err := connection.Write(told); err != nil {
			return
		}
	}
}

// tell returns the answer to a question about this server itself, else nil.
func (s *server) tell(head []byte) []byte {
	switch {
	case bytes.HasPrefix(head, []byte("GET /counts ")):
		return answer(fmt.Sprintf(`{"requests":%d,"bytes":%d}`,
			s.books.requests.Load(), s.books.bytes.Load()))
	case bytes.HasPrefix(head, []byte("GET /v1/models ")):
		return answer(`{"object":"list","data":[{"id":"m","object":"model"}]}`)
	}
	return nil
}

// think counts a request, waits as long as it was told to, and returns the answer.
func (s *server) think(length int) []byte {
	s.books.requests.Add(1)
	s.books.bytes.Add(int64(length))
	if s.delay > 0 {
		time.Sleep(time.Duration(float64(s.delay) * (0.5 + mathrand.Float64())))
	}
	return s.reply
}

// skip drops a body of that length which begins at start, keeps what was read after it at the
// beginning of the buffer, and returns how much that is.
func skip(connection net.Conn, buffer []byte, start, filled, length int) (int, error) {
	if filled-start >= length {
		return copy(buffer, buffer[start+length:filled]), nil
	}
	missing := length - (filled - start)
	for missing > 0 {
		count, err := connection.Read(buffer[:min(missing, len(buffer))])
		if err != nil {
			return 0, err
		}
		missing -= count
	}
	return 0, nil
}

// contentLength returns the length of the body that a head announces.
func contentLength(head []byte) (int, error) {
	length := 0
	_, rest, _ := bytes.Cut(head, []byte("\r\n"))
	for len(rest) > 0 {
		var line []byte
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		name, value, found := bytes.Cut(line, []byte(":"))
		if !found || (len(name) == 17 && bytes.EqualFold(name, []byte("transfer-encoding"))) {
			return 0, errRequest
		}
		if len(name) == 14 && bytes.EqualFold(name, []byte("content-length")) {
			parsed, err := strconv.Atoi(string(bytes.TrimSpace(value)))
			if err != nil || parsed < 0 || parsed > bodyBytesMax {
				return 0, errRequest
			}
			length = parsed
		}
	}
	return length, nil
}

// answer returns a whole reply around a body of JSON.
func answer(body string) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"+
		"content-length: %d\r\n\r\n%s", len(body), body)
}

// completion returns what a model server says of one chat: about 1 KB.
func completion() string {
	text := strings.Repeat("All work and no play makes one dull answer. ", textBytes/44+1)
	return fmt.Sprintf(`{"id":"chatcmpl-5f0c3b7a9d1e4c62","object":"chat.completion",`+
		`"created":1790000000,"model":"m","choices":[{"index":0,"message":{"role":"assistant",`+
		`"content":%q,"refusal":null,"tool_calls":null},"logprobs":null,"finish_reason":"stop",`+
		`"stop_reason":null}],"usage":{"prompt_tokens":412,"completion_tokens":143,`+
		`"total_tokens":555,"prompt_tokens_details":{"cached_tokens":384}},`+
		`"system_fingerprint":null}`, text[:textBytes])
}

// throwAwayTLS makes a certificate for 127.0.0.1 that is good for a day, and writes it to a file.
func throwAwayTLS(path string) (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(now.UnixNano()),
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(24 * time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	shown := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(path, shown, 0o600); err != nil {
		return nil, err
	}
	certificate := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"http/1.1"}}, nil
}
