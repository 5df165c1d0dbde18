package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/reeve-run/reeve/tests/harness"

	"github.com/reeve-run/reeve/internal/testenv"
)

// Every record that claims a format and doesn't keep it is dead-lettered unrun, and what stands behind it in the same
// partition is run.
func TestARecordThatBreaksItsFormatStopsNothing(t *testing.T) {
	needPython(t)
	onEachKafka(t, func(t *testing.T, sys *harness.System) {
		topic := sys.Prefix + "-in"
		if err := harness.CreateTopic(t.Context(), sys.Brokers, topic, 1, nil); err != nil {
			t.Fatal(err)
		}
		start(t, sys, "registry.r0", "dispatcher.d0", "supervisor.s0")
		registerStock(t, sys, topic)
		var all []*event
		for _, bad := range broken() {
			good := &event{name: "behind " + bad.name, value: []byte(`1`), status: "completed", attempts: 1}
			all = append(all, bad, good)
		}
		for _, e := range all {
			e.publish(t, sys, topic)
		}
		for _, e := range all {
			e.await(t, sys, topic)
		}
	})
}

func broken() []*event {
	const envelope, structured = "application/vnd.reeve.event+json", "application/cloudevents+json"
	binary := func(without string) map[string]string {
		h := map[string]string{"ce_specversion": "1.0", "ce_id": "1", "ce_source": "/s", "ce_type": "t"}
		delete(h, without)
		return h
	}
	claims := func(kind string) map[string]string { return map[string]string{"content-type": kind} }
	list := []*event{
		{name: "an envelope that is no JSON", headers: claims(envelope), value: []byte(`{"id":`)},
		{name: "an envelope without payload", headers: claims(envelope), value: []byte(`{"id":"1"}`)},
		{name: "an envelope that is empty", headers: claims(envelope)},
		{name: "a binary event without id", headers: binary("ce_id"), value: []byte(`1`)},
		{name: "a binary event without source", headers: binary("ce_source"), value: []byte(`1`)},
		{name: "a binary event without type", headers: binary("ce_type"), value: []byte(`1`)},
		{name: "a structured event that is no JSON", headers: claims(structured), value: []byte("\x00")},
		{name: "a structured event without id", headers: claims(structured), value: []byte(`{"specversion":"1.0","source":"/s","type":"t"}`)},
		{name: "a structured event that is empty", headers: claims(structured)},
		{name: "a structured event as deep as a well", headers: claims(structured), value: []byte(strings.Repeat(`{"data":`, 50_000))},
	}
	for _, e := range list {
		e.status, e.class = "dead_lettered", "invalid_input"
	}
	return list
}

// Records of 5 MiB go every way that a record can go, and many records near 1 MiB, which no compression makes smaller,
// fit no single batch of any of the topics on their way.
func TestLargeRecordsGoEveryWay(t *testing.T) {
	needPython(t)
	onEachKafka(t, func(t *testing.T, sys *harness.System) {
		topic, replies, small := sys.Prefix+"-in", sys.Prefix+"-replies", sys.Prefix+"-small"
		large := "8388608"
		for name, configs := range map[string]map[string]*string{topic: {"max.message.bytes": &large}, replies: {"max.message.bytes": &large}, small: nil} {
			if err := harness.CreateTopic(t.Context(), sys.Brokers, name, 1, configs); err != nil {
				t.Fatal(err)
			}
		}
		start(t, sys, "registry.r0", "dispatcher.d0", "supervisor.s0")
		registerStock(t, sys, topic)
		all := []*event{
			{name: "retried", value: sized("flaky", 5<<20), status: "completed", attempts: 2},
			{name: "dead-lettered", value: sized("fail", 5<<20), status: "dead_lettered", attempts: 2, class: "internal"},
			{name: "answered", value: sized("echo", 5<<20), headers: map[string]string{"reeve-reply-to": replies}, status: "completed", attempts: 1},
			{name: "answered in vain", value: sized("echo", 5<<20), headers: map[string]string{"reeve-reply-to": small}, status: "completed", attempts: 1},
		}
		for i := range 24 {
			all = append(all, &event{name: "near 1 MiB, " + strconv.Itoa(i), value: sized("echo", 1_000_000), status: "completed", attempts: 1})
		}
		for _, e := range all {
			e.publish(t, sys, topic)
		}
		for _, e := range all {
			e.await(t, sys, topic)
		}
		if n := len(firstRecord(t, sys, replies)); n < 5<<20 {
			t.Errorf("the reply has %d bytes", n)
		}
		if got := firstRecord(t, sys, sys.Names().DLQ(topic, "stock")); string(got) != string(all[1].value) {
			t.Errorf("the dead letter has %d bytes and isn't the event", len(got))
		}
	})
}

// sized is content of about n bytes, random, so that it stays as large on its way.
func sized(do string, n int) []byte {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	b := fmt.Appendf(make([]byte, 0, n+32), `{"do":%q,"pad":"`, do)
	for len(b) < n {
		for bits := rand.Uint64(); bits > 63; bits >>= 6 {
			b = append(b, alphabet[bits&63])
		}
	}
	return append(b, `"}`...)
}

func firstRecord(t *testing.T, sys *harness.System, topic string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var value []byte
	err := harness.Follow(ctx, sys.Brokers, []string{topic}, func(r *kgo.Record) {
		if value == nil {
			value = r.Value
		}
		cancel()
	})
	if err != nil || value == nil {
		t.Fatalf("read %s: no record, %v", topic, err)
	}
	return value
}

func needPython(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("python3 isn't installed")
	}
}

// A start that can't be says what, where and what to do, by the process's exit code too, and leaves no process.
func TestAStartThatCannotBeSaysWhatWhereAndWhatToDo(t *testing.T) {
	old := oldKafka(t)
	taken, nobody := takenPort(t), "127.0.0.1:1"
	database := testenv.Schema(t)
	foreign := filepath.Join(t.TempDir(), "data")
	if err := os.MkdirAll(foreign, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(foreign, "format"), []byte("7\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	kafka := func(addr string) []string {
		return []string{"REEVE_KAFKA_BROKERS=" + addr, "REEVE_DATABASE_URL=" + database, "REEVE_HTTP_ADDR=127.0.0.1:0"}
	}
	listening := func(addr string) []string { return append(kafka(nobody), "REEVE_HTTP_ADDR="+addr) }
	away := "postgres://u:hunter2@" + nobody + "/db?sslmode=disable"
	type attempt struct {
		name, program string
		args, env     []string
		code          int
		says          []string
	}
	var attempts []attempt
	for _, s := range []string{"registry", "dispatcher", "supervisor"} {
		attempts = append(attempts,
			attempt{s + ", Kafka away", s, nil, kafka(nobody), 5, []string{nobody, "REEVE_KAFKA_BROKERS"}},
			attempt{s + ", an old Kafka", s, nil, kafka(old), 1, []string{old, "run Kafka 4.0 or later"}},
			attempt{s + ", a port in use", s, nil, listening(taken), 1, []string{taken, "REEVE_HTTP_ADDR"}},
			attempt{s + ", an argument", s, []string{"--verbose"}, kafka(nobody), 2, []string{"usage: " + s}})
	}
	dev := func(args ...string) []string {
		return append([]string{"dev", "--listen", "127.0.0.1:0", "--data", filepath.Join(t.TempDir(), "data"), "--agents-dir", t.TempDir()}, args...)
	}
	attempts = append(attempts,
		attempt{"registry, Postgres away", "registry", nil, append(kafka(nobody), "REEVE_DATABASE_URL="+away), 5, []string{nobody, "REEVE_DATABASE_URL"}},
		attempt{"dev, Kafka away", "reeve", dev("--brokers", nobody, "--database-url", database), nil, 5, []string{nobody}},
		attempt{"dev, an old Kafka", "reeve", dev("--brokers", old, "--database-url", database), nil, 1, []string{old, "run Kafka 4.0 or later"}},
		attempt{"dev, Postgres away", "reeve", dev("--kafka-listen", "127.0.0.1:0", "--database-url", away), nil, 5, []string{nobody}},
		attempt{"dev, a port in use", "reeve", dev("--listen", taken), nil, 1, []string{"--listen", "in use by process"}},
		attempt{"dev, its Kafka's port in use", "reeve", dev("--kafka-listen", taken), nil, 1, []string{"--kafka-listen", "in use by process"}},
		attempt{"dev, data of another version", "reeve", dev("--data", foreign), nil, 1, []string{foreign, `format "7"`, "--data"}},
		attempt{"dev, a file that isn't there", "reeve", dev("-f", "nowhere.yaml"), nil, 1, []string{"nowhere.yaml", "-f"}})
	bin := binaries.Dir(t) // to build it takes longer than any of them
	for _, a := range attempts {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			mark := "E2E_MARK=" + testenv.Unique()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, filepath.Join(bin, a.program), a.args...)
			cmd.Dir = t.TempDir()
			cmd.Env = append(append(harness.Environ(), "REEVE_AUTH=off", mark), a.env...)
			out, _ := cmd.CombinedOutput()
			if code := cmd.ProcessState.ExitCode(); code != a.code {
				t.Errorf("exit code %d, not %d", code, a.code)
			}
			for _, text := range a.says {
				if !strings.Contains(string(out), text) {
					t.Errorf("it doesn't say %q:\n%s", text, out)
				}
			}
			if strings.Contains(string(out), "hunter2") {
				t.Errorf("the password shows:\n%s", out)
			}
			if left := harness.Marked(mark); len(left) > 0 {
				t.Errorf("processes left: %v", left)
			}
		})
	}
}

// oldKafka is the address of a broker from before transactions of version 2.
func oldKafka(t *testing.T) string {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.MaxVersions(kversion.V3_8_0()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c.ListenAddrs()[0]
}

func takenPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// A Kafka that goes while events flow, and comes again with its data, costs time and nothing else.
func TestKafkaGoesAndComesAgain(t *testing.T) {
	needPython(t)
	addrs, err := testenv.FreeAddrs(1)
	if err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	kafka := func() *kfake.Cluster {
		c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(data),
			kfake.ListenFn(func(network, _ string) (net.Listener, error) { return net.Listen(network, addrs[0]) }))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	first := kafka()
	defer func() { first.Close() }()
	sys := system(t, &testenv.Server{Address: addrs[0]}, testenv.Unique())
	topic := sys.Prefix + "-in"
	if err := harness.CreateTopic(t.Context(), sys.Brokers, topic, 2, nil); err != nil {
		t.Fatal(err)
	}
	services := start(t, sys, "registry.r0", "dispatcher.d0", "supervisor.s0")
	registerStock(t, sys, topic)
	before := batch("before", 200)
	for _, e := range before {
		e.publish(t, sys, topic)
	}
	first.Close() // much of it is under way
	eventually(t, time.Minute, func() string {
		var h struct {
			Status string `json:"status"`
		}
		if err := sys.Call(t.Context(), http.MethodGet, "/health", nil, &h); err == nil {
			return "the system is said to be " + h.Status
		}
		return ""
	})
	first = kafka()
	after := batch("after", 20)
	for _, e := range after {
		e.publish(t, sys, topic)
	}
	for _, e := range append(before, after...) {
		e.await(t, sys, topic)
	}
	for _, p := range services {
		select {
		case <-p.Ended():
			t.Errorf("%s didn't outlive it", p.Name)
		default:
		}
	}
}

// A Postgres that goes costs nothing but the view: events are run meanwhile, requests say what is missing, and history
// and counters catch up exactly.
func TestPostgresGoesAndComesAgain(t *testing.T) {
	needPython(t)
	kafka := testenv.Kfake(t)
	wire := newWire(t, testenv.Schema(t))
	sys, err := harness.New(harness.Config{Brokers: strings.Split(kafka.Address, ","), Prefix: testenv.Unique(), Database: wire.url, Bin: binaries.Dir(t), Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sys.Close() })
	topic := sys.Prefix + "-in"
	if err := harness.CreateTopic(t.Context(), sys.Brokers, topic, 2, nil); err != nil {
		t.Fatal(err)
	}
	start(t, sys, "registry.r0", "dispatcher.d0", "supervisor.s0")
	registerStock(t, sys, topic)
	all := batch("before", 30)
	for _, e := range all {
		e.publish(t, sys, topic)
	}
	wire.cut()
	for _, e := range batch("meanwhile", 30) {
		e.publish(t, sys, topic)
		all = append(all, e)
	}
	awaitFinals(t, sys, len(all))
	err = sys.Call(t.Context(), http.MethodGet, "/v1/agents", nil, nil)
	if refusal := (*harness.StatusError)(nil); !errors.As(err, &refusal) || refusal.Code != http.StatusServiceUnavailable || !strings.Contains(refusal.Body, "database_unavailable") {
		t.Errorf("without its database the registry says %v", err)
	}
	wire.join()
	for _, e := range all {
		e.await(t, sys, topic)
	}
	eventually(t, time.Minute, func() string {
		var m struct{ Completed, Retried int }
		if err := sys.Call(t.Context(), http.MethodGet, "/v1/agents/"+topic+"/stock/metrics", nil, &m); err != nil || m.Completed != 60 || m.Retried != 6 {
			return fmt.Sprintf("counted are %+v, %v", m, err)
		}
		return ""
	})
}

// awaitFinals waits for the final outcomes of n tasks, on Kafka itself.
func awaitFinals(t *testing.T, sys *harness.System, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := map[string]bool{}
	err := harness.Follow(ctx, sys.Brokers, []string{sys.Names().Outcomes()}, func(r *kgo.Record) {
		o, err := harness.ParseOutcome(r)
		if err != nil {
			t.Error(err)
		}
		if done[o.Origin] = done[o.Origin] || o.Final; o.Final && finals(done) == n {
			cancel()
		}
	})
	if err != nil || finals(done) < n {
		t.Fatalf("%d of %d tasks are finished, %v", finals(done), n, err)
	}
}

func finals(done map[string]bool) int {
	n := 0
	for _, final := range done {
		if final {
			n++
		}
	}
	return n
}

// A wire leads to a database and can be cut.
type wire struct {
	t        *testing.T
	url      string // of the near end
	near     string
	far      string
	mu       sync.Mutex
	listener net.Listener // nil while it is cut
	ends     []net.Conn
	work     sync.WaitGroup
}

func newWire(t *testing.T, databaseURL string) *wire {
	t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil || u.Host == "" {
		t.Skip("the test run's Postgres isn't reached by TCP")
	}
	w := &wire{t: t, far: u.Host, near: "127.0.0.1:0"}
	w.join()
	u.Host = w.near
	w.url = u.String()
	t.Cleanup(w.cut)
	return w
}

// join lets connections through.
func (w *wire) join() {
	l, err := net.Listen("tcp", w.near)
	if err != nil {
		w.t.Fatal(err)
	}
	w.near = l.Addr().String()
	w.mu.Lock()
	w.listener = l
	w.mu.Unlock()
	w.work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			w.pass(c)
		}
	})
}

// pass leads one connection to the far end.
func (w *wire) pass(near net.Conn) {
	far, err := net.Dial("tcp", w.far)
	if err != nil {
		near.Close()
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.listener == nil {
		near.Close()
		far.Close()
		return
	}
	w.ends = append(w.ends, near, far)
	for _, ends := range [][2]net.Conn{{near, far}, {far, near}} {
		w.work.Go(func() {
			_, _ = io.Copy(ends[0], ends[1]) // the end of one side is the end of the other
			near.Close()
			far.Close()
		})
	}
}

// cut ends every connection and lets none through.
func (w *wire) cut() {
	w.mu.Lock()
	if w.listener != nil {
		w.listener.Close()
	}
	for _, c := range w.ends {
		c.Close()
	}
	w.listener, w.ends = nil, nil
	w.mu.Unlock()
	w.work.Wait()
}

// Two of `reeve dev` never write into one data directory: the second names the first, which goes on.
func TestADataDirectoryHasOneHolder(t *testing.T) {
	sys := system(t, testenv.Kfake(t), testenv.Unique())
	addrs, err := testenv.FreeAddrs(2)
	if err != nil {
		t.Fatal(err)
	}
	dev := func(listen string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(binaries.Dir(t), "reeve"), "dev", "--listen", listen, "--kafka-listen", "127.0.0.1:0", "--data", filepath.Join(sys.Dir, "data"),
			"--agents-dir", sys.AgentsDir(), "--database-url", sys.Database)
		cmd.Dir, cmd.Env = sys.Dir, harness.Environ()
		return cmd
	}
	first, err := sys.Run(dev(addrs[0]), "first", "http://"+addrs[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	out, err := dev(addrs[1]).CombinedOutput()
	if want := fmt.Sprintf("is in use by a reeve dev with process id %d", first.PID); err == nil || !strings.Contains(string(out), want) {
		t.Errorf("the second ended with %v:\n%s", err, out)
	}
	if err := first.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	stop(t, first)
}

// batch is events that need a retry now and then.
func batch(name string, n int) []*event {
	var list []*event
	for i := range n {
		e := &event{name: name + strconv.Itoa(i), value: []byte(`{"n":1}`), status: "completed", attempts: 1}
		if i%10 == 0 {
			e.value, e.attempts = []byte(`{"do":"flaky"}`), 2
		}
		list = append(list, e)
	}
	return list
}
