package devstack

import (
	"context"
	"fmt"
	"net"
	"strconv"
)

const loopback = "127.0.0.1"

// FreePort returns a TCP port that nobody listened on at 127.0.0.1 a moment
// ago. It is not reserved: whoever uses it must be ready to find it taken.
func FreePort() (int, error) {
	listener, err := listen(0)
	if err != nil {
		return 0, fmt.Errorf("look for a free port: %w", err)
	}
	defer func() { _ = listener.Close() }()
	address, ok := listener.Addr().(*net.TCPAddr)
	if !ok {
		panic("unreachable: a TCP listener has a TCP address")
	}
	return address.Port, nil
}

// choosePort returns the preferred port if it is free, and any free one
// otherwise, about which it gives notice. 0 prefers none.
func choosePort(preferred int, server string, isFree func(int) bool, notice func(string)) (int, error) {
	if preferred != 0 && isFree(preferred) {
		return preferred, nil
	}
	port, err := FreePort()
	if err != nil {
		return 0, err
	}
	if preferred != 0 {
		notice(fmt.Sprintf("port %d is taken: %s listens on %d instead", preferred, server, port))
	}
	return port, nil
}

func isPortFree(port int) bool {
	listener, err := listen(port)
	if err != nil {
		return false
	}
	_ = listener.Close()
	return true
}

func listen(port int) (net.Listener, error) {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp",
		net.JoinHostPort(loopback, strconv.Itoa(port)))
	if err != nil {
		return nil, fmt.Errorf("listen on port %d: %w", port, err)
	}
	return listener, nil
}

func validatePort(port int) error {
	if port < 0 || port > 65535 {
		return fmt.Errorf("port must be from 0 (any) to 65535, got %d", port)
	}
	return nil
}
