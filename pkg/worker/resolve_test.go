package worker

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
)

// settling is an engine that isn't started, with completed attempts that wait for their transaction.
func settling(results ...Result) (*Engine, []*slot) {
	a := &spec.Agent{Topic: "orders", Name: "biller", Config: spec.NewConfig(spec.SDK), Process: spec.NewProcess()}
	e := New(Config{Spec: a})
	var slots []*slot
	for i, r := range results {
		s := &slot{eng: e, part: &partition{}, result: r, attempt: Attempt{Record: &kgo.Record{Offset: int64(i)}, Number: 1}}
		slots = append(slots, s)
	}
	e.finished = slots
	return e, slots
}

func publishing(n, size int) Result {
	r := Result{Outcome: task.Completed}
	for range n {
		r.Publish = append(r.Publish, &kgo.Record{Topic: "invoices", Value: make([]byte, size)})
	}
	return r
}

// Whatever of an attempt's records is refused, it is the attempt that fails: nothing waits for the topic.
func TestSeveralRefusalsOfOneAttemptAreOneFailure(t *testing.T) {
	e, slots := settling(publishing(3, 1))
	e.takeFinished(groupCommit)
	tx := &transaction{batch: slots}
	refused := &hop.RecordsError{Refused: map[int]error{}}
	for i, r := range slots[0].published() {
		tx.owners, tx.tx.Records, refused.Refused[i] = append(tx.owners, slots[0]), append(tx.tx.Records, r), kerr.MessageTooLarge
	}
	if !e.resolve(tx, refused) || slots[0].verdict.Settled != task.SettledDLQ {
		t.Errorf("%+v", slots[0].verdict)
	}
	if len(e.delivery.waits) > 0 || e.delivery.apart {
		t.Errorf("%v wait", e.delivery.waits)
	}
}

// A topic that a reply has found without brokers isn't said to be missing, and its other partitions take what is published.
func TestWhatIsPublishedToALamePartitionFailsForThat(t *testing.T) {
	e, slots := settling(publishing(1, 1), publishing(1, 1))
	e.takeFinished(groupCommit)
	lame := lameness{of: []bool{false, false}, some: true}
	slots[0].published()[0].Key, slots[1].published()[0].Key = []byte("a"), []byte("d")
	at, other := route.Partition([]byte("a"), 2), route.Partition([]byte("d"), 2)
	if at == other {
		t.Fatal("both keys live on one partition")
	}
	lame.of[at] = true
	e.delivery.topics.learnLame("invoices", lame)
	for _, s := range slots {
		e.checkPublished(t.Context(), s)
	}
	if r := slots[0].result; r.Class != task.ClassDependency || !strings.Contains(r.Message, "no brokers that take records") {
		t.Errorf("%+v", r)
	}
	if r := slots[1].result; r.Outcome != task.Completed {
		t.Errorf("on the other partition: %+v", r)
	}
}

// A transaction has seconds to be written in, and the next one waits for it.
func TestATransactionIsBoundedInBytes(t *testing.T) {
	large := Result{Outcome: task.Completed, Value: make([]byte, batchBytes/4)}
	e, slots := settling(large, publishing(2, batchBytes/4), publishing(2, batchBytes/4), publishing(5, batchBytes/4))
	for _, want := range []int{3, 1, 0} {
		if batch, _, _ := e.takeFinished(groupCommit); len(batch) != want {
			t.Fatalf("%d of %d taken, want %d", len(batch), len(slots), want)
		}
	}
}

// The topic is named while no lock is held. With -race this fails where a changed spec is looked at.
func TestADeadLetterTopicIsNamedWhileTheSpecChanges(t *testing.T) {
	e, _ := settling()
	changed := make(chan struct{})
	go func() {
		defer close(changed)
		e.Update(e.cfg.Spec)
	}()
	if name := e.dlq(); name != "reeve.dlq.orders.biller" {
		t.Error(name)
	}
	<-changed
}
