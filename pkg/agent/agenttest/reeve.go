package agenttest

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/agent"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
)

const (
	// patience is how long a test waits for something before it fails.
	patience = 30 * time.Second
	// userPartitions is how many partitions a topic has that a test or an agent names.
	userPartitions = 2
)

// Reeve is an installation within a test. Its methods fail the test where something can't be done, so that they are to
// be called from its goroutine.
type Reeve struct {
	t        testing.TB
	names    topics.Names
	brokers  []string
	client   *kgo.Client
	registry *registry
	outcomes *reader
	runners  int
}

// Start starts one; it ends with the test.
func Start(t testing.TB) *Reeve {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatalf("start a broker: %v", err)
	}
	t.Cleanup(cluster.Close)
	r := &Reeve{t: t, brokers: cluster.ListenAddrs()}
	r.client = r.connect(kgo.RecordPartitioner(partitioner()))
	t.Cleanup(r.client.Close)
	adm := kadm.NewClient(r.client)
	made := []string{r.names.Control(), r.names.Commands(), r.names.Status(), r.names.Outcomes(), r.names.Webhooks()}
	for _, tier := range topics.DefaultTiers() {
		made = append(made, r.names.Retry(tier))
	}
	if err := create(t.Context(), adm, 1, made...); err != nil {
		t.Fatal(err)
	}
	d := &dispatcher{names: r.names, brokers: r.brokers, client: r.client, log: t}
	t.Cleanup(d.stop)
	d.start()
	r.registry = startRegistry(r.names, r.client, d)
	t.Cleanup(r.registry.server.Close)
	r.outcomes = r.read(r.names.Outcomes())
	return r
}

func (r *Reeve) connect(o ...kgo.Opt) *kgo.Client {
	r.t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(r.brokers...), kgo.DisableClientMetrics(), kgo.MetadataMinAge(20 * time.Millisecond)}, o...)...)
	if err != nil {
		r.t.Fatal(err)
	}
	return cl
}

// Options are those of a Runner for this installation, a program of its own each time.
func (r *Reeve) Options() agent.Options {
	r.runners++
	return agent.Options{
		Brokers: r.brokers, URL: r.registry.server.URL, Node: "test-" + strconv.Itoa(r.runners), CreateTopics: true,
		Logger: testLogger(r.t), Environ: []string{},
	}
}

// Run runs agents in a Runner of their own until the test ends, and returns when they are served.
func (r *Reeve) Run(agents ...agent.Agent) *agent.Runner {
	r.t.Helper()
	return r.RunWith(r.Options(), agents...)
}

// RunWith is Run with options of the test's own, made from those of Options.
func (r *Reeve) RunWith(o agent.Options, agents ...agent.Agent) *agent.Runner {
	r.t.Helper()
	runner, err := agent.NewRunner(o)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, a := range agents {
		if err := runner.Register(r.t.Context(), a); err != nil {
			r.t.Fatal(err)
		}
	}
	if err := runner.Start(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := runner.Shutdown(ctx); err != nil {
			r.t.Error(err)
		}
	})
	select {
	case <-runner.Ready():
	case <-time.After(patience):
		r.t.Fatalf("the agents aren't served: %v", runner.Healthy())
	}
	return runner
}

// Published is an event on its topic.
type Published struct {
	// TaskID is topic/partition/offset, which is the id of its task for each agent.
	TaskID string
	reeve  *Reeve
}

// Publish publishes an event with a content, []byte as it is and all else in Reeve's envelope. The topic is made where it
// doesn't exist.
func (r *Reeve) Publish(topic string, content any) Published {
	r.t.Helper()
	if raw, ok := content.([]byte); ok {
		return r.PublishRecord(&kgo.Record{Topic: topic, Value: raw})
	}
	return r.PublishMessage(agent.Message{Topic: topic, Content: content})
}

// PublishMessage publishes an event in Reeve's envelope.
func (r *Reeve) PublishMessage(m agent.Message) Published {
	r.t.Helper()
	record, err := m.Record()
	if err != nil {
		r.t.Fatal(err)
	}
	return r.PublishRecord(record)
}

// PublishRecord publishes a record as it is.
func (r *Reeve) PublishRecord(record *kgo.Record) Published {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	if err := create(ctx, kadm.NewClient(r.client), userPartitions, record.Topic); err != nil {
		r.t.Fatal(err)
	}
	record.Partition = anyPartition
	written, err := r.client.ProduceSync(ctx, record).First()
	if err != nil {
		r.t.Fatalf("publish to %s: %v", record.Topic, err)
	}
	return Published{TaskID: task.Origin{Topic: written.Topic, Partition: written.Partition, Offset: written.Offset}.ID(), reeve: r}
}

// Outcome is how an attempt ended and what became of its task, as the outcomes topic says.
type Outcome struct {
	Agent   string // topic/name
	Attempt int
	Outcome task.Outcome
	Settled task.Settled
	Version string     // of the program that ran it
	Class   task.Class // of a failure
	Error   string
	// JSON is the result, or what is known of the failure.
	JSON json.RawMessage
}

// Decode decodes the result of a completed task.
func (o Outcome) Decode(t testing.TB, v any) {
	t.Helper()
	if o.Outcome != task.Completed {
		t.Fatalf("the task isn't completed but %s: %s", o.Outcome, o.Error)
	}
	if err := json.Unmarshal(o.JSON, v); err != nil {
		t.Fatalf("decode the result %s: %v", o.JSON, err)
	}
}

// Outcome waits until an agent, by its name, is done with the event, and says how that ended.
func (p Published) Outcome(name string) Outcome {
	p.reeve.t.Helper()
	all := p.Attempts(name)
	return all[len(all)-1]
}

// Attempts waits until an agent is done with the event, and gives all its attempts in their order.
func (p Published) Attempts(name string) []Outcome {
	p.reeve.t.Helper()
	var all []Outcome
	p.reeve.outcomes.await(p.reeve.t, fmt.Sprintf("the outcome of %s for the agent %s", p.TaskID, name), func(rs []*kgo.Record) bool {
		var final bool
		all, final = attempts(rs, p.TaskID, name)
		return final
	})
	return all
}

// attempts picks one task's outcomes; final says that it is finished.
func attempts(rs []*kgo.Record, id, name string) (all []Outcome, final bool) {
	for _, r := range rs {
		if string(r.Key) != id {
			continue
		}
		o, last := outcomeOf(r)
		if _, of := cutAgent(o.Agent); of == name {
			all, final = append(all, o), last
		}
	}
	return all, final
}

// Records waits until a topic holds a number of records that are committed, and gives all that it holds then: what an
// agent published, replies.
func (r *Reeve) Records(topic string, n int) []*kgo.Record {
	r.t.Helper()
	reader := r.read(topic)
	return reader.await(r.t, fmt.Sprintf("%d records in the topic %s", n, topic), func(rs []*kgo.Record) bool { return len(rs) >= n })
}

// DeadLetters waits until an agent has a number of dead letters, and gives all that it has then.
func (r *Reeve) DeadLetters(topic, name string, n int) []*kgo.Record {
	r.t.Helper()
	return r.Records(r.names.DLQ(topic, name), n)
}

// reader collects what a topic holds.
type reader struct {
	mu      sync.Mutex
	records []*kgo.Record
	more    chan struct{}
}

// read starts a reader, which ends with the test.
func (r *Reeve) read(topic string) *reader {
	r.t.Helper()
	cl := r.connect(kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.MetadataMaxAge(100*time.Millisecond), kgo.FetchMaxWait(250*time.Millisecond))
	rd := &reader{more: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { rd.run(ctx, cl) })
	r.t.Cleanup(func() {
		cancel()
		done.Wait()
		cl.Close()
	})
	return rd
}

func (rd *reader) run(ctx context.Context, cl *kgo.Client) {
	for ctx.Err() == nil {
		records := cl.PollFetches(ctx).Records()
		rd.mu.Lock()
		rd.records = append(rd.records, records...)
		rd.mu.Unlock()
		select {
		case rd.more <- struct{}{}:
		default:
		}
	}
}

// await waits until what was read is enough.
func (rd *reader) await(t testing.TB, what string, enough func([]*kgo.Record) bool) []*kgo.Record {
	t.Helper()
	late := time.After(patience)
	for {
		rd.mu.Lock()
		records := rd.records[:len(rd.records):len(rd.records)]
		rd.mu.Unlock()
		if enough(records) {
			return records
		}
		select {
		case <-rd.more:
		case <-late:
			t.Fatalf("waited %s for %s", patience, what)
		}
	}
}
