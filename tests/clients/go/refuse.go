package main

import (
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
)

// refusals counts WebSockets that were refused.
type refusals struct {
	atomic.Int32
}

// refuseWebSockets starts a proxy in front of the server of a URL which lets everything through but WebSockets, as an
// old proxy on the way would; gives the URL that leads through it.
func refuseWebSockets(target *url.URL, refused *refusals) (*url.URL, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: target.Scheme, Host: target.Host})
	handler := func(response http.ResponseWriter, request *http.Request) {
		if strings.EqualFold(request.Header.Get("Upgrade"), "websocket") {
			refused.Add(1)
			http.Error(response, "no WebSocket here", http.StatusForbidden)
			return
		}
		proxy.ServeHTTP(response, request)
	}
	// It ends with the process.
	go func() { _ = http.Serve(listener, http.HandlerFunc(handler)) }()
	through := *target
	through.Host = listener.Addr().String()
	return &through, nil
}
