package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash"
	"io"
	"net/url"
	"os"

	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
	"k8s.io/streaming/pkg/httpstream"
)

// outcome is what a session ended with.
type outcome struct {
	// Code is what the command ended with; -1 where no code came.
	Code    int     `json:"code"`
	Error   string  `json:"error"`
	Refused int     `json:"refused"`
	Stdout  *output `json:"stdout,omitempty"`
	Stderr  *output `json:"stderr,omitempty"`
}

// output counts and hashes what it is given, and passes it on if somebody wants it.
type output struct {
	Bytes  int64  `json:"bytes"`
	Sha256 string `json:"sha256"`
	hash   hash.Hash
	next   io.Writer
}

func newOutput(next io.Writer) *output {
	return &output{hash: sha256.New(), next: next}
}

func (o *output) Write(data []byte) (int, error) {
	o.Bytes += int64(len(data))
	o.hash.Write(data)
	if o.next == nil {
		return len(data), nil
	}
	return o.next.Write(data)
}

func (o *output) finish() *output {
	if o != nil {
		o.Sha256 = hex.EncodeToString(o.hash.Sum(nil))
	}
	return o
}

// sizes are those of a terminal: each line of a file, which may be a FIFO, is `COLUMNS ROWS`.
type sizes struct {
	lines *bufio.Scanner
}

func (s sizes) Next() *remotecommand.TerminalSize {
	if !s.lines.Scan() {
		return nil
	}
	size := remotecommand.TerminalSize{}
	if _, err := fmt.Sscanf(s.lines.Text(), "%d %d", &size.Width, &size.Height); err != nil {
		return nil
	}
	return &size
}

func session(arguments []string) error {
	way := transport{}
	set := flag.NewFlagSet("session", flag.ContinueOnError)
	way.flags(set)
	stdin := set.Bool("stdin", false, "pass standard input on")
	stdout := set.Bool("stdout", true, "ask for the output")
	stderr := set.Bool("stderr", true, "ask for the errors; without meaning on a terminal")
	tty := set.Bool("tty", false, "the session has a terminal")
	count := set.Bool("count", false, "count and hash the output, do not show it")
	sizesFrom := set.String("sizes", "", "file from which the sizes of the terminal are read, a line `COLUMNS ROWS` each")
	result := set.String("result", "", "file into which the outcome is written")
	target, err := parse(set, arguments)
	if err != nil {
		return err
	}
	options := remotecommand.StreamOptions{Tty: *tty}
	ended := outcome{}
	if *stdin {
		options.Stdin = os.Stdin
	}
	shown := func(to io.Writer) io.Writer {
		if *count {
			return nil
		}
		return to
	}
	if *stdout {
		ended.Stdout = newOutput(shown(os.Stdout))
		options.Stdout = ended.Stdout
	}
	if *stderr && !*tty {
		ended.Stderr = newOutput(shown(os.Stderr))
		options.Stderr = ended.Stderr
	}
	if *sizesFrom != "" {
		file, err := os.Open(*sizesFrom)
		if err != nil {
			return err
		}
		options.TerminalSizeQueue = sizes{bufio.NewScanner(file)}
	}
	if err := stream(context.Background(), way, target, options, &ended); err != nil {
		return err
	}
	if *result == "" {
		return nil
	}
	text, err := json.Marshal(ended)
	if err != nil {
		return err
	}
	// A rename: whoever sees the file sees all of it.
	if err := os.WriteFile(*result+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(*result+".new", *result)
}

// stream runs one session to its end. That it ends with an error is an outcome, too.
func stream(
	ctx context.Context, way transport, target *url.URL, options remotecommand.StreamOptions, ended *outcome,
) error {
	target, err := way.through(target, &options)
	if err != nil {
		return err
	}
	executor, refused, err := executorFor(way, target)
	if err != nil {
		return err
	}
	err = executor.StreamWithContext(ctx, options)
	ended.Refused = int(refused.Load())
	ended.Stdout.finish()
	ended.Stderr.finish()
	var code exec.CodeExitError
	switch {
	case err == nil:
	case errors.As(err, &code):
		ended.Code, ended.Error = code.Code, err.Error()
	default:
		ended.Code, ended.Error = -1, err.Error()
	}
	return nil
}

func executorFor(way transport, target *url.URL) (remotecommand.Executor, *refusals, error) {
	refused := &refusals{}
	switch way.name {
	case "spdy":
		executor, err := overSPDY(way, target)
		return executor, refused, err
	case "websocket":
		executor, err := overWebSocket(way, target)
		return executor, refused, err
	case "fallback":
		target, err := refuseWebSockets(target, refused)
		if err != nil {
			return nil, nil, err
		}
		first, err := overWebSocket(way, target)
		if err != nil {
			return nil, nil, err
		}
		second, err := overSPDY(way, target)
		if err != nil {
			return nil, nil, err
		}
		executor, err := remotecommand.NewFallbackExecutor(first, second, httpstream.IsUpgradeFailure)
		return executor, refused, err
	default:
		return nil, nil, fmt.Errorf("no transport is named %q", way.name)
	}
}

func overSPDY(way transport, target *url.URL) (remotecommand.Executor, error) {
	if way.list() == nil {
		return remotecommand.NewSPDYExecutor(way.config(), "POST", target)
	}
	wrapper, upgrader, err := spdy.RoundTripperFor(way.config())
	if err != nil {
		return nil, err
	}
	return remotecommand.NewSPDYExecutorForProtocols(wrapper, upgrader, "POST", target, way.list()...)
}

func overWebSocket(way transport, target *url.URL) (remotecommand.Executor, error) {
	if way.list() == nil {
		return remotecommand.NewWebSocketExecutor(way.config(), "GET", target.String())
	}
	return remotecommand.NewWebSocketExecutorForProtocols(way.config(), "GET", target.String(), way.list()...)
}
