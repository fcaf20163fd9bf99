// Command streamclient drives a streaming URL of the Container Runtime Interface with Kubernetes' own client library.
//
//	streamclient session [flags] URL   exec or attach: standard streams are those of this process
//	streamclient many [flags]          one session for each line of standard input, many at once
//	streamclient forward [flags] URL   listens on loopback ports until standard input ends
//
// What a session ended with is written as JSON. Nothing of the library is changed: what works here works for kubectl.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/url"
	"os"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// transport is what the flags say of the way to the server.
type transport struct {
	name      string
	protocols string
	path      string
	tls       rest.TLSClientConfig
}

func (t *transport) flags(set *flag.FlagSet) {
	set.StringVar(&t.name, "transport", "spdy", "spdy, websocket, or fallback: WebSocket, which is refused, then SPDY")
	set.StringVar(&t.protocols, "protocols", "", "offer only these, separated by commas")
	set.StringVar(&t.path, "through", "", "what is on the way: a kubelet, or an apiserver with a kubelet behind it")
	set.StringVar(&t.tls.CAFile, "ca", "", "file with the authority of the server")
	set.StringVar(&t.tls.CertFile, "cert", "", "file with a certificate of the client")
	set.StringVar(&t.tls.KeyFile, "key", "", "file with the key of that")
}

func (t *transport) list() []string {
	if t.protocols == "" {
		return nil
	}
	return strings.Split(t.protocols, ",")
}

func (t *transport) config() *rest.Config {
	return &rest.Config{TLSClientConfig: t.tls}
}

func main() {
	commands := map[string]func([]string) error{"session": session, "many": many, "forward": forward}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: streamclient session|many|forward [flags] [URL]")
		os.Exit(2)
	}
	// Standard error is that of a command; what the library has to say is in the outcome.
	klog.SetLogger(klog.Logger{})
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "streamclient: %v\n", err)
		os.Exit(1)
	}
}

// parse reads the flags and the one URL behind them.
func parse(set *flag.FlagSet, arguments []string) (*url.URL, error) {
	if err := set.Parse(arguments); err != nil {
		return nil, err
	}
	if set.NArg() != 1 {
		return nil, fmt.Errorf("one URL is wanted, %d were given", set.NArg())
	}
	return url.Parse(set.Arg(0))
}

// say writes one line of JSON to standard output.
func say(value any) error {
	return json.NewEncoder(os.Stdout).Encode(value)
}
