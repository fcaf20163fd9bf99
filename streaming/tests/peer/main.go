// The other side of the SPDY tests: Go's spdystream, which is what kubelet, kubectl and crictl have.
//
//	peer serve         listens on a free port of the loopback, prints its address, serves until its input ends
//	peer client ADDR   runs all scenarios against a server with the same modes
//
// What a server does with a stream is said by the stream's header "mode": echo, sink (answers the number of bytes it
// got), source (sends "bytes" many), reset (after the reply), refuse, hold (until the other side resets it).
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/moby/spdystream"
)

const limit = 60 * time.Second

func main() {
	var err error
	switch {
	case len(os.Args) == 2 && os.Args[1] == "serve":
		err = serve()
	case len(os.Args) == 3 && os.Args[1] == "client":
		err = client(os.Args[2])
	default:
		err = errors.New("usage: peer serve | peer client ADDR")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

// pattern is what bytes at this offset of any transfer are.
func pattern(offset int64) byte { return byte(offset % 251) }

func fill(buffer []byte, offset int64) {
	for i := range buffer {
		buffer[i] = pattern(offset + int64(i))
	}
}

func send(w io.Writer, count int64, piece int) error {
	buffer := make([]byte, piece)
	for offset := int64(0); offset < count; {
		part := buffer[:min(int64(len(buffer)), count-offset)]
		fill(part, offset)
		if _, err := w.Write(part); err != nil {
			return fmt.Errorf("write at %d: %w", offset, err)
		}
		offset += int64(len(part))
	}
	return nil
}

// receive reads to the end and checks every byte.
func receive(r io.Reader) (int64, error) {
	buffer := make([]byte, 64<<10)
	var offset int64
	for {
		n, err := r.Read(buffer)
		for i, have := range buffer[:n] {
			if have != pattern(offset+int64(i)) {
				return offset, fmt.Errorf("byte %d is %d", offset+int64(i), have)
			}
		}
		offset += int64(n)
		if err == io.EOF {
			return offset, nil
		}
		if err != nil {
			return offset, err
		}
	}
}

func serve() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		session, err := spdystream.NewConnection(conn, true)
		if err != nil {
			return err
		}
		go session.Serve(handle)
	}
}

func handle(stream *spdystream.Stream) {
	header := stream.Headers()
	if header.Get("mode") == "refuse" {
		stream.Refuse()
		return
	}
	if err := stream.SendReply(http.Header{"Mode": header["Mode"]}, false); err != nil {
		return
	}
	go func() {
		switch header.Get("mode") {
		case "echo":
			io.Copy(stream, stream)
			stream.Close()
		case "sink":
			count, err := receive(stream)
			if err != nil {
				fmt.Fprintln(os.Stderr, "peer: sink:", err)
				stream.Reset()
				return
			}
			fmt.Fprint(stream, count)
			stream.Close()
		case "source":
			count, _ := strconv.ParseInt(header.Get("bytes"), 10, 64)
			if err := send(stream, count, 100_000); err != nil {
				fmt.Fprintln(os.Stderr, "peer: source:", err)
			}
			stream.Close()
		case "reset":
			stream.Reset()
		}
	}()
}

func client(address string) error {
	scenarios := []struct {
		name string
		run  func(*spdystream.Connection) error
	}{
		{"ping", ping},
		{"many streams", many},
		{"half close", half},
		{"big both ways", big},
		{"resets", resets},
		{"headers", headers},
	}
	for _, scenario := range scenarios {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return err
		}
		session, err := spdystream.NewConnection(conn, false)
		if err != nil {
			return err
		}
		go session.Serve(func(stream *spdystream.Stream) { stream.Refuse() })
		result := make(chan error, 1)
		start := time.Now()
		go func() {
			err := scenario.run(session)
			if err == nil {
				// Says goodbye, and returns when all streams are gone.
				err = session.CloseWait()
			}
			result <- err
		}()
		select {
		case err = <-result:
		case <-time.After(limit):
			err = errors.New("takes too long")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", scenario.name, err)
		}
		fmt.Printf("%s: %v\n", scenario.name, time.Since(start).Round(time.Millisecond))
	}
	return nil
}

func open(session *spdystream.Connection, mode string, bytes int64) (*spdystream.Stream, error) {
	header := http.Header{"Mode": {mode}, "Bytes": {strconv.FormatInt(bytes, 10)}}
	stream, err := session.CreateStream(header, nil, false)
	if err != nil {
		return nil, err
	}
	return stream, stream.WaitTimeout(limit)
}

func ping(session *spdystream.Connection) error {
	for range 100 {
		if _, err := session.Ping(); err != nil {
			return err
		}
	}
	return nil
}

func many(session *spdystream.Connection) error {
	const streams = 300
	var group sync.WaitGroup
	failures := make(chan error, streams)
	for i := range streams {
		group.Add(1)
		go func() {
			defer group.Done()
			if err := echo(session, int64(i)*331); err != nil {
				failures <- fmt.Errorf("stream %d: %w", i, err)
			}
		}()
	}
	group.Wait()
	close(failures)
	return <-failures
}

func echo(session *spdystream.Connection, bytes int64) error {
	stream, err := open(session, "echo", 0)
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() {
		err := send(stream, bytes, 4096)
		if err == nil {
			err = stream.Close()
		}
		sent <- err
	}()
	count, err := receive(stream)
	if err != nil {
		return err
	}
	if count != bytes {
		return fmt.Errorf("%d of %d bytes came back", count, bytes)
	}
	return <-sent
}

func half(session *spdystream.Connection) error {
	stream, err := open(session, "sink", 0)
	if err != nil {
		return err
	}
	if err := send(stream, 12_345, 100); err != nil {
		return err
	}
	if err := stream.Close(); err != nil {
		return err
	}
	// The answer comes after our end.
	answer, err := io.ReadAll(stream)
	if err != nil || string(answer) != "12345" {
		return fmt.Errorf("answer %q, %v", answer, err)
	}
	return nil
}

func big(session *spdystream.Connection) error {
	const bytes = 100 << 20
	up, err := open(session, "sink", 0)
	if err != nil {
		return err
	}
	down, err := open(session, "source", bytes)
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() {
		err := send(up, bytes, 32<<10)
		if err == nil {
			err = up.Close()
		}
		sent <- err
	}()
	count, err := receive(down)
	if err != nil || count != bytes {
		return fmt.Errorf("got %d of %d bytes, %v", count, bytes, err)
	}
	down.Close()
	if err := <-sent; err != nil {
		return err
	}
	answer, err := io.ReadAll(up)
	if err != nil || string(answer) != strconv.Itoa(bytes) {
		return fmt.Errorf("answer %q, %v", answer, err)
	}
	return nil
}

func resets(session *spdystream.Connection) error {
	if _, err := open(session, "refuse", 0); err != spdystream.ErrReset {
		return fmt.Errorf("refused stream: %v", err)
	}
	stream, err := open(session, "reset", 0)
	if err != nil {
		return err
	}
	if rest, err := io.ReadAll(stream); len(rest) > 0 {
		return fmt.Errorf("read %q, %v from a stream that was reset", rest, err)
	}
	// Ours; the server tells that it noticed by ending another stream's transfer.
	for range 50 {
		stream, err = open(session, "hold", 0)
		if err != nil {
			return err
		}
		if err := stream.Reset(); err != nil {
			return err
		}
	}
	// Half of a transfer that nobody wants any more, then the connection must still work.
	stream, err = open(session, "source", 1<<30)
	if err != nil {
		return err
	}
	if _, err := io.ReadFull(stream, make([]byte, 1<<20)); err != nil {
		return err
	}
	if err := stream.Reset(); err != nil {
		return err
	}
	return echo(session, 100_000)
}

func headers(session *spdystream.Connection) error {
	for i := range 200 {
		header := http.Header{"Mode": {"echo"}, "Streamtype": {"data"}, "Port": {strconv.Itoa(i)}, "Several": {"a", "b", "c"}}
		stream, err := session.CreateStream(header, nil, false)
		if err != nil {
			return err
		}
		if err := stream.WaitTimeout(limit); err != nil {
			return err
		}
		if err := stream.Close(); err != nil {
			return err
		}
		if _, err := io.ReadAll(stream); err != nil {
			return err
		}
	}
	return nil
}
