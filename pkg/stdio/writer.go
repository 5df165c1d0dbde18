package stdio

import (
	"errors"
	"io"
	"sync"
	"time"
)

// A Message writes itself when its turn comes. Append may leave dst as it is: a message that was withdrawn. It is called
// from the writer's goroutine.
type Message interface {
	Append(dst []byte) []byte
}

// Text is a message of fixed bytes, with its line end.
type Text string

// Append appends the text.
func (t Text) Append(dst []byte) []byte { return append(dst, t...) }

// Errors of Send.
var (
	ErrQueueFull = errors.New("the agent's input queue is full")
	ErrClosed    = errors.New("the agent's input is closed")
)

const (
	batchBytes = 64 << 10 // about what a pipe takes at once
	keepBytes  = 1 << 20  // a larger buffer isn't kept
)

// deadliner is what a Writer writes to: a pipe.
type deadliner interface {
	io.WriteCloser
	SetWriteDeadline(time.Time) error
}

// Writer sends messages to an agent: a bounded queue, and one goroutine that writes as many as there are at once. An agent
// that doesn't read holds up nobody but itself.
type Writer struct {
	pipe  deadliner
	limit int
	wake  chan struct{}
	done  chan struct{}

	mu     sync.Mutex
	queue  []Message
	closed bool // no more messages; what is queued is still written
}

// NewWriter writes to an agent's standard input, which it closes in the end. limit bounds the messages that wait.
func NewWriter(pipe deadliner, limit int) *Writer {
	w := &Writer{pipe: pipe, limit: limit, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go w.run()
	return w
}

// Send queues messages, all or none, and never blocks.
func (w *Writer) Send(ms ...Message) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return ErrClosed
	}
	if len(w.queue)+len(ms) > w.limit {
		return ErrQueueFull
	}
	w.queue = append(w.queue, ms...)
	w.signal()
	return nil
}

// Close lets what is queued be written and closes the agent's input then. It doesn't wait.
func (w *Writer) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.signal()
}

// Abort closes the agent's input at once, drops what is queued and waits for the writer to end.
func (w *Writer) Abort() {
	w.mu.Lock()
	w.closed = true
	w.queue = nil
	_ = w.pipe.SetWriteDeadline(time.Now()) // it stays in force for every later write
	w.signal()
	w.mu.Unlock()
	<-w.done
}

func (w *Writer) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *Writer) run() {
	defer close(w.done)
	defer func() { _ = w.pipe.Close() }()
	var buf []byte
	for range w.wake {
		for {
			ms, more := w.take()
			if len(ms) == 0 {
				if !more {
					return
				}
				break
			}
			var err error
			if buf, err = w.send(ms, buf); err != nil {
				w.fail()
				return
			}
		}
	}
}

// take takes everything queued; more is false when nothing will come any more.
func (w *Writer) take() (ms []Message, more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ms, w.queue = w.queue, nil
	return ms, !w.closed
}

// send encodes and writes messages, a good batch at a time.
func (w *Writer) send(ms []Message, buf []byte) ([]byte, error) {
	buf = buf[:0]
	for i, m := range ms {
		buf = m.Append(buf)
		if len(buf) < batchBytes && i+1 < len(ms) {
			continue
		}
		if _, err := w.pipe.Write(buf); err != nil { // it waits however long the agent takes to read, until Abort
			return nil, err
		}
		buf = buf[:0]
	}
	if cap(buf) > keepBytes {
		buf = nil
	}
	return buf, nil
}

func (w *Writer) fail() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.queue = nil
}
