package hop

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/reeve-run/reeve/pkg/security"
)

// A broker that dies and comes back can forget a transaction on some of its partitions. A coordinator that finds a
// partition without a leader, as all are for a moment then, takes it for one of a deleted topic, writes no marker there
// and calls the transaction complete (seen in Kafka 4.3). From then on the partition's read_committed readers stand still,
// a group's offsets stay unstable, and the next transaction of that producer would take the forgotten one along: it would
// commit what was aborted. So after every lost connection each producer looks at its last transaction before it begins
// another one, and writes the markers that are missing.
//
// That needs rights that a secured Kafka may withhold (to read the topics, and to alter the cluster). There it looks from
// outside whether readers stand still, and says what a person has to do (withheld.go).

// offsetsTopic is where Kafka keeps groups' offsets.
const offsetsTopic = "__consumer_offsets"

const (
	// mendPause is between two questions to a coordinator that doesn't know yet.
	mendPause = 100 * time.Millisecond
	// mendLimit is how long an answer may take: the client would go on for half a minute where a broker was away.
	mendLimit = 3 * time.Second
)

// memory is what a producer remembers of its last transaction.
type memory struct {
	producer  int64
	epoch     int16
	topics    []string // that it wrote to, beside the group's offsets
	committed bool
}

func remember(producer int64, epoch int16, rs []*kgo.Record) *memory {
	topics, last := map[string]bool{}, ""
	for _, r := range rs {
		if r.Topic != last {
			last = r.Topic
			topics[last] = true
		}
	}
	return &memory{producer: producer, epoch: epoch, topics: slices.Sorted(maps.Keys(topics))}
}

// fate is what a coordinator says of a transaction.
type fate int

const (
	unknown   fate = iota // a later one of the id has begun, or the coordinator won't say
	open                  // not ended
	ending                // decided, and markers are being written
	committed             // over
	aborted
)

// fateOf judges a coordinator's description. Under transactions v2 the end of a transaction raises the epoch, so that a
// completed one with the transaction's own epoch is the one before.
func fateOf(m *memory, t kadm.DescribedTransaction) fate {
	if t.Err != nil || t.ProducerID != m.producer {
		return unknown
	}
	own, next := t.ProducerEpoch == m.epoch, t.ProducerEpoch == m.epoch+1
	switch {
	case own && t.State == "Ongoing":
		return open
	case (own || next) && strings.HasPrefix(t.State, "Prepare"):
		return ending
	case next && t.State == "CompleteCommit":
		return committed
	case next && t.State == "CompleteAbort":
		return aborted
	}
	return unknown
}

// fate asks until it is answered or the context ends.
func (pr *producer) fate(ctx context.Context) (fate, error) {
	adm := kadm.NewClient(pr.cl)
	for {
		asked, cancel := context.WithTimeout(ctx, mendLimit)
		ts, err := adm.DescribeTransactions(asked, pr.id)
		cancel()
		switch {
		case err == nil && !kerr.IsRetriable(ts[pr.id].Err):
			return fateOf(pr.last, ts[pr.id]), nil
		case security.Denied(err), errors.Is(err, kerr.UnsupportedVersion):
			return unknown, nil
		}
		if !sleep(ctx, mendPause) {
			return unknown, ctx.Err()
		}
	}
}

// over waits until the coordinator has done with the last transaction, and says how it ended.
func (pr *producer) over(ctx context.Context) (fate, error) {
	for {
		f, err := pr.fate(ctx)
		if err != nil || f != open && f != ending {
			return f, err
		}
		if f == open && !pr.fencedAt.IsZero() { // its client couldn't end it; this one can't hit another's
			pr.abortOpen(ctx)
		}
		if !sleep(ctx, mendPause) {
			return f, ctx.Err()
		}
	}
}

// abortOpen asks the coordinator to abort the last transaction. Whether it does shows in its fate.
func (pr *producer) abortOpen(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, mendLimit)
	defer cancel()
	req := kmsg.NewPtrEndTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch = pr.id, pr.last.producer, pr.last.epoch
	if _, err := req.RequestWith(ctx, pr.cl); err != nil {
		pr.pool.log.Debug("abort a transaction", slog.String("id", pr.id), slog.Any("error", err))
	}
}

// mend ends the last transaction wherever it was forgotten, and forgets it. It must be over.
func (pr *producer) mend(ctx context.Context) {
	for _, topic := range append(pr.last.topics, offsetsTopic) {
		if !pr.mendTopic(ctx, topic) {
			return // it is looked at again
		}
	}
	pr.last = nil
}

// mendTopic is mend for one topic. It reports false where the context ended first.
func (pr *producer) mendTopic(ctx context.Context, topic string) bool {
	const patience = 3 // tries: a broker that has just come back may not know its topics yet
	log := pr.pool.log.With(slog.String("id", pr.id), slog.String("topic", topic))
	for tries := 0; ; tries++ {
		n, err := pr.writeMissing(ctx, topic)
		if n > 0 {
			log.Warn("the broker had forgotten to end a transaction", slog.Int("partitions", n), slog.Bool("committed", pr.last.committed), slog.Bool("ended", err == nil), slog.Any("error", err))
		}
		switch {
		case err == nil, errors.Is(err, kerr.UnknownTopicOrPartition) && tries == patience: // it is gone
			return true
		case errors.Is(err, kerr.UnsupportedVersion): // nor does such a broker forget it
			return true
		case security.Denied(err):
			pr.pool.withhold(&withheld{last: *pr.last, id: pr.id, topic: topic, since: time.Now()})
			return true
		}
		if !sleep(ctx, mendPause) {
			return false
		}
	}
}

// writeMissing writes the markers that a topic's partitions lack, and says how many these were.
func (pr *producer) writeMissing(ctx context.Context, topic string) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, mendLimit)
	defer cancel()
	adm := kadm.NewClient(pr.cl)
	missing, err := missingMarkers(ctx, adm, pr.last, topic)
	for _, m := range missing {
		err = errors.Join(err, writeMarker(ctx, adm, m.TxnMarkers))
	}
	return len(missing), err
}

// marker is a marker that is missing, and where its transaction began.
type marker struct {
	kadm.TxnMarkers
	place
}

// missingMarkers are those that a topic's partitions lack of a transaction that is over.
func missingMarkers(ctx context.Context, adm *kadm.Client, m *memory, topic string) (missing []marker, err error) {
	set := kadm.TopicsSet{}
	set.Add(topic)
	found, err := adm.DescribeProducers(ctx, set)
	if err != nil {
		return nil, err
	}
	if len(found[topic].Partitions) == 0 {
		return nil, kerr.UnknownTopicOrPartition
	}
	found.EachPartition(func(p kadm.DescribedProducersPartition) { err = errors.Join(err, p.Err) })
	found.EachProducer(func(p kadm.DescribedProducer) {
		if p.ProducerID != m.producer || p.ProducerEpoch != m.epoch || p.CurrentTxnStartOffset < 0 {
			return
		}
		at := kadm.TopicsSet{}
		at.Add(topic, p.Partition)
		missing = append(missing, marker{kadm.TxnMarkers{ProducerID: m.producer, ProducerEpoch: m.epoch, Commit: m.committed, CoordinatorEpoch: max(p.CoordinatorEpoch, 0), Topics: at},
			place{p.Partition, p.CurrentTxnStartOffset}})
	})
	return missing, err
}

func writeMarker(ctx context.Context, adm *kadm.Client, m kadm.TxnMarkers) error {
	written, err := adm.WriteTxnMarkers(ctx, m)
	written.EachPartition(func(p kadm.TxnMarkersPartitionResponse) { err = errors.Join(err, p.Err) })
	return err
}

// disconnects tells the pool of lost connections. A client notices the loss of one only where it awaits an answer, as the
// group's member always does and an idle producer never.
type disconnects struct{ pool atomic.Pointer[Pool] }

var _ kgo.HookBrokerDisconnect = (*disconnects)(nil)

func (d *disconnects) OnBrokerDisconnect(kgo.BrokerMetadata, net.Conn) {
	if p := d.pool.Load(); p != nil {
		p.doubt()
	}
}

// doubt has the last transactions looked at: the broker may have died. One that ended long before has its markers, and
// connections that are idle for longer are closed as a matter of course.
func (p *Pool) doubt() {
	const long = 10 * time.Second
	for i := range p.all {
		if pr := p.all[i].Load(); pr != nil && time.Since(time.Unix(0, pr.busy.Load())) < long {
			pr.suspect.Store(true)
		}
	}
	select {
	case p.look <- struct{}{}:
	default: // it looks already
	}
}

// doubted reports whether the last transaction has to be looked at before another one. The producer is the caller's.
func (pr *producer) doubted() bool { return pr.suspect.Load() && pr.last != nil }

// release gives a producer back, or to the mending where its last transaction is doubted.
func (p *Pool) release(pr *producer) {
	if pr.doubted() {
		p.doubted <- pr // there is room for all
		return
	}
	p.free <- pr
}

// mendAll looks at doubted transactions until the pool is closed. Each has its own time: one that wrote to a partition
// without a leader waits for it, and the other producers don't.
func (p *Pool) mendAll() {
	for {
		select {
		case <-p.life.Done():
			return
		case pr := <-p.doubted:
			p.done.Go(func() { p.mend(pr) })
		case <-p.look:
			p.sortOut()
		}
	}
}

// mend looks at a producer's last transaction, and gives the producer back.
func (p *Pool) mend(pr *producer) {
	pr.suspect.Store(false) // a connection that is lost meanwhile counts again
	if f, err := pr.over(p.life); err == nil {
		if f != unknown {
			pr.last.committed = f == committed
		}
		pr.mend(p.life)
	}
	p.free <- pr
}

// sortOut takes the doubted ones from those that are free.
func (p *Pool) sortOut() {
	for range len(p.free) {
		select {
		case pr := <-p.free:
			p.release(pr)
		default: // taken meanwhile: whoever did looks at it
			return
		}
	}
}
