package relay

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/internal/postgres"
	"github.com/reeve-run/reeve/internal/testenv"
	"github.com/reeve-run/reeve/migrations"
	"github.com/reeve-run/reeve/pkg/topics"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("database/sql.(*DB).connectionOpener"))
}

type bench struct {
	*testing.T
	db     *sqlx.DB
	opts   []kgo.Opt
	client *kgo.Client
}

func newBench(t *testing.T) *bench {
	t.Helper()
	db, err := postgres.Open(t.Context(), testenv.Schema(t), postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if err := migrations.Up(t.Context(), db.DB); err != nil {
		t.Fatal(err)
	}
	opts := []kgo.Opt{kgo.SeedBrokers(testenv.Kfake(t).Address)}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	if err := kafka.EnsureTopics(t.Context(), cl, -1, kafka.ControlTopic(topics.Names{})); err != nil {
		t.Fatal(err)
	}
	return &bench{t, db, opts, cl}
}

func (b *bench) relay() *Relay {
	return New(b.db, b.opts, topics.Names{}, slog.New(slog.DiscardHandler))
}

func (b *bench) exec(statement string, args ...any) {
	b.Helper()
	if _, err := b.db.ExecContext(b.Context(), statement, args...); err != nil {
		b.Fatal(err)
	}
}

// agent stores an agent's record; with outbox also what the change publishes.
func (b *bench) agent(name, record string, outbox bool) {
	b.Helper()
	b.exec(`INSERT INTO agents (topic, name, id, phase, generation, record, updated_at) VALUES ('t', $1, $1, 'active', 1, $2, now())
		ON CONFLICT (topic, name) DO UPDATE SET record = excluded.record`, name, record)
	if outbox {
		b.exec(`INSERT INTO outbox (key, value) VALUES ('agent/t/' || $1::text, $2)`, name, record)
	}
}

func (b *bench) published() map[string]string {
	b.Helper()
	got, err := b.relay().control(b.Context(), b.client)
	if err != nil {
		b.Fatal(err)
	}
	out := map[string]string{}
	for k, v := range got {
		out[k] = string(v)
	}
	return out
}

// start runs a relay; stop ends it and gives its error.
func (b *bench) start(r *Relay) (stop func() error) {
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	return func() error {
		cancel()
		return <-done
	}
}

func (b *bench) waitFor(what string, ok func() bool) {
	b.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(time.Minute); !ok(); {
		select {
		case <-tick.C:
		case <-limit:
			b.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestTheRelayBringsTheControlTopicUpToTheDatabaseAndGoesOn(t *testing.T) {
	b := newBench(t)
	stray := &kgo.Record{Topic: "reeve.control", Key: []byte("agent/t/stray"), Value: []byte(`{"generation":9}`)}
	other := &kgo.Record{Topic: "reeve.control", Key: []byte("var/x"), Value: []byte(`{}`)}
	if err := b.client.ProduceSync(t.Context(), stray, other).FirstErr(); err != nil {
		t.Fatal(err)
	}
	b.agent("lost", `{"generation":1}`, false) // its outbox row was published to a Kafka that is gone
	b.agent("fresh", `{"generation":1}`, true)
	stop := b.start(b.relay())
	b.waitFor("what was missing", func() bool {
		got := b.published()
		return got["agent/t/lost"] != "" && got["agent/t/fresh"] != "" && got["agent/t/stray"] != "" && got["var/x"] != ""
	})
	b.agent("fresh", `{"generation":2}`, true)
	b.agent("fresh", `{"generation":3}`, true)
	b.waitFor("the change", func() bool { return b.published()["agent/t/fresh"] == `{"generation":3}` })
	b.waitFor("the outbox to empty", func() bool {
		var n int
		return b.db.GetContext(t.Context(), &n, `SELECT count(*) FROM outbox`) == nil && n == 0
	})
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestAReplacedRelayPublishesNothing(t *testing.T) {
	b := newBench(t)
	old := b.relay()
	cl, err := kgo.NewClient(append(b.opts, kgo.TransactionalID(old.Names.TransactionalID("registry", "relay", 0)), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if _, _, err := cl.ProducerID(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.agent("n", `{"generation":2}`, true)
	stop := b.start(b.relay()) // the successor
	b.waitFor("the successor", func() bool { return b.published()["agent/t/n"] != "" })
	stale := `{"generation":1}`
	if err := old.publish(t.Context(), cl, []message{{Key: "agent/t/n", Value: &stale}}); err == nil {
		t.Error("the replaced relay published")
	}
	if got := b.published()["agent/t/n"]; got == stale {
		t.Error("an older record stands over a newer one")
	}
	_ = stop()
}

func TestCompare(t *testing.T) {
	wanted := map[string]desired{}
	for key, record := range map[string]string{"same": `{"generation": 1}`, "newer": `{"generation":2}`, "missing": `{"generation":1}`, "broken": `{"generation":1}`} {
		wanted["agent/a/"+key] = desired{record: record}
	}
	for _, key := range []string{"deleted", "older", "unreadable", "absent", "later"} {
		wanted["agent/b/"+key] = desired{record: `{"generation":5}`, buried: true}
	}
	out, strays := compare(wanted, map[string][]byte{"agent/a/same": []byte(`{"generation":1,"x":2}`), "agent/a/newer": []byte(`{"generation":1}`), "agent/a/broken": []byte(`{`),
		"agent/a/gone": []byte(`{}`), "var/x": []byte(`{}`), "agent/b/deleted": []byte(`{"generation":5}`), "agent/b/older": []byte(`{"generation":4}`), "agent/b/unreadable": []byte(`{`),
		"agent/b/later": []byte(`{"generation":6}`)})
	got := map[string]bool{}
	for _, m := range out {
		got[m.Key] = m.Value != nil
	}
	want := map[string]bool{"agent/a/newer": true, "agent/a/missing": true, "agent/a/broken": true, "agent/b/deleted": false, "agent/b/older": false, "agent/b/unreadable": false}
	if !maps.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	if !slices.Equal(strays, []string{"a/gone", "b/later"}) { // whose agents are at work
		t.Errorf("strays %v", strays)
	}
}

// A relay that takes over drops what the one before had still to publish, so it has to find out by itself whose tombstones are
// missing. An agent that has come back stays.
func TestARelayThatTakesOverBuriesWhatIsBuried(t *testing.T) {
	b := newBench(t)
	for _, name := range []string{"buried", "back"} {
		b.agent(name, `{"generation":2}`, false)
	}
	stop := b.start(b.relay())
	b.waitFor("their records", func() bool { return len(b.published()) == 2 })
	_ = stop()
	b.exec(`UPDATE agents SET buried = true`)
	for _, name := range []string{"buried", "back"} { // as Bury writes it
		b.exec(`INSERT INTO outbox (key, value) VALUES ('agent/t/' || $1::text, NULL)`, name)
	}
	b.exec(`UPDATE agents SET buried = false WHERE name = 'back'`)
	b.agent("back", `{"generation":3}`, true)
	stop = b.start(b.relay())
	b.waitFor("what is buried to go", func() bool {
		got := b.published()
		return len(got) == 1 && got["agent/t/back"] == `{"generation": 3}` // as the database writes it
	})
	b.exec(`UPDATE agents SET buried = true`)
	b.exec(`INSERT INTO outbox (key, value) VALUES ('agent/t/back', NULL)`)
	b.waitFor("a tombstone of the outbox", func() bool { return len(b.published()) == 0 })
	b.exec(`UPDATE agents SET buried = false WHERE name = 'back'`)
	b.agent("back", `{"generation":5}`, true)
	b.waitFor("its later life", func() bool { return b.published()["agent/t/back"] == `{"generation":5}` })
	_ = stop()
}

// The broker goes away in the middle of a record: nobody knows whether it is there, and nobody will.
func TestARelayEndsAlsoWhenKafkaNeverAnswers(t *testing.T) {
	b := newBench(t)
	broker, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	r := b.relay()
	r.limit, r.Opts = time.Second, []kgo.Opt{kgo.SeedBrokers(broker.ListenAddrs()...)}
	cl, err := kgo.NewClient(r.Opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := kafka.EnsureTopics(t.Context(), cl, -1, kafka.ControlTopic(topics.Names{})); err != nil {
		t.Fatal(err)
	}
	broker.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		return nil, errors.New("the connection breaks"), true
	})
	b.agent("a", `{"generation":1}`, true)
	ended := make(chan error, 1)
	go func() { ended <- r.Run(t.Context()) }()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("it ended without an error")
		}
	case <-time.After(time.Minute):
		t.Fatal("it waits for ever")
	}
}

func TestTheBacklogIsAsOldAsItsOldestChange(t *testing.T) {
	b := newBench(t)
	backlog := func() Backlog {
		t.Helper()
		got, err := b.relay().Backlog(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := backlog(); got != (Backlog{}) {
		t.Errorf("of nothing: %v", got)
	}
	b.exec(`INSERT INTO outbox (key, value, created_at) VALUES ('agent/t/a', '{}', now() - interval '40 s'), ('agent/t/b', '{}', now())`)
	if got := backlog(); got.Changes != 2 || got.Age < 40*time.Second || got.Age > time.Minute {
		t.Errorf("%v", got)
	}
}
