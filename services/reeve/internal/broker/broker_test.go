package broker_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/services/reeve/internal/broker"
)

// directory, set in the environment, makes the test binary a broker on that directory, to be killed.
const directory = "BROKER_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(directory); dir != "" {
		serve(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

func serve(dir string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	b, err := broker.Start(broker.Config{Dir: dir, Listener: l})
	if err != nil {
		panic(err)
	}
	fmt.Println(b.Address())
	_, _ = os.Stdin.Read(make([]byte, 1)) // until the test is gone, or kills
}

func start(t *testing.T, dir string) *broker.Broker {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b, err := broker.Start(broker.Config{Dir: dir, Listener: l, Reserved: func(topic string) bool { return strings.HasPrefix(topic, "reeve.") }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func dial(t *testing.T, address string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	c, err := kgo.NewClient(append(opts, kgo.SeedBrokers(address), kgo.MetadataMinAge(10*time.Millisecond))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestATopicThatAProducerNamesIsMade(t *testing.T) {
	b := start(t, t.TempDir())
	ctx := within(t)
	c := dial(t, b.Address(), kgo.AllowAutoTopicCreation())
	before := time.Now()
	if err := c.ProduceSync(ctx, &kgo.Record{Topic: "github.push", Value: []byte("x")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(before); took > 2*time.Second {
		t.Errorf("the first record took %s", took)
	}
	topics, err := kadm.NewClient(c).ListTopics(ctx, "github.push")
	if err != nil || len(topics["github.push"].Partitions) != 4 {
		t.Errorf("got %v, %v", topics, err)
	}
}

func TestAReservedTopicIsNotMadeByName(t *testing.T) {
	b := start(t, t.TempDir())
	c := dial(t, b.Address(), kgo.AllowAutoTopicCreation(), kgo.UnknownTopicRetries(0))
	err := c.ProduceSync(within(t), &kgo.Record{Topic: "reeve.control", Value: []byte("x")}).FirstErr()
	if !errors.Is(err, kerr.UnknownTopicOrPartition) {
		t.Errorf("got %v", err)
	}
}

// killable starts a broker in a process of its own and returns its address and what kills it.
func killable(ctx context.Context, t *testing.T, dir string) (address string, kill func()) {
	t.Helper()
	child := exec.CommandContext(ctx, os.Args[0])
	child.Env = append(os.Environ(), directory+"="+dir)
	child.Stderr = os.Stderr
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close() })
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fscanln(out, &address); err != nil {
		t.Fatal(err)
	}
	return address, func() {
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = child.Wait()
	}
}

// What a client was told is there after a SIGKILL: records of a topic that it only named, transactions, offsets.
func TestEverythingAcknowledgedSurvivesAKill(t *testing.T) {
	dir, ctx := t.TempDir(), within(t)
	address, kill := killable(ctx, t, dir)
	const n = 300
	func() {
		c := dial(t, address, kgo.AllowAutoTopicCreation(), kgo.TransactionalID("t"), kgo.DefaultProduceTopic("events"))
		defer c.Close()
		for i := range n {
			if err := c.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			if err := c.ProduceSync(ctx, kgo.StringRecord(fmt.Sprint(i))).FirstErr(); err != nil {
				t.Fatal(err)
			}
			if err := c.EndTransaction(ctx, kgo.TryCommit); err != nil {
				t.Fatal(err)
			}
		}
		var offsets kadm.Offsets
		offsets.AddOffset("events", 1, 42, -1)
		if err := kadm.NewClient(c).CommitAllOffsets(ctx, "group", offsets); err != nil {
			t.Fatal(err)
		}
	}()
	kill()

	b := start(t, dir)
	c := dial(t, b.Address(), kgo.ConsumeTopics("events"), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	seen := map[string]bool{}
	for len(seen) < n {
		fetches := c.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("%d of %d records are there: %v", len(seen), n, err)
		}
		fetches.EachRecord(func(r *kgo.Record) { seen[string(r.Value)] = true })
	}
	at, err := kadm.NewClient(c).FetchOffsets(ctx, "group")
	if o, ok := at.Lookup("events", 1); err != nil || !ok || o.At != 42 {
		t.Errorf("the group's offset is %v, %v", o, err)
	}
}

func BenchmarkSyncedTransactions(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	br, err := broker.Start(broker.Config{Dir: b.TempDir(), Listener: l})
	if err != nil {
		b.Fatal(err)
	}
	defer br.Close()
	c, err := kgo.NewClient(kgo.SeedBrokers(br.Address()), kgo.AllowAutoTopicCreation(), kgo.TransactionalID("t"), kgo.DefaultProduceTopic("events"))
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	ctx := context.Background()
	for b.Loop() {
		if err := c.BeginTransaction(); err != nil {
			b.Fatal(err)
		}
		if err := c.ProduceSync(ctx, kgo.StringRecord("x")).FirstErr(); err != nil {
			b.Fatal(err)
		}
		if err := c.EndTransaction(ctx, kgo.TryCommit); err != nil {
			b.Fatal(err)
		}
	}
}

// A topic that is trimmed to its end goes on with the next offset. Were it to begin at 0 again, groups would stand
// beyond its records and skip them.
func TestATrimmedTopicKeepsItsEndOverAKill(t *testing.T) {
	dir, ctx := t.TempDir(), within(t)
	address, kill := killable(ctx, t, dir)
	const n = 10
	func() {
		c := dial(t, address, kgo.DefaultProduceTopic("work"))
		defer c.Close()
		adm := kadm.NewClient(c)
		if _, err := adm.CreateTopic(ctx, 1, -1, nil, "work"); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if err := c.ProduceSync(ctx, kgo.StringRecord(fmt.Sprint(i))).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		for _, at := range []int64{4, n, -1} {
			answers, err := adm.DeleteRecords(ctx, kadm.Offsets{"work": {0: {Topic: "work", Partition: 0, At: at}}})
			if err != nil || answers.Error() != nil {
				t.Fatal(err, answers.Error())
			}
		}
	}()
	kill()

	b := start(t, dir)
	ends, err := kadm.NewClient(dial(t, b.Address())).ListEndOffsets(ctx, "work")
	if err != nil {
		t.Fatal(err)
	}
	if end, _ := ends.Lookup("work", 0); end.Offset != n {
		t.Errorf("the topic ends at %d, want %d", end.Offset, n)
	}
}
