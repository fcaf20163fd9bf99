package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"

	nodeproxy "k8s.io/apimachinery/pkg/util/proxy"
	serverproxy "k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// refusals counts WebSockets that were refused.
type refusals struct {
	atomic.Int32
}

// refuseWebSockets starts a proxy in front of the server of a URL which lets everything through but WebSockets, as an
// old proxy on the way would; gives the URL that leads through it.
func refuseWebSockets(target *url.URL, refused *refusals) (*url.URL, error) {
	behind := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: target.Scheme, Host: target.Host})
	return serve(target, func(response http.ResponseWriter, request *http.Request) {
		if strings.EqualFold(request.Header.Get("Upgrade"), "websocket") {
			refused.Add(1)
			http.Error(response, "no WebSocket here", http.StatusForbidden)
			return
		}
		behind.ServeHTTP(response, request)
	})
}

// through gives the URL that leads to another one the way that sessions have in a cluster: through a kubelet, or through
// an API server and a kubelet. Their handlers are Kubernetes' own, put together as those programs do.
func (t *transport) through(target *url.URL, options *remotecommand.StreamOptions) (*url.URL, error) {
	switch t.path {
	case "":
		return target, nil
	case "kubelet":
		return serve(target, passOn(target).ServeHTTP)
	case "apiserver":
		kubelet, err := serve(target, passOn(target).ServeHTTP)
		if err != nil {
			return nil, err
		}
		onwards := passOn(kubelet)
		// Clients of today speak WebSocket, and the node SPDY.
		handler := serverproxy.NewTranslatingHandler(
			onwards, serverproxy.NewTunnelingHandler(onwards), wsstream.IsWebSocketRequestWithTunnelingProtocol,
		)
		if options != nil {
			wanted := serverproxy.Options{
				Stdin: options.Stdin != nil, Stdout: options.Stdout != nil, Stderr: options.Stderr != nil, Tty: options.Tty,
			}
			translator := serverproxy.NewStreamTranslatorHandler(kubelet, nil, 0, wanted)
			handler = serverproxy.NewTranslatingHandler(
				onwards, translator, wsstream.IsWebSocketRequestWithStreamCloseProtocol,
			)
		}
		return serve(target, handler.ServeHTTP)
	default:
		return nil, fmt.Errorf("no way leads through %q", t.path)
	}
}

// responder tells the client what went wrong on the way.
type responder struct{}

func (responder) Error(response http.ResponseWriter, _ *http.Request, err error) {
	http.Error(response, err.Error(), http.StatusBadGateway)
}

// passOn is what the kubelet does with a session.
func passOn(target *url.URL) http.Handler {
	return nodeproxy.NewUpgradeAwareHandler(target, nil, false, true, responder{})
}

// serve listens on loopback until the process ends; gives the URL there with the path of the target.
func serve(target *url.URL, handler http.HandlerFunc) (*url.URL, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	go func() { _ = http.Serve(listener, handler) }()
	here := *target
	here.Scheme, here.Host = "http", listener.Addr().String()
	return &here, nil
}
