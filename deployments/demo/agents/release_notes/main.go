// Release-notes is an agent that speaks Reeve's stdio protocol by hand, with nothing but the standard library: one JSON
// object a line comes in on standard input, one goes out on standard output. It shows all that a program in any
// language has to do.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

func main() {
	if err := serve(os.Stdin, os.Stdout, newAgent(os.Getenv("FAIL_FIRST_TRY"))); err != nil {
		fmt.Fprintln(os.Stderr, "release-notes:", err)
		os.Exit(1)
	}
}

// request is a line from Reeve.
type request struct {
	ID      *string         `json:"id"`
	Type    string          `json:"type"`
	Payload json.RawMessage `json:"payload"`
}

// answer is a line to Reeve. ID repeats the request's, so answers may come in any order.
type answer struct {
	ID         *string `json:"id"`
	Status     string  `json:"status"`
	Result     any     `json:"result,omitempty"`
	Error      string  `json:"error,omitempty"`
	ErrorClass string  `json:"error_class,omitempty"`
}

// serve answers requests until it is told to shut down or its input ends.
func serve(in io.Reader, out io.Writer, a *agent) error {
	lines := bufio.NewReader(in) // a Scanner would give up on a line that is longer than its buffer
	answers := json.NewEncoder(out)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read request: %w", err)
		}
		var r request
		if err := json.Unmarshal(line, &r); err != nil {
			r = request{Type: "a line that is no JSON object"}
		}
		if err := answers.Encode(a.answer(r)); err != nil {
			return fmt.Errorf("write answer: %w", err)
		}
		if r.Type == "shutdown" {
			return nil
		}
	}
}

// agent counts what it did, for the health figures in its pongs.
type agent struct {
	started      time.Time
	total        int
	failed       int
	failFirstTry []string // endings of the delivery ids that fail on their first try
}

func newAgent(failFirstTry string) *agent {
	return &agent{started: time.Now(), failFirstTry: strings.Fields(failFirstTry)}
}

func (a *agent) answer(r request) answer {
	switch r.Type {
	case "task":
		return a.task(r)
	case "ping":
		return answer{ID: r.ID, Status: "ok", Result: map[string]any{"type": "pong", "health": a.health()}}
	case "shutdown":
		return answer{ID: r.ID, Status: "ok", Result: map[string]string{"message": "shutdown acknowledged"}}
	default:
		return answer{ID: r.ID, Status: "error", Error: "unknown message type: " + r.Type}
	}
}

func (a *agent) health() map[string]any {
	return map[string]any{
		"process_id":      os.Getpid(),
		"uptime_seconds":  time.Since(a.started).Seconds(),
		"total_requests":  a.total,
		"failed_requests": a.failed,
	}
}

func (a *agent) task(r request) answer {
	a.total++
	notes, class, err := a.run(r.Payload)
	if err != nil {
		a.failed++
		return answer{ID: r.ID, Status: "error", Error: err.Error(), ErrorClass: class}
	}
	return answer{ID: r.ID, Status: "ok", Result: notes}
}

// task is what this agent reads of a task's payload.
type task struct {
	ID       string          `json:"task_id"`
	Attempts int             `json:"delivery_attempts"`
	Content  json.RawMessage `json:"content"`
}

// run writes the notes. Where it fails, class says whether another try may help.
func (a *agent) run(payload []byte) (n *notes, class string, err error) {
	var t task
	var d delivery
	if err := json.Unmarshal(payload, &t); err != nil {
		return nil, "invalid_input", fmt.Errorf("read task: %w", err)
	}
	if err := json.Unmarshal(t.Content, &d); err != nil || d.Release.TagName == "" {
		return nil, "invalid_input", fmt.Errorf("the event is no GitHub release delivery: expected an object with a release")
	}
	if t.Attempts == 1 && a.failsFirst(t.ID) {
		return nil, "network", fmt.Errorf("compare %s: connection reset by peer (made up: the demo has no network)", d.Release.TagName)
	}
	return write(d), "", nil
}

func (a *agent) failsFirst(id string) bool {
	for _, ending := range a.failFirstTry {
		if strings.HasSuffix(id, ending) {
			return true
		}
	}
	return false
}
