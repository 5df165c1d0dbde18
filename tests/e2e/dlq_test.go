package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/tests/harness"
)

// Dead letters are listed, counted by their failure, and redriven one by one, by failure and all. With the fault still
// there a redrive stops by itself; while the agent is paused it waits; a dispatcher that is killed in the middle of it
// leaves none out and takes none twice. The counters are exact throughout.
func TestDeadLettersAreRedrivenOnceAndCountedExactly(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("python3 isn't installed")
	}
	onEachKafka(t, redrivenOnceAndCountedExactly)
}

// mortal is an agent that can't do a kind of event until it is mended.
type mortal struct {
	t     *testing.T
	sys   *harness.System
	topic string
	n     int // events so far

	mu     sync.Mutex
	finals map[string]int // by origin and round: how often the task was finished
}

func redrivenOnceAndCountedExactly(t *testing.T, sys *harness.System) {
	m := &mortal{t: t, sys: sys, topic: sys.Prefix + "-in", finals: map[string]int{}}
	if err := harness.CreateTopic(t.Context(), sys.Brokers, m.topic, 3, nil); err != nil {
		t.Fatal(err)
	}
	ps := start(t, sys, "registry.r0", "dispatcher.d0", "supervisor.s0")
	m.register()
	m.follow()
	origins := m.publish("abc", 30)
	m.await(map[string]float64{"received": 30, "dead_lettered": 30, "waiting": 0, "completed": 0})
	m.checkLetters(origins)

	if o := m.order("redrive", map[string]any{"all": true, "dry_run": true}, "dry_run"); o.Matched != 30 {
		t.Errorf("%+v", o)
	}
	o := m.order("redrive", map[string]any{"all": true}, "stopped")
	if o.Moved != 15 || o.CameBack != 15 || o.Kept != 15 || !strings.Contains(o.Reason, "5 of 5 redriven tasks came back dead with the failure that they had") {
		t.Errorf("with the fault still there: %+v", o)
	}
	m.await(map[string]float64{"received": 30, "dead_lettered": 30, "waiting": 0, "completed": 0})

	m.mend("a")
	m.order("redrive", map[string]any{"origin": origins[3]}, "done")
	m.await(map[string]float64{"received": 30, "dead_lettered": 29, "waiting": 0, "completed": 1})
	m.checkRounds(origins[3])
	again := map[string]any{}
	call(t, sys, http.MethodPost, m.path("/redrive"), map[string]any{"origin": origins[3]}, &again)
	if again["state"] != "done" || again["matched"] != 0.0 {
		t.Errorf("the second click: %v", again)
	}
	if err := sys.Call(t.Context(), http.MethodPost, m.path("/redrive"), map[string]any{"origin": m.topic + "/0/99999"}, nil); !isStatus(err, http.StatusNotFound) {
		t.Errorf("an event that isn't there: %v", err)
	}
	if o = m.order("redrive", map[string]any{"fingerprint": m.prints()["a"].Fingerprint}, "done"); o.Moved != 9 || o.Completed != 9 {
		t.Errorf("by fingerprint: %+v", o)
	}
	m.await(map[string]float64{"received": 30, "dead_lettered": 20, "waiting": 0, "completed": 10})

	m.mend("b")
	m.mend("c")
	call(t, sys, http.MethodPost, "/v1/agents/"+m.topic+"/mortal/unsubscribe", map[string]any{}, nil)
	o = m.order("redrive", map[string]any{"all": true}, "waiting")
	if !strings.Contains(o.Reason, "paused") || len(m.letters("")) != 20 {
		t.Errorf("while it is paused: %+v, %d letters", o, len(m.letters("")))
	}
	call(t, sys, http.MethodPost, "/v1/agents/"+m.topic+"/mortal/resume", nil, nil)
	if o = m.ended(o.ID, "done"); o.Moved != 20 || o.Completed != 20 {
		t.Errorf("once it is resumed: %+v", o)
	}
	m.await(map[string]float64{"received": 30, "dead_lettered": 0, "waiting": 0, "completed": 30})

	m.killedInTheMiddle(ps[1])
	m.clearedBefore()
	m.purged()
}

// killedInTheMiddle kills the dispatcher while it redrives, and starts it again.
func (m *mortal) killedInTheMiddle(dispatcher *harness.Process) {
	const many = 2100
	m.t.Helper()
	origins := m.publish("d", many)
	m.await(map[string]float64{"received": 30 + many, "dead_lettered": many, "waiting": 0})
	m.mend("d")
	began := time.Now()
	o := m.asked("redrive", map[string]any{"all": true})
	eventually(m.t, 60*time.Second, func() string {
		if n := m.finished(origins, 1); n < many/10 {
			return fmt.Sprintf("%d are through", n)
		}
		return ""
	})
	if err := dispatcher.End(); err != nil {
		m.t.Fatal(err)
	}
	through := m.finished(origins, 1)
	start(m.t, m.sys, "dispatcher.d0")
	m.ended(o.ID, "done")
	m.await(map[string]float64{"received": 30 + many, "dead_lettered": 0, "waiting": 0, "completed": 30 + many})
	if o = m.ended(o.ID, "done"); o.Moved != many || o.Completed != many || o.CameBack != 0 {
		m.t.Errorf("what the killed dispatcher has moved is missing: %+v", o)
	}
	m.t.Logf("killed with %d of %d through; all in %s", through, many, time.Since(began))
	if through >= many {
		m.t.Error("it was over before the kill")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, origin := range origins {
		for round, want := range map[int]int{0: 1, 1: 1, 2: 0} {
			if n := m.finals[key(origin, round)]; n != want {
				m.t.Errorf("%s was finished %d times in round %d", origin, n, round)
			}
		}
	}
}

// clearedBefore redrives what was finished before the counters were cleared.
func (m *mortal) clearedBefore() {
	m.t.Helper()
	before := m.n
	m.publish("e", 6)
	m.await(map[string]float64{"received": float64(before + 6), "dead_lettered": 6})
	call(m.t, m.sys, http.MethodDelete, "/storage/metrics", nil, nil)
	m.await(map[string]float64{"received": 0, "dead_lettered": 0, "waiting": 0})
	m.publish("a", 3)
	m.mend("e")
	m.order("redrive", map[string]any{"all": true}, "done")
	m.await(map[string]float64{"received": 9, "dead_lettered": 0, "completed": 9, "waiting": 0, "running": 0})
}

func (m *mortal) purged() {
	m.t.Helper()
	m.publish("fg", 8)
	m.await(map[string]float64{"dead_lettered": 8, "received": 17})
	print := m.prints()["f"].Fingerprint
	if o := m.order("purge", map[string]any{"fingerprint": print, "dry_run": true}, "dry_run"); o.Matched != 4 {
		m.t.Errorf("%+v", o)
	}
	if o := m.order("purge", map[string]any{"fingerprint": print}, "done"); o.Moved != 4 {
		m.t.Errorf("%+v", o)
	}
	if left := m.letters(""); len(left) != 4 {
		m.t.Errorf("%v", left)
	}
	if o := m.order("purge", map[string]any{"all": true}, "done"); o.Moved != 4 {
		m.t.Errorf("%+v", o)
	}
	if left := m.letters(""); len(left) != 0 {
		m.t.Errorf("%v", left)
	}
	call(m.t, m.sys, http.MethodDelete, "/v1/agents/"+m.topic+"/mortal", nil, nil)
	if left := m.letters(""); len(left) != 0 {
		m.t.Errorf("%v", left)
	}
	err := m.sys.Call(m.t.Context(), http.MethodPost, m.path("/redrive"), map[string]any{"all": true}, nil)
	if !isStatus(err, http.StatusConflict) || !strings.Contains(err.Error(), "register the agent again") {
		m.t.Errorf("of a deleted agent: %v", err)
	}
}

func isStatus(err error, code int) bool {
	var status *harness.StatusError
	return errors.As(err, &status) && status.Code == code
}

func (m *mortal) path(of string) string { return "/v1/dlq/" + m.topic + "/mortal" + of }

func (m *mortal) dir() string { return filepath.Join(m.sys.AgentsDir(), "mortal") }

func (m *mortal) register() {
	m.t.Helper()
	if err := os.CopyFS(m.dir(), os.DirFS("testdata/mortal")); err != nil {
		m.t.Fatal(err)
	}
	err := m.sys.Register(m.t.Context(), map[string]any{"topic": m.topic, "name": "mortal", "runtime": "command", "dir": "mortal",
		"command": []string{"python3", "adapter.py"}, "config": map[string]any{"max_retries": 1, "retry_delays": []string{"1s"}}})
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *mortal) mend(kind string) {
	m.t.Helper()
	if err := os.WriteFile(filepath.Join(m.dir(), "mended-"+kind), nil, 0o600); err != nil {
		m.t.Fatal(err)
	}
}

// publish publishes n events, of the kinds in turn, and gives their origins.
func (m *mortal) publish(kinds string, n int) []string {
	m.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(m.sys.Brokers...))
	if err != nil {
		m.t.Fatal(err)
	}
	defer cl.Close()
	var rs []*kgo.Record
	for i := range n {
		rs = append(rs, &kgo.Record{Topic: m.topic, Key: fmt.Append(nil, i), Value: fmt.Appendf(nil, `{"kind":"%c","n":%d}`, kinds[i%len(kinds)], m.n),
			Headers: []kgo.RecordHeader{{Key: "mine", Value: []byte{0xff, 0}}}})
		m.n++
	}
	if err := cl.ProduceSync(m.t.Context(), rs...).FirstErr(); err != nil {
		m.t.Fatal(err)
	}
	origins := make([]string, n)
	for i, r := range rs {
		origins[i] = fmt.Sprintf("%s/%d/%d", r.Topic, r.Partition, r.Offset)
	}
	return origins
}

func key(origin string, round int) string { return fmt.Sprintf("%s#%d", origin, round) }

// follow counts final outcomes until the test ends.
func (m *mortal) follow() {
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- harness.Follow(ctx, m.sys.Brokers, []string{m.sys.Names().Outcomes()}, func(r *kgo.Record) {
			o, err := harness.ParseOutcome(r)
			if err != nil {
				m.t.Error(err)
				return
			}
			m.mu.Lock()
			defer m.mu.Unlock()
			if o.Final {
				m.finals[key(o.Origin, o.Redrives)]++
			}
		})
	}()
	m.t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			m.t.Error(err)
		}
	})
}

// finished counts those of tasks that are finished in a round.
func (m *mortal) finished(origins []string, round int) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, o := range origins {
		if m.finals[key(o, round)] > 0 {
			n++
		}
	}
	return n
}

func (m *mortal) await(want map[string]float64) {
	m.t.Helper()
	eventually(m.t, 90*time.Second, func() string {
		var got map[string]any
		if err := m.sys.Call(m.t.Context(), http.MethodGet, "/v1/agents/"+m.topic+"/mortal/metrics", nil, &got); err != nil {
			return err.Error()
		}
		var wrong []string
		for _, name := range slices.Sorted(maps.Keys(want)) {
			if got[name] != want[name] {
				wrong = append(wrong, fmt.Sprintf("%s is %v, not %v", name, got[name], want[name]))
			}
		}
		return strings.Join(wrong, ", ")
	})
}

type letter struct {
	Origin, Fingerprint, Value string
	Attempts, Redrives         int
	ErrorClass                 string    `json:"error_class"`
	ErrorMessage               string    `json:"error_message"`
	FirstFailedAt              time.Time `json:"first_failed_at"`
	LastFailedAt               time.Time `json:"last_failed_at"`
	Headers                    []struct{ Key, Value, Encoding string }
}

// letters lists the open dead letters in pages of seven.
func (m *mortal) letters(filter string) []letter {
	m.t.Helper()
	var all []letter
	for token, more := "", true; more; more = token != "" {
		var page struct {
			Items         []letter
			NextPageToken string `json:"next_page_token"`
		}
		call(m.t, m.sys, http.MethodGet, m.path("?page_size=7&page_token="+token+filter), nil, &page)
		all, token = append(all, page.Items...), page.NextPageToken
	}
	return all
}

type failures struct {
	Fingerprint  string
	Count        int
	ErrorMessage string `json:"error_message"`
}

// prints counts by failure, and gives the counts by the kind of the events.
func (m *mortal) prints() map[string]failures {
	m.t.Helper()
	var counted struct {
		Items []failures
		Total int
	}
	call(m.t, m.sys, http.MethodGet, m.path("/fingerprints"), nil, &counted)
	out := map[string]failures{}
	for _, f := range counted.Items {
		out[strings.Split(f.ErrorMessage, " ")[1]] = f
	}
	return out
}

// checkLetters checks what the dead letters of the first events say.
func (m *mortal) checkLetters(origins []string) {
	m.t.Helper()
	all := m.letters("")
	if len(all) != 30 {
		m.t.Fatalf("%d dead letters", len(all))
	}
	for _, l := range all {
		if !slices.Contains(origins, l.Origin) || l.ErrorClass != "permanent" || !strings.HasPrefix(l.ErrorMessage, "kind ") || l.Attempts != 1 || l.Redrives != 0 ||
			time.Since(l.FirstFailedAt) > time.Minute || l.LastFailedAt.Before(l.FirstFailedAt) {
			m.t.Errorf("%+v", l)
		}
	}
	counted := m.prints()
	for _, kind := range []string{"a", "b", "c"} {
		if f := counted[kind]; f.Count != 10 || len(m.letters("&fingerprint="+f.Fingerprint)) != 10 {
			m.t.Errorf("of kind %s: %+v", kind, f)
		}
	}
	if n := len(m.letters("&error_class=network")); n != 0 {
		m.t.Errorf("%d of another class", n)
	}
	if n := len(m.letters("&since=2040-01-01T00:00:00Z")); n != 0 {
		m.t.Errorf("%d of the future", n)
	}
	var one letter
	call(m.t, m.sys, http.MethodGet, m.path(strings.TrimPrefix(origins[4], m.topic)), nil, &one)
	headers := map[string]string{}
	for _, h := range one.Headers {
		headers[h.Key] = h.Value
	}
	if one.Value != `{"kind":"b","n":4}` || headers["mine"] != "/wA=" || headers["reeve-attempts"] != "1" || headers["reeve-error-fingerprint"] != one.Fingerprint || headers["reeve-agent"] != m.topic+"/mortal" {
		m.t.Errorf("%+v", one)
	}
}

// checkRounds checks that a task shows its rounds.
func (m *mortal) checkRounds(origin string) {
	m.t.Helper()
	var task struct {
		Status   string
		Redrives int
		History  []struct {
			Attempt, Redrives int
			Outcome           string
		}
	}
	parts := strings.Split(origin, "/")
	call(m.t, m.sys, http.MethodGet, fmt.Sprintf("/v1/tasks/%s/mortal/%s/%s", m.topic, parts[1], parts[2]), nil, &task)
	last := len(task.History) - 1
	if task.Status != "completed" || task.Redrives != last || last < 1 || task.History[0].Outcome != "failed" || task.History[0].Redrives != 0 ||
		task.History[last].Outcome != "completed" || task.History[last].Attempt != 1 {
		m.t.Errorf("%+v", task)
	}
}

type order struct {
	ID, State, Reason                         string
	Matched, Moved, Completed, Kept, CameBack int
}

func (o *order) read(m map[string]any) {
	n := func(key string) int { f, _ := m[key].(float64); return int(f) }
	o.ID, _ = m["id"].(string)
	o.State, _ = m["state"].(string)
	o.Reason, _ = m["reason"].(string)
	o.Matched, o.Moved, o.Completed, o.Kept, o.CameBack = n("matched"), n("moved"), n("completed"), n("kept"), n("came_back")
}

// asked orders something of dead letters.
func (m *mortal) asked(verb string, what map[string]any) (o order) {
	m.t.Helper()
	var answer map[string]any
	call(m.t, m.sys, http.MethodPost, m.path("/"+verb), what, &answer)
	o.read(answer)
	return o
}

// order does so and waits until it is in a state.
func (m *mortal) order(verb string, what map[string]any, state string) order {
	m.t.Helper()
	o := m.asked(verb, what)
	if o.State == state {
		return o
	}
	return m.ended(o.ID, state)
}

func (m *mortal) ended(id, state string) (o order) {
	m.t.Helper()
	eventually(m.t, 90*time.Second, func() string {
		var answer map[string]any
		if err := m.sys.Call(m.t.Context(), http.MethodGet, m.path("/orders/"+id), nil, &answer); err != nil {
			return err.Error()
		}
		if o.read(answer); o.State != state {
			return fmt.Sprintf("%+v", o)
		}
		return ""
	})
	return o
}
