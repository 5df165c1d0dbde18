package worker_test

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/worker"
)

// moody is how the tasks of a strict agent end in the sweeps: every seventh fails at its first two attempts, every
// hundredth for good.
func moody(a *worker.Attempt) worker.Result {
	o, err := task.ParseOrigin(string(a.Record.Value))
	switch {
	case err != nil:
		return worker.Result{Outcome: task.Failed, Class: task.ClassPermanent, Message: err.Error()}
	case o.Offset%100 == 99:
		return worker.Result{Outcome: task.Failed, Class: task.ClassInvalidInput, Message: "never"}
	case o.Offset%7 == 3 && a.Number < 3:
		return worker.Result{Outcome: task.Failed, Class: task.ClassNetwork, Message: "not yet"}
	}
	return worker.Result{Outcome: task.Completed, Value: []byte("1")}
}

// inOrder checks what was started: once a task of a key has begun, no earlier one of it begins.
func (s *sweep) inOrder() {
	s.t.Helper()
	f, err := os.Open(s.starts)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	last, retried := map[int64]int64{}, 0
	for sc := bufio.NewScanner(f); sc.Scan(); {
		o, err := task.ParseOrigin(strings.Fields(sc.Text())[0])
		if err != nil {
			s.t.Fatal(err)
		}
		k := o.Offset % int64(s.keys)
		switch before, ok := last[k]; {
		case ok && o.Offset < before:
			s.t.Errorf("task %d of key %d begins after task %d", o.Offset, k, before)
		case ok && o.Offset == before:
			retried++
		case ok && o.Offset > before+int64(s.keys):
			s.t.Errorf("task %d of key %d begins right after task %d", o.Offset, k, before)
		}
		last[k] = o.Offset
	}
	s.t.Logf("%d attempts were second ones or later", retried)
}

// With ordering strict a key's tasks stay in order though the worker is killed over and over, and its failed tasks run
// again in place: none is lost, none is finished twice, none runs before its turn.
func TestSweepStrictKill(t *testing.T) {
	t.Setenv("REEVE_TEST_STRICT", "1")
	s := newSweep(t)
	s.keys = 60
	kills := rounds(4)
	n := (kills + 1) * 900
	s.publish(n)
	c := s.start("a")
	for i := range kills {
		s.await((i+1)*800, patience)
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = c.Wait() // it was killed
		if i%2 == 0 {
			c = s.start("a")
		} else {
			c = s.start(fmt.Sprint("b", i)) // its successor waits for the session to end
		}
	}
	s.await(n, patience)
	stop(t, c)
	s.verify(n)
	s.inOrder()
	s.mu.Lock()
	defer s.mu.Unlock()
	for origin, h := range s.headers {
		o, err := task.ParseOrigin(origin)
		if err != nil {
			t.Fatal(err)
		}
		if dead := h[task.HeaderSettled] == "dlq"; dead != (o.Offset%100 == 99) {
			t.Errorf("%s: %s after %s attempts", origin, h[task.HeaderSettled], h[task.HeaderAttempt])
		}
	}
}
