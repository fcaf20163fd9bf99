package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
)

// event is a line that says what happened to the forwarding.
type event struct {
	// Ports are those on loopback, in the order of the flag.
	Ports   []uint16 `json:"ports,omitempty"`
	Error   string   `json:"error,omitempty"`
	Ended   bool     `json:"ended,omitempty"`
	Refused int      `json:"refused,omitempty"`
}

// forward listens for the ports of a pod, says where, says each error, and ends when standard input does.
func forward(arguments []string) error {
	way := transport{}
	set := flag.NewFlagSet("forward", flag.ContinueOnError)
	way.flags(set)
	ports := set.String("ports", "", "the pod's ports, separated by commas")
	target, err := parse(set, arguments)
	if err != nil {
		return err
	}
	runtime.ErrorHandlers = []runtime.ErrorHandler{
		func(_ context.Context, err error, text string, _ ...any) {
			_ = say(event{Error: fmt.Sprintf("%s: %v", text, err)})
		},
	}
	target, err = way.through(target, nil)
	if err != nil {
		return err
	}
	dialer, refused, err := dialerFor(way, target)
	if err != nil {
		return err
	}
	var wanted []string
	for _, port := range strings.Split(*ports, ",") {
		wanted = append(wanted, "0:"+port)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ready := make(chan struct{})
	addresses := []string{"127.0.0.1"}
	forwarder, err := portforward.NewOnAddressesForStreamingWithContext(
		ctx, dialer, addresses, wanted, ready, io.Discard, os.Stderr,
	)
	if err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	done := make(chan error, 1)
	go func() { done <- forwarder.ForwardPorts() }()
	select {
	case <-ready:
		found, err := forwarder.GetPorts()
		if err != nil {
			return err
		}
		start := event{Refused: int(refused.Load())}
		for _, port := range found {
			start.Ports = append(start.Ports, port.Local)
		}
		if err := say(start); err != nil {
			return err
		}
		err = <-done
		return finish(err)
	case err := <-done:
		return finish(err)
	}
}

func finish(err error) error {
	last := event{Ended: true}
	if err != nil {
		last.Error = err.Error()
	}
	return say(last)
}

func dialerFor(way transport, target *url.URL) (httpstream.Dialer, *refusals, error) {
	refused := &refusals{}
	if way.name == "fallback" {
		through, err := refuseWebSockets(target, refused)
		if err != nil {
			return nil, nil, err
		}
		target = through
	}
	wrapper, upgrader, err := spdy.RoundTripperFor(way.config())
	if err != nil {
		return nil, nil, err
	}
	plain := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: wrapper}, "POST", target)
	tunnel, err := portforward.NewSPDYOverWebsocketDialerForStreaming(target, way.config())
	if err != nil {
		return nil, nil, err
	}
	switch way.name {
	case "spdy":
		return plain, refused, nil
	case "websocket":
		return tunnel, refused, nil
	case "fallback":
		return portforward.NewFallbackDialerForStreaming(tunnel, plain, httpstream.IsUpgradeFailure), refused, nil
	default:
		return nil, nil, fmt.Errorf("no transport is named %q", way.name)
	}
}
