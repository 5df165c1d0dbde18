// Command agent is the agent that the sweep runs: it works up to 20 ms on each task, fails the ones that ask for it, and
// writes down with wall-clock times when each attempt began and ended, so that the sweep can see what ran again.
//
// The log is one file a process, in the directory SWEEP_LOG. A line is written by one call before the work begins, so
// a kill loses none: "S <task> <attempt> <nanoseconds>", and "E …" at the end.
//
// Content with "once" fails until its failure counts: until whoever follows the outcomes has put down a file "retried-<seq>"
// in that directory. A kill between the failure and its transaction repeats the attempt, and it has to fail again.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

func main() {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type request struct {
	ID      json.RawMessage `json:"id"`
	Type    string          `json:"type"`
	Payload struct {
		TaskID  string `json:"task_id"`
		Attempt int    `json:"delivery_attempts"`
		Content struct {
			Seq    int  `json:"seq"`
			WorkUS int  `json:"work_us"`
			Fails  int  `json:"fails"`  // attempts that fail before one succeeds
			Once   bool `json:"once"`   // fails until a failure of it was settled
			Poison bool `json:"poison"` // fails for good
			Die    bool `json:"die"`    // ends the process
		} `json:"content"`
	} `json:"payload"`
}

// agent answers requests as their work ends, in any order.
type agent struct {
	log *os.File
	mu  sync.Mutex // over out
	out *bufio.Writer
}

func serve() error {
	name := fmt.Sprintf("%d-%d.log", os.Getpid(), time.Now().UnixNano())
	log, err := os.OpenFile(filepath.Join(os.Getenv("SWEEP_LOG"), name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	a := &agent{log: log, out: bufio.NewWriter(os.Stdout)}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var r request
		if err := json.Unmarshal(in.Bytes(), &r); err != nil {
			return fmt.Errorf("read request: %w", err)
		}
		switch r.Type {
		case "task":
			a.begin(r)
		case "ping":
			a.answer(r.ID, `"status":"ok","result":{"type":"pong","health":{}}`)
		case "shutdown":
			a.answer(json.RawMessage("null"), `"status":"ok","result":{"message":"bye"}`)
			return nil
		default:
			a.answer(r.ID, `"status":"error","error":"unknown type"`)
		}
	}
	return in.Err()
}

// begin writes the attempt down and comes back to it when its time is over.
func (a *agent) begin(r request) {
	a.note("S", r)
	time.AfterFunc(time.Duration(r.Payload.Content.WorkUS)*time.Microsecond, func() {
		c := r.Payload.Content
		if c.Die {
			os.Exit(3)
		}
		again := r.Payload.Attempt <= c.Fails || c.Once && !a.retried(r)
		a.note("E", r)
		switch {
		case c.Poison:
			a.answer(r.ID, `"status":"error","error":"poison","error_class":"permanent"`)
		case again:
			a.answer(r.ID, `"status":"error","error":"not yet","error_class":"network"`)
		default:
			a.answer(r.ID, `"status":"ok","result":{}`)
		}
	})
}

// retried reports whether a failure of the task was settled. On a later attempt it was, as a rule, and the follower may
// only be late.
func (a *agent) retried(r request) bool {
	path := filepath.Join(filepath.Dir(a.log.Name()), fmt.Sprintf("retried-%d", r.Payload.Content.Seq))
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for tries := 0; ; tries++ {
		if _, err := os.Stat(path); err == nil {
			return true
		}
		if r.Payload.Attempt == 1 || tries == 60 {
			return false
		}
		<-tick.C
	}
}

func (a *agent) note(kind string, r request) {
	line := make([]byte, 0, 96)
	line = append(append(line, kind...), ' ')
	line = append(append(line, r.Payload.TaskID...), ' ')
	line = append(strconv.AppendInt(line, int64(r.Payload.Attempt), 10), ' ')
	line = append(strconv.AppendInt(line, time.Now().UnixNano(), 10), '\n')
	if _, err := a.log.Write(line); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) // without its log the sweep would take silence for proof
	}
}

func (a *agent) answer(id json.RawMessage, rest string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, _ = fmt.Fprintf(a.out, `{"id":%s,%s}`+"\n", id, rest)
	_ = a.out.Flush() // a reader that is gone ends this process by its own means
}
