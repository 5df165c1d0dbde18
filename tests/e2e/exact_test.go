package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/tests/harness"

	"github.com/reeve-run/reeve/internal/testenv"
	"github.com/reeve-run/reeve/pkg/task"
)

// Of 2,000 events 100 fail once and 10 always, and half-way all services are stopped, or killed, and started again: the
// figures are exact to the last one, whoever is asked.
func TestFiguresAreExactOverARestartOfEverything(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*testing.T, ...*harness.Process){"stopped": stop, "killed": kill} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			figuresAreExact(t, system(t, testenv.Kafka(t), testenv.Prefix(t)), end)
		})
	}
}

func kill(t *testing.T, ps ...*harness.Process) {
	t.Helper()
	for _, p := range ps {
		if err := p.End(); err != nil {
			t.Error(err)
		}
	}
}

// What is published, and what becomes of it.
const (
	allEvents  = 2000
	failOnce   = 100
	failAlways = 10
	maxRetries = 3
)

func exactFigures() map[string]int {
	return map[string]int{
		"received": allEvents, "completed": allEvents - failAlways, "dead_lettered": failAlways, "retried": failAlways*maxRetries + failOnce,
		"failed": 0, "rejected": 0, "cancelled": 0, "discarded": 0,
	}
}

func figuresAreExact(t *testing.T, sys *harness.System, end func(*testing.T, ...*harness.Process)) {
	topic := sys.Prefix + "-in"
	if err := harness.CreateTopic(t.Context(), sys.Brokers, topic, 4, nil); err != nil {
		t.Fatal(err)
	}
	services := []string{"registry.r0", "dispatcher.d0", "supervisor.s0"}
	ps := start(t, sys, services...)
	b := newBooks(t, sys, topic)
	registerWorker(t, sys, topic, b.dir)
	published := make(chan error, 1)
	go func() { published <- publishSlowly(t.Context(), sys, topic) }()

	eventually(t, time.Minute, func() string { return atLeast(b.finished(), allEvents/2) })
	end(t, ps...)
	start(t, sys, services...)
	if err := <-published; err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, func() string { return differ(b.finished(), allEvents) })
	eventually(t, time.Minute, func() string { return compare("REST", restFigures(t, sys, topic)) })
	for name, got := range map[string]map[string]int{"/metrics": prometheusFigures(t, sys, topic), "reeve metrics": cliFigures(t, sys, topic), "the topics": b.figures(t)} {
		if wrong := compare(name, got); wrong != "" {
			t.Error(wrong)
		}
	}
	if n := deadLetters(t, sys, topic); n != failAlways {
		t.Errorf("%d tasks stand on the DLQ, not %d", n, failAlways)
	}
}

func atLeast(got, want int) string {
	if got < want {
		return fmt.Sprintf("%d, not yet %d", got, want)
	}
	return ""
}

// registerWorker registers the sweep's agent, which notes its runs in dir.
func registerWorker(t *testing.T, sys *harness.System, topic, dir string) {
	t.Helper()
	home := filepath.Join(sys.AgentsDir(), "worker")
	if err := errors.Join(os.MkdirAll(home, 0o755), os.Link(filepath.Join(binaries.Dir(t), "agent"), filepath.Join(home, "agent"))); err != nil {
		t.Fatal(err)
	}
	err := sys.Register(t.Context(), map[string]any{
		"topic": topic, "name": "worker", "runtime": "command", "dir": "worker", "command": []string{"./agent"},
		"env":    map[string]string{"SWEEP_LOG": dir},
		"config": map[string]any{"max_retries": maxRetries, "retry_delays": []string{"1s"}, "concurrency": 16},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// publishSlowly publishes for about five seconds, so that every service is at work when it is struck.
func publishSlowly(ctx context.Context, sys *harness.System, topic string) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(sys.Brokers...), kgo.DefaultProduceTopic(topic))
	if err != nil {
		return err
	}
	defer cl.Close()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for next := 0; next < allEvents; {
		var batch []*kgo.Record
		for range 10 {
			batch = append(batch, &kgo.Record{Key: fmt.Append(nil, next%300), Value: failing(next)})
			next++
		}
		if err := cl.ProduceSync(ctx, batch...).FirstErr(); err != nil {
			return err
		}
		<-tick.C
	}
	return nil
}

// failing is an event by its number: of twenty one fails once, of two hundred one always.
func failing(i int) []byte {
	switch {
	case i%(allEvents/failAlways) == 99:
		return fmt.Appendf(nil, `{"seq":%d,"work_us":15000,"fails":1000}`, i)
	case i%(allEvents/failOnce) == 7:
		return fmt.Appendf(nil, `{"seq":%d,"work_us":15000,"once":true}`, i)
	}
	return fmt.Appendf(nil, `{"seq":%d,"work_us":15000}`, i)
}

// books are what the topics say, and tell the agent which failures count.
type books struct {
	dir, topic string

	mu       sync.Mutex
	seq      map[string]int // by the task's id
	retried  map[string]bool
	finals   map[string][]harness.Outcome
	retries  map[string]bool // by task and attempt
	repeated []string
}

func newBooks(t *testing.T, sys *harness.System, topic string) *books {
	t.Helper()
	b := &books{dir: t.TempDir(), topic: topic, seq: map[string]int{}, retried: map[string]bool{}, finals: map[string][]harness.Outcome{}, retries: map[string]bool{}}
	ctx, end := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- harness.Follow(ctx, sys.Brokers, []string{topic, sys.Names().Outcomes()}, func(r *kgo.Record) {
			if err := b.enter(r); err != nil {
				t.Error(err)
			}
		})
	}()
	t.Cleanup(func() {
		end()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return b
}

func (b *books) enter(r *kgo.Record) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.Topic == b.topic {
		var content struct{ Seq int }
		if err := json.Unmarshal(r.Value, &content); err != nil {
			return err
		}
		id := task.Origin{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset}.ID()
		b.seq[id] = content.Seq
		return b.mark(id)
	}
	o, err := harness.ParseOutcome(r)
	if err != nil {
		return err
	}
	if o.Settled == task.SettledRetry {
		attempt := fmt.Sprintf("%s attempt %d", o.Origin, o.Attempt)
		if b.retries[attempt] {
			b.repeated = append(b.repeated, attempt)
		}
		b.retries[attempt], b.retried[o.Origin] = true, true
	}
	if o.Final {
		b.finals[o.Origin] = append(b.finals[o.Origin], o)
	}
	return b.mark(o.Origin)
}

// mark tells the agent of a task's failure once it knows which event that is: the two topics come in any order.
func (b *books) mark(id string) error {
	seq, known := b.seq[id]
	if !known || !b.retried[id] {
		return nil
	}
	return os.WriteFile(filepath.Join(b.dir, fmt.Sprintf("retried-%d", seq)), nil, 0o644)
}

func (b *books) finished() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.finals)
}

// figures counts what stands on the topics.
func (b *books) figures(t *testing.T) map[string]int {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	got := map[string]int{"received": len(b.seq), "retried": len(b.retries)}
	for id, outcomes := range b.finals {
		if len(outcomes) != 1 {
			t.Errorf("%s was finished %d times", id, len(outcomes))
		}
		switch o := outcomes[0]; o.Settled {
		case task.SettledDone:
			got["completed"]++
		case task.SettledDLQ:
			got["dead_lettered"]++
		default:
			t.Errorf("%s is settled as %s", id, o.Settled)
		}
	}
	for _, attempt := range b.repeated {
		t.Errorf("%s was settled twice", attempt)
	}
	return got
}

// compare says which figure is wrong, "" if none is.
func compare(who string, got map[string]int) string {
	for name, n := range exactFigures() {
		if got[name] != n {
			return fmt.Sprintf("%s says %s is %d, not %d (%v)", who, name, got[name], n, got)
		}
	}
	return ""
}

func restFigures(t *testing.T, sys *harness.System, topic string) map[string]int {
	t.Helper()
	var m map[string]json.RawMessage
	call(t, sys, http.MethodGet, "/v1/agents/"+topic+"/worker/metrics", nil, &m)
	return integers(m)
}

// integers are the figures among an answer's fields.
func integers(fields map[string]json.RawMessage) map[string]int {
	got := map[string]int{}
	for name := range maps.Keys(exactFigures()) {
		n, err := strconv.Atoi(string(fields[name]))
		if err != nil {
			n = -1
		}
		got[name] = n
	}
	return got
}

// prometheusFigures sums up over the versions.
func prometheusFigures(t *testing.T, sys *harness.System, topic string) map[string]int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, sys.URL+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		series, value, _ := strings.Cut(lines.Text(), "} ")
		name, labels, _ := strings.Cut(series, "{")
		if !strings.HasPrefix(name, "reeve_tasks_") || !strings.Contains(labels, strconv.Quote(topic)) {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		got[strings.TrimSuffix(strings.TrimPrefix(name, "reeve_tasks_"), "_total")] += int(n)
	}
	return got
}

func cliFigures(t *testing.T, sys *harness.System, topic string) map[string]int {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(binaries.Dir(t), "reeve"), "metrics", "--topic", topic, "-o", "json")
	cmd.Env = append(harness.Environ(), "REEVE_URL="+sys.URL, "HOME="+sys.Dir)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var list struct{ Items []map[string]json.RawMessage }
	if err := json.Unmarshal(out, &list); err != nil || len(list.Items) != 1 {
		t.Fatalf("%v: %s", err, out)
	}
	return integers(list.Items[0])
}

// deadLetters counts the tasks on the DLQ, and finds one that stands there twice.
func deadLetters(t *testing.T, sys *harness.System, topic string) int {
	t.Helper()
	dlq := sys.Names().DLQ(topic, "worker")
	seen := map[string]int{}
	ctx, end := context.WithTimeout(t.Context(), time.Minute)
	defer end()
	const beyond = time.Second // for one too many
	err := harness.Follow(ctx, sys.Brokers, []string{dlq}, func(r *kgo.Record) {
		for _, h := range r.Headers {
			if h.Key == task.HeaderOrigin {
				seen[string(h.Value)]++
			}
		}
		if len(seen) == failAlways {
			time.AfterFunc(beyond, end)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for origin, n := range seen {
		if n > 1 {
			t.Errorf("%s stands on the DLQ %d times", origin, n)
		}
	}
	return len(seen)
}
