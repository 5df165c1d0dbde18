package redrive

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/offsets"
)

// scan reads the open dead letters below offsets, partition by partition in their order.
type scan struct {
	cl      *kgo.Client
	to      target
	ledgers map[int32]offsets.Ledger // as of the beginning
	from    map[int32]int64          // behind the last open letter
	ends    map[int32]int64          // of the partitions that aren't read to their end
	tails   map[int32]offsets.Range  // what is behind the last open letter, of those that are
}

// newScan begins where the ledgers say, and ends at the ends, or where the log ends by now.
func newScan(ctx context.Context, opts []kgo.Opt, topic string, to target, ledgers map[int32]offsets.Ledger, ends map[int32]int64) (*scan, error) {
	s := &scan{to: to, ledgers: ledgers, from: map[int32]int64{}, ends: map[int32]int64{}, tails: map[int32]offsets.Range{}}
	cl, err := kgo.NewClient(append(opts[:len(opts):len(opts)],
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.DisableFetchSessions(), kgo.ConsumeResetOffset(kgo.NoResetOffset()))...)
	if err != nil {
		return nil, fmt.Errorf("configure a reader of %s: %w", topic, err)
	}
	s.cl = cl
	adm := kadm.NewClient(cl)
	starts, err1 := adm.ListStartOffsets(ctx, topic)
	stable, err2 := adm.ListCommittedOffsets(ctx, topic)
	if err := errors.Join(err1, err2, starts.Error(), stable.Error()); err != nil {
		cl.Close()
		return nil, fmt.Errorf("read the bounds of %s: %w", topic, err)
	}
	at := map[int32]kgo.Offset{}
	for p, l := range ledgers {
		start, _ := starts.Lookup(topic, p)
		stable, ok := stable.Lookup(topic, p)
		first, end := max(l.Low, start.Offset), min(ends[p], stable.Offset)
		if !ok || first >= end {
			continue
		}
		at[p], s.from[p], s.ends[p] = kgo.NewOffset().At(first), l.Low, end
	}
	if len(at) > 0 {
		cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: at})
	}
	return s, nil
}

func (s *scan) close() { s.cl.Close() }

// done reports whether everything is read.
func (s *scan) done() bool { return len(s.ends) == 0 }

// next waits for some more records, and hands on those that are open.
func (s *scan) next(ctx context.Context, each func(*letter)) error {
	const atOnce = 1000
	fetches := s.cl.PollRecords(ctx, atOnce)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for _, e := range fetches.Errors() {
		return fmt.Errorf("read %s/%d: %w", e.Topic, e.Partition, e.Err)
	}
	fetches.EachRecord(func(r *kgo.Record) {
		p := r.Partition
		end, reading := s.ends[p]
		if !reading {
			return
		}
		if r.Offset < end && !r.Attrs.IsControl() && s.ledgers[p].Open(r.Offset) {
			l := &letter{record: r, from: s.from[p]}
			s.to.read(l)
			each(l)
			s.from[p] = r.Offset + 1
		}
		if r.Offset+1 >= end {
			s.tails[p] = offsets.Range{From: s.from[p], To: end}
			delete(s.ends, p)
			s.cl.PauseFetchPartitions(map[string][]int32{r.Topic: {p}})
		}
	})
	return nil
}
