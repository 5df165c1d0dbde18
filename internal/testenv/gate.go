package testenv

import (
	"context"
	"net"
	"sync"
)

// A Gate relays TCP connections to an address, byte by byte, and can be shut as a network is cut: nothing gets through
// any more, and nobody is told. What was on its way arrives when it is opened again, however late.
type Gate struct {
	// Address is where it listens.
	Address string

	target string
	ln     net.Listener
	life   context.Context
	end    context.CancelFunc
	done   sync.WaitGroup

	mu   sync.Mutex
	open chan struct{} // closed while it is open
}

// newGate opens a gate to target.
func newGate(target string) (*Gate, error) {
	ln, err := listen()
	if err != nil {
		return nil, err
	}
	g := &Gate{Address: ln.Addr().String(), target: target, ln: ln, open: make(chan struct{})}
	close(g.open)
	g.life, g.end = context.WithCancel(context.Background())
	g.done.Go(g.accept)
	return g, nil
}

// Shut lets nothing through, of connections that stand and of new ones.
func (g *Gate) Shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = make(chan struct{})
}

// Open lets everything through again.
func (g *Gate) Open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.open)
}

// close ends the gate and its connections.
func (g *Gate) close() {
	g.end()
	_ = g.ln.Close() // accept ends
	g.done.Wait()
}

// pass waits until the gate is open, and reports false where it ended first.
func (g *Gate) pass() bool {
	g.mu.Lock()
	open := g.open
	g.mu.Unlock()
	select {
	case <-open:
		return g.life.Err() == nil
	case <-g.life.Done():
		return false
	}
}

func (g *Gate) accept() {
	for {
		c, err := g.ln.Accept()
		if err != nil {
			return
		}
		g.done.Go(func() { g.relay(c) })
	}
}

// relay joins a connection with one to the target until either ends.
func (g *Gate) relay(client net.Conn) {
	defer client.Close()
	if !g.pass() {
		return
	}
	server, err := net.Dial("tcp", g.target)
	if err != nil {
		return // the target is down, as the client learns by this end
	}
	defer server.Close()
	defer context.AfterFunc(g.life, func() { _, _ = client.Close(), server.Close() })()
	var both sync.WaitGroup
	for from, to := range map[net.Conn]net.Conn{client: server, server: client} {
		both.Go(func() {
			defer func() { _, _ = from.Close(), to.Close() }() // half a connection is of no use to Kafka's protocol
			g.copy(to, from)
		})
	}
	both.Wait()
}

func (g *Gate) copy(to, from net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if !g.pass() {
			return
		}
		if n > 0 {
			if _, werr := to.Write(buf[:n]); werr != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
