package testkit

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
)

// FreePort returns a port of 127.0.0.1 that nobody listens on, for who binds it
// later. It is none of those that ":0" gives: those are other tests' the next
// moment.
func FreePort() (int, error) {
	first, end := 10_000, ephemeralPorts()
	for range 100 {
		port := first + rand.IntN(end-first)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return port, l.Close()
		}
	}
	return 0, errors.New("no port is free")
}

// ephemeralPorts returns the first port that ":0" gives, and 30,000 where that
// is not known or leaves too few.
func ephemeralPorts() int {
	const unknown, few = 30_000, 12_000
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return unknown
	}
	var first int
	if _, err := fmt.Sscan(string(text), &first); err != nil || first < few {
		return unknown
	}
	return first
}
