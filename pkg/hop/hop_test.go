package hop_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/offsets"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type stand struct {
	t     testing.TB
	fake  *kfake.Cluster
	seeds []string
	adm   *kadm.Client
}

func newStand(t testing.TB, created ...string) *stand {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.BrokerConfigs(map[string]string{"group.min.session.timeout.ms": "300"}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	s := &stand{t: t, fake: c, seeds: c.ListenAddrs(), adm: kadm.NewClient(cl)}
	if _, err := s.adm.CreateTopics(t.Context(), 1, 1, nil, created...); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *stand) opts(more ...kgo.Opt) []kgo.Opt {
	return append([]kgo.Opt{kgo.SeedBrokers(s.seeds...)}, more...)
}

func (s *stand) publish(topic string, from, n int) {
	s.t.Helper()
	cl, err := kgo.NewClient(s.opts(kgo.DefaultProduceTopic(topic))...)
	if err != nil {
		s.t.Fatal(err)
	}
	defer cl.Close()
	for i := range n {
		cl.Produce(s.t.Context(), kgo.StringRecord(strconv.Itoa(from+i)), nil)
	}
	if err := cl.Flush(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

// values reads a topic, read_committed, until it has n records, and once more to see whether there are others.
func (s *stand) values(topic string, n int) map[string]int {
	s.t.Helper()
	cl, err := kgo.NewClient(s.opts(kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(200*time.Millisecond))...)
	if err != nil {
		s.t.Fatal(err)
	}
	defer cl.Close()
	seen, total := map[string]int{}, 0
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	for total < n && ctx.Err() == nil {
		cl.PollFetches(ctx).EachRecord(func(r *kgo.Record) { seen[string(r.Value)]++; total++ })
	}
	more, cancel2 := context.WithTimeout(s.t.Context(), 300*time.Millisecond)
	defer cancel2()
	cl.PollFetches(more).EachRecord(func(r *kgo.Record) { seen[string(r.Value)]++ })
	return seen
}

// handler records what it is told.
type handler struct {
	mu        sync.Mutex
	assigned  []hop.Assignment
	overtaken []int64
	truncated []int64
	lost      int
	got       chan struct{}
}

func newHandler() *handler { return &handler{got: make(chan struct{}, 100)} }

func (h *handler) Assigned(_ context.Context, as []hop.Assignment) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.assigned = append(h.assigned, as...)
	if len(as) > 0 {
		h.got <- struct{}{}
	}
}
func (h *handler) Revoked(context.Context, []int32) {}
func (h *handler) Lost([]int32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lost++
}
func (h *handler) Overtaken(_ int32, from, to int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.overtaken = append(h.overtaken, from, to)
}

func (h *handler) Truncated(_ context.Context, _ int32, end int64) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.truncated = append(h.truncated, end)
	return end
}

func (h *handler) last(t testing.TB) hop.Assignment {
	t.Helper()
	select {
	case <-h.got:
	case <-time.After(time.Minute):
		t.Fatal("no assignment")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.assigned[len(h.assigned)-1]
}

func (s *stand) pool(node string, more ...kgo.Opt) *hop.Pool {
	s.t.Helper()
	p, err := hop.NewPool(s.t.Context(), hop.PoolConfig{Opts: s.opts(more...), Service: "test", Node: node, Size: 2})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(p.Close)
	return p
}

func (s *stand) member(node string, h hop.Handler) *hop.Member {
	s.t.Helper()
	m, err := hop.NewMember(hop.MemberConfig{Opts: s.opts(), Group: "g", Topic: "in", Service: "test", Node: node, Handler: h, Session: time.Second,
		Logger: slog.New(slog.NewTextHandler(testWriter{s.t}, nil))})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(m.Close)
	return m
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// copyTo moves records from in to another topic until n are committed.
func copyTo(t testing.TB, m *hop.Member, p *hop.Pool, node, topic string, n int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for at := int64(0); at < n; {
		fs, err := m.Poll(ctx, 50)
		if err != nil {
			t.Fatal(err)
		}
		var out []*kgo.Record
		fs.EachRecord(func(r *kgo.Record) {
			at = r.Offset + 1
			if !r.Attrs.IsControl() {
				out = append(out, &kgo.Record{Topic: topic, Partition: hop.AnyPartition, Value: r.Value})
			}
		})
		for {
			md := offsets.Metadata{Node: node, TopicID: m.TopicID()}
			fresh := make([]*kgo.Record, len(out))
			for i, r := range out {
				fresh[i] = &kgo.Record{Topic: r.Topic, Partition: hop.AnyPartition, Value: r.Value}
			}
			err := p.Commit(ctx, hop.Tx{Member: m, Generation: m.Generation(), Records: fresh, Offsets: map[int32]hop.Position{0: {Offset: at, Metadata: md.Encode(at)}}})
			if err == nil {
				break
			} else if ctx.Err() != nil {
				t.Fatal(err)
			}
		}
		m.AllowRebalance()
	}
}

// A transaction whose end was not answered is neither repeated nor given up: its fate is found out.
func TestLostAnswersRepeatNothing(t *testing.T) {
	s := newStand(t, "in", "out")
	s.publish("in", 0, 2000)
	var dropped atomic.Int64
	p := s.pool("a", kgo.Dialer(func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return &forgetful{Conn: c, dropped: &dropped}, err
	}))
	copyTo(t, s.member("a", newHandler()), p, "a", "out", 2000)
	seen := s.values("out", 2000)
	for v, n := range seen {
		if n != 1 {
			t.Errorf("%s arrived %d times", v, n)
		}
	}
	if len(seen) != 2000 || dropped.Load() == 0 {
		t.Errorf("%d of 2000 arrived, %d answers were lost", len(seen), dropped.Load())
	}
}

// forgetful loses one in four answers to EndTxn after the broker has acted.
type forgetful struct {
	net.Conn
	drop    atomic.Bool
	dropped *atomic.Int64
}

const endTxn = 26

func (f *forgetful) Write(b []byte) (int, error) {
	if len(b) > 6 && binary.BigEndian.Uint16(b[4:]) == endTxn && rand.N(4) == 0 {
		f.drop.Store(true)
	}
	return f.Conn.Write(b)
}

func (f *forgetful) Read(b []byte) (int, error) {
	n, err := f.Conn.Read(b)
	if f.drop.Load() && err == nil {
		f.dropped.Add(1)
		f.Conn.Close()
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

// What a dead node left open is ended by whoever takes over its partitions, so that nobody's readers stall.
func TestTakeoverEndsDeadTransactions(t *testing.T) {
	s := newStand(t, "in", "out")
	s.publish("in", 0, 10)
	h := newHandler()
	m := s.member("a", h)
	copyTo(t, m, s.pool("a"), "a", "out", 10)
	m.Close() // and nothing of a is heard again
	s.open("reeve-test-a-0", "never committed")
	s.publish("out", 100, 1) // readers wait behind the open transaction
	b := newHandler()
	s.member("b", b)
	a := b.last(t)
	if a.Offset != 10 || a.Metadata.Node != "a" || a.Metadata.Clean {
		t.Errorf("assigned %+v", a)
	}
	if seen := s.values("out", 11); seen["100"] != 1 || seen["never committed"] != 0 {
		t.Errorf("readers see %v", seen)
	}
}

// A clean hand-over fences nobody.
func TestCleanHandOverFencesNobody(t *testing.T) {
	s := newStand(t, "in", "out")
	s.publish("in", 0, 10)
	p := s.pool("a")
	m := s.member("a", newHandler())
	copyTo(t, m, p, "a", "out", 10)
	clean := offsets.Metadata{Node: "a", Clean: true, TopicID: m.TopicID()}
	if err := p.Commit(t.Context(), hop.Tx{Member: m, Generation: m.Generation(), Offsets: map[int32]hop.Position{0: {Offset: 10, Metadata: clean.Encode(10)}}}); err != nil {
		t.Fatal(err)
	}
	if err := m.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	busy := s.open("reeve-test-a-1", "still alive") // for another of a's groups
	b := newHandler()
	s.member("b", b)
	b.last(t)
	if err := busy.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Errorf("a's transaction was ended: %v", err)
	}
}

// open leaves a transaction open that has produced a record to out.
func (s *stand) open(id, value string) *kgo.Client {
	s.t.Helper()
	cl, err := kgo.NewClient(s.opts(kgo.TransactionalID(id), kgo.DefaultProduceTopic("out"), kgo.TransactionTimeout(time.Minute))...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(cl.Close)
	if err := cl.BeginTransaction(); err != nil {
		s.t.Fatal(err)
	}
	if err := cl.ProduceSync(s.t.Context(), kgo.StringRecord(value)).FirstErr(); err != nil {
		s.t.Fatal(err)
	}
	return cl
}

// A newer process with the same node name replaces the older, which is told.
func TestNewerProcessReplacesOlder(t *testing.T) {
	s := newStand(t, "in")
	h := newHandler()
	older := s.member("a", h)
	h.last(t)
	result := make(chan error, 1)
	go func() {
		_, err := older.Poll(t.Context(), 10)
		result <- err
	}()
	newer := newHandler()
	s.member("a", newer)
	newer.last(t)
	select {
	case err := <-result:
		if !errors.Is(err, hop.ErrReplaced) {
			t.Errorf("the older was told %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("the older was told nothing")
	}
}

// What retention has removed is reported with its exact range, and a topic that was made again starts anew.
func TestLostRangesAreReported(t *testing.T) {
	s := newStand(t, "in", "out")
	s.publish("in", 0, 20)
	m := s.member("a", newHandler())
	copyTo(t, m, s.pool("a"), "a", "out", 20)
	m.Close()
	s.publish("in", 20, 20)
	if _, err := s.adm.DeleteRecords(t.Context(), kadm.Offsets{"in": {0: {Topic: "in", Partition: 0, At: 30}}}); err != nil {
		t.Fatal(err)
	}
	h := newHandler()
	again := s.member("a", h)
	if a := h.last(t); a.Offset != 30 {
		t.Errorf("goes on at %d", a.Offset)
	}
	if h.overtaken[0] != 20 || h.overtaken[1] != 30 {
		t.Errorf("reported %v", h.overtaken)
	}
	again.Close()
	if _, err := s.adm.DeleteTopics(t.Context(), "in"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.adm.CreateTopics(t.Context(), 1, 1, nil, "in"); err != nil {
		t.Fatal(err)
	}
	s.publish("in", 0, 50)
	h = newHandler()
	s.member("a", h)
	if a := h.last(t); a.Offset != 0 {
		t.Errorf("a topic made again is read from %d", a.Offset)
	}
}

// A broker that comes back without its last records is no reason to repeat all that it still has.
func TestALogThatLostItsEndIsGoneOnWithThere(t *testing.T) {
	s := newStand(t, "in", "out")
	s.publish("in", 0, 20)
	m := s.member("a", newHandler())
	copyTo(t, m, s.pool("a"), "a", "out", 20)
	id := m.TopicID()
	if err := m.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	var settled offsets.Set
	settled.Add(3)
	md := offsets.Metadata{TopicID: id, Node: "a", Settled: settled, Passed: offsets.Count{Since: 1, N: 30}}
	var os kadm.Offsets
	os.Add(kadm.Offset{Topic: "in", Partition: 0, At: 30, LeaderEpoch: -1, Metadata: md.Encode(30)})
	if err := s.adm.CommitAllOffsets(t.Context(), "g", os); err != nil {
		t.Fatal(err)
	}
	h := newHandler()
	s.member("b", h)
	if a := h.last(t); a.Offset != 20 || a.Metadata.Passed.N != 30 || a.Metadata.Settled.Len() != 0 {
		t.Errorf("goes on at %d with %+v", a.Offset, a.Metadata)
	}
}

// What somebody else wrote beside a group's offset, or what is left of Reeve's own after it was damaged, counts as nothing
// but the offset: it neither keeps the member from its work nor moves it.
func TestForeignCommitMetadataCountsAsEmpty(t *testing.T) {
	written := offsets.Metadata{Node: "b", Reserved: 9}
	good := written.Encode(3)
	for name, metadata := range map[string]string{
		"foreign": "host-7 at noon", "cut short": good[:len(good)/2], "another version": "_" + good[1:], "binary": "\x00\xff\x10", "none": "",
	} {
		t.Run(name, func(t *testing.T) {
			s := newStand(t, "in")
			s.publish("in", 0, 6)
			committed := kadm.Offsets{}
			committed.Add(kadm.Offset{Topic: "in", Partition: 0, At: 3, Metadata: metadata})
			if err := s.adm.CommitAllOffsets(t.Context(), "g", committed); err != nil {
				t.Fatal(err)
			}
			h := newHandler()
			m := s.member("a", h)
			a := h.last(t)
			if a.Offset != 3 || a.Metadata.Settled.Len() != 0 || a.Metadata.Node != "" || a.Metadata.Reserved != 0 {
				t.Errorf("it stands at %+v", a)
			}
			fs, err := m.Poll(t.Context(), 10)
			if err != nil {
				t.Fatal(err)
			}
			defer m.AllowRebalance()
			if first := fs.Records()[0]; first.Offset != 3 {
				t.Errorf("it goes on at offset %d", first.Offset)
			}
		})
	}
}

// Where a group begins is decided once, and only where it has no commit.
func TestAGroupBeginsWhereItIsTold(t *testing.T) {
	s := newStand(t)
	if _, err := s.adm.CreateTopics(t.Context(), 4, 1, nil, "in"); err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(s.opts(kgo.DefaultProduceTopic("in"), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for i := range 40 {
		r := kgo.StringRecord(strconv.Itoa(i))
		r.Partition = int32(i % 4)
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.adm.DeleteRecords(t.Context(), kadm.Offsets{"in": {1: {Topic: "in", Partition: 1, At: 7}}}); err != nil {
		t.Fatal(err)
	}
	begin := map[int32]int64{0: 10, 1: 5, 2: 99}
	join := func(node string) (*hop.Member, *handler) {
		h := newHandler()
		m, err := hop.NewMember(hop.MemberConfig{Opts: s.opts(), Group: "g", Topic: "in", Service: "test", Node: node, Handler: h, Session: time.Second,
			Begin: func(_ [16]byte, p int32) (int64, bool) { at, ok := begin[p]; return at, ok }})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(m.Close)
		h.last(t)
		return m, h
	}
	stands := func(what string, h *handler) {
		t.Helper()
		for _, a := range h.assigned {
			if want := map[int32]int64{0: 10, 1: 7, 2: 0, 3: 0}[a.Partition]; a.Offset != want {
				t.Errorf("%s: partition %d begins at %d, not at %d", what, a.Partition, a.Offset, want)
			}
		}
		if len(h.assigned) != 4 {
			t.Errorf("%s: %d partitions", what, len(h.assigned))
		}
	}
	first, h := join("a")
	stands("the first", h)
	if len(h.overtaken) != 2 || h.overtaken[0] != 5 || h.overtaken[1] != 7 {
		t.Errorf("reported as lost: %v", h.overtaken)
	}
	if err := first.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	begin = map[int32]int64{0: 3, 1: 9, 2: 9, 3: 9}
	_, h = join("b")
	stands("the next, which was told something else", h)
}
