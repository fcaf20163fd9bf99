package main

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"net/url"
	"os"
	"strings"
	"sync"

	"k8s.io/client-go/tools/remotecommand"
)

// ended is what one of many sessions ended with.
type ended struct {
	URL  string `json:"url"`
	Text string `json:"text"`
	outcome
}

// stopper ends a session when the first output comes.
type stopper struct {
	bytes.Buffer
	stop context.CancelFunc
}

func (s *stopper) Write(data []byte) (int, error) {
	if s.stop != nil {
		s.stop()
	}
	return s.Buffer.Write(data)
}

// many runs a session for each line `URL` of standard input at once; that of a line `URL leave` is left when its first
// output comes. It says a line of JSON when one ends.
func many(arguments []string) error {
	way := transport{}
	set := flag.NewFlagSet("many", flag.ContinueOnError)
	way.flags(set)
	if err := set.Parse(arguments); err != nil {
		return err
	}
	var all sync.WaitGroup
	var speaking sync.Mutex
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		address, leave, _ := strings.Cut(lines.Text(), " ")
		target, err := url.Parse(address)
		if err != nil {
			return err
		}
		all.Go(func() {
			one := ended{URL: address}
			one.run(way, target, leave == "leave")
			speaking.Lock()
			defer speaking.Unlock()
			_ = say(one)
		})
	}
	all.Wait()
	return lines.Err()
}

func (e *ended) run(way transport, target *url.URL, leave bool) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	text := &stopper{}
	if leave {
		text.stop = cancel
	}
	e.Stdout = newOutput(text)
	options := remotecommand.StreamOptions{Stdout: e.Stdout}
	if err := stream(ctx, way, target, options, &e.outcome); err != nil {
		e.Code, e.Error = -1, err.Error()
	}
	e.Text = text.String()
}
