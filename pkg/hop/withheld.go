package hop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/security"
)

const (
	// withheldLook is how often it is looked at transactions that this process may not see to.
	withheldLook = 2 * time.Second
	// withheldGrace is how long readers may stand still before a person is told: a transaction that goes on ends until then.
	withheldGrace = 3 * TransactionTimeout
	// withheldLimit bounds a look.
	withheldLimit = 10 * time.Second
)

// withheld is what a broker may have forgotten of a transaction on one topic, where this process may not look or may not
// write what is missing.
type withheld struct {
	last  memory
	id    string // of the producer
	topic string
	since time.Time
	ends  map[int32]int64 // of the topic's partitions when it was first looked at: the transaction stands below
	stuck []place
}

// place is where readers of committed records stand still.
type place struct {
	partition int32
	offset    int64
}

// withholding is what a pool knows of such transactions.
type withholding struct {
	mu   sync.Mutex
	all  []*withheld // while there are any, somebody looks at them
	told string
}

// withhold has a transaction looked at until it is ended on the topic. One that is looked at already, as where the producer
// has met it before, stays as it is.
func (p *Pool) withhold(w *withheld) {
	p.withheld.mu.Lock()
	defer p.withheld.mu.Unlock()
	if slices.ContainsFunc(p.withheld.all, w.same) {
		return
	}
	p.withheld.all = append(p.withheld.all, w)
	if len(p.withheld.all) == 1 && p.life.Err() == nil {
		p.done.Go(p.watchWithheld)
	}
}

// same reports whether another one is about the same transaction on the same topic.
func (w *withheld) same(other *withheld) bool {
	return w.topic == other.topic && w.id == other.id && w.last.producer == other.last.producer && w.last.epoch == other.last.epoch
}

// watchWithheld looks at what is withheld until nothing is, and tells of it.
func (p *Pool) watchWithheld() {
	for sleep(p.life, withheldLook) {
		if p.lookAtWithheld(p.life) == 0 {
			return
		}
	}
	p.tellWithheld("")
}

// lookAtWithheld looks once at all, and says how many are left.
func (p *Pool) lookAtWithheld(ctx context.Context) int {
	ctx, cancel := context.WithTimeout(ctx, withheldLimit)
	defer cancel()
	p.withheld.mu.Lock()
	all := slices.Clone(p.withheld.all)
	p.withheld.mu.Unlock()
	cl, err := kgo.NewClient(p.cfg.Opts...)
	if err != nil {
		p.log.Warn("look at transactions that may not be ended", slog.Any("error", err))
		return len(all)
	}
	defer cl.Close()
	gone := map[*withheld]bool{}
	for _, w := range all {
		over, err := w.look(ctx, kadm.NewClient(cl), time.Now())
		if gone[w] = over; err != nil && ctx.Err() == nil {
			p.log.Debug("look at a transaction that may not be ended", slog.String("id", w.id), slog.String("topic", w.topic), slog.Any("error", err))
		}
	}
	p.withheld.mu.Lock()
	p.withheld.all = slices.DeleteFunc(p.withheld.all, func(w *withheld) bool { return gone[w] })
	left := slices.Clone(p.withheld.all)
	p.withheld.mu.Unlock()
	p.tellWithheld(withheldMessage(left))
	return len(left)
}

// tellWithheld tells what has changed; "" takes it back.
func (p *Pool) tellWithheld(message string) {
	p.withheld.mu.Lock()
	before := p.withheld.told
	p.withheld.told = message
	p.withheld.mu.Unlock()
	switch {
	case message == before:
	case p.cfg.Withheld == nil:
		p.log.Warn("a transaction isn't ended everywhere", slog.String("message", message))
	case message == "":
		p.cfg.Withheld("every transaction is ended, as far as this process sees", true)
	default:
		p.cfg.Withheld(message, false)
	}
}

// look finds where the transaction isn't ended, and ends it if it may by now. over says that nothing is left to do.
func (w *withheld) look(ctx context.Context, adm *kadm.Client, now time.Time) (over bool, err error) {
	missing, err := missingMarkers(ctx, adm, &w.last, w.topic)
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return true, nil
	case security.Denied(err):
		return w.lookFromOutside(ctx, adm, now)
	case err != nil:
		return false, err
	}
	w.stuck = nil
	for _, m := range missing {
		if err := writeMarker(ctx, adm, m.TxnMarkers); err != nil {
			w.stuck = append(w.stuck, m.place)
		}
	}
	return len(w.stuck) == 0, nil
}

// lookFromOutside goes by where readers of committed records get to, where producers may not be looked at. Where not even
// that may be seen there is nothing to wait for.
func (w *withheld) lookFromOutside(ctx context.Context, adm *kadm.Client, now time.Time) (over bool, err error) {
	if w.ends == nil {
		listed, err := adm.ListEndOffsets(ctx, w.topic)
		if err == nil {
			err = listed.Error()
		}
		if err != nil {
			return security.Denied(err) || errors.Is(err, kerr.UnknownTopicOrPartition), err
		}
		w.ends = offsetsOf(listed[w.topic])
	}
	listed, err := adm.ListCommittedOffsets(ctx, w.topic)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return security.Denied(err) || errors.Is(err, kerr.UnknownTopicOrPartition), err
	}
	below := standing(w.ends, offsetsOf(listed[w.topic]))
	if w.stuck = nil; now.Sub(w.since) >= withheldGrace {
		w.stuck = below
	}
	return len(below) == 0, nil
}

func offsetsOf(listed map[int32]kadm.ListedOffset) map[int32]int64 {
	out := map[int32]int64{}
	for p, o := range listed {
		out[p] = o.Offset
	}
	return out
}

// standing are the partitions whose readers haven't got to where the partition ended before.
func standing(ends, stable map[int32]int64) []place {
	var out []place
	for _, p := range slices.Sorted(maps.Keys(ends)) {
		if at, ok := stable[p]; ok && at < ends[p] {
			out = append(out, place{p, at})
		}
	}
	return out
}

// withheldMessage says where readers stand still, since when and what to do; "" where nothing is known to stand.
func withheldMessage(all []*withheld) string {
	const most = 5
	var where []string
	hint, lost := "", false
	for _, w := range all {
		for _, at := range w.stuck {
			where = append(where, fmt.Sprintf("%s/%d at offset %d since %s", w.topic, at.partition, at.offset, w.since.UTC().Format(time.RFC3339)))
			if hint == "" {
				hint = fmt.Sprintf("kafka-transactions.sh --bootstrap-server HOST:PORT abort --topic %s --partition %d --start-offset %d", w.topic, at.partition, at.offset)
			}
			lost = lost || w.last.committed
		}
	}
	if len(where) == 0 {
		return ""
	}
	text := strings.Join(slices.Compact(where[:min(len(where), most)]), ", ")
	if more := len(where) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	text = "a broker that died has forgotten to end a transaction, and readers of committed records stand still: " + text +
		". Kafka's ACLs don't let this process end it: grant it Read on the topic and Alter on the cluster, and it does (`reeve acls --mend` lists these rights); or end it by hand: " + hint
	if lost {
		text += " (what it had committed is lost by that)"
	}
	return text
}
