package peek

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Ranges are offsets to look at, by topic and partition.
type Ranges map[string]map[int32]Bounds

// TopicBounds reads the bounds of several topics' partitions, as a read_committed reader sees them. A topic that doesn't
// exist, or that Kafka doesn't show, is left out.
func TopicBounds(ctx context.Context, cl *kgo.Client, topics ...string) (Ranges, error) {
	out := Ranges{}
	if len(topics) == 0 {
		return out, nil
	}
	adm := kadm.NewClient(cl)
	starts, err := adm.ListStartOffsets(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("read start offsets of %d topics: %w", len(topics), err)
	}
	ends, err := adm.ListCommittedOffsets(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("read end offsets of %d topics: %w", len(topics), err)
	}
	for topic, partitions := range ends {
		for p, end := range partitions {
			if end.Err != nil && !errors.Is(end.Err, kerr.UnknownTopicOrPartition) && !errors.Is(end.Err, kerr.TopicAuthorizationFailed) {
				return nil, fmt.Errorf("read end offsets of %s: %w", topic, end.Err)
			}
			start, ok := starts.Lookup(topic, p)
			if !ok || end.Err != nil || start.Err != nil {
				continue
			}
			if out[topic] == nil {
				out[topic] = map[int32]Bounds{}
			}
			out[topic][p] = Bounds{start.Offset, end.Offset}
		}
	}
	return out, nil
}

// open gives where to read ranges from, and their ends; those that have nothing in them are left out.
func (ranges Ranges) open() (starts map[string]map[int32]kgo.Offset, ends map[place]int64) {
	starts, ends = map[string]map[int32]kgo.Offset{}, map[place]int64{}
	for topic, partitions := range ranges {
		for p, at := range partitions {
			if at.Start >= at.End {
				continue
			}
			if starts[topic] == nil {
				starts[topic] = map[int32]kgo.Offset{}
			}
			starts[topic][p] = kgo.NewOffset().At(at.Start)
			ends[place{topic, p}] = at.End
		}
	}
	return starts, ends
}

// Scan reads the committed records of ranges, in order within a partition, and hands them to each.
func Scan(ctx context.Context, opts []kgo.Opt, ranges Ranges, each func(*kgo.Record)) error {
	starts, open := ranges.open()
	if len(open) == 0 {
		return nil
	}
	// Without a reset: an offset that has been deleted meanwhile is an error, not a wait for what comes next.
	cl, err := kgo.NewClient(append(opts[:len(opts):len(opts)], kgo.ConsumePartitions(starts), kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.DisableFetchSessions(), kgo.FetchMaxWait(500*time.Millisecond))...)
	if err != nil {
		return fmt.Errorf("configure a reader: %w", err)
	}
	defer cl.Close()
	for len(open) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := firstError(ctx, fetches); err != nil {
			return fmt.Errorf("read records: %w", err)
		}
		fetches.EachPartition(func(f kgo.FetchTopicPartition) {
			at := place{f.Topic, f.Partition}
			if end, ok := open[at]; ok && scanned(f.Records, end, each) {
				delete(open, at)
				cl.PauseFetchPartitions(map[string][]int32{f.Topic: {f.Partition}})
			}
		})
	}
	return nil
}

type place struct {
	topic     string
	partition int32
}

// scanned hands on the records below end, without markers, and reports whether end is reached.
func scanned(records []*kgo.Record, end int64, each func(*kgo.Record)) bool {
	for _, r := range records {
		if r.Offset < end && !r.Attrs.IsControl() {
			each(r)
		}
		if r.Offset+1 >= end {
			return true
		}
	}
	return false
}

// Count counts committed records: of each range up to exact offsets one by one; a longer one counts as long as it is.
func Count(ctx context.Context, opts []kgo.Opt, ranges Ranges, exact int64) (map[string]int64, error) {
	out, short := map[string]int64{}, Ranges{}
	for topic, partitions := range ranges {
		out[topic] = 0
		short[topic] = map[int32]Bounds{}
		for p, at := range partitions {
			if at.End-at.Start > exact {
				out[topic] += at.End - at.Start
				continue
			}
			short[topic][p] = at
		}
	}
	err := Scan(ctx, opts, short, func(r *kgo.Record) { out[r.Topic]++ })
	return out, err
}

const (
	tailSlack  = 16       // offsets that are read beyond what was asked for, since transaction markers take some
	tailRounds = 5        // how often a partition is read further back, four times as far each time
	tailBytes  = 64 << 20 // of values that are held at a time
)

// Tail gives the newest records of topics that are wanted, or with nil of all, at most limit over all topics, the newest
// first; fewer where those before them are many times as many markers and others, or more than 64 MiB.
func Tail(ctx context.Context, cl *kgo.Client, opts []kgo.Opt, limit int, wanted func(*kgo.Record) bool, topics ...string) ([]*kgo.Record, error) {
	bounds, err := TopicBounds(ctx, cl, topics...)
	if err != nil {
		return nil, err
	}
	t := tail{limit: limit, wanted: wanted, found: map[string]map[int32][]*kgo.Record{}}
	back := int64(limit + tailSlack)
	for range tailRounds {
		t.older = map[string]map[int32][]*kgo.Record{}
		next := t.window(bounds, back)
		if len(next) == 0 {
			break
		}
		if err := Scan(ctx, opts, next, t.add); err != nil {
			return nil, err
		}
		t.merge()
		back *= 4
	}
	return t.newest(), nil
}

// tail collects the newest records of partitions, round by round further back.
type tail struct {
	limit        int
	wanted       func(*kgo.Record) bool // nil: all
	bytes        int
	found, older map[string]map[int32][]*kgo.Record // by topic and partition, the oldest first
}

// window takes the next piece to read off the ends of the bounds of partitions that have too few records yet.
func (t *tail) window(bounds Ranges, back int64) Ranges {
	next := Ranges{}
	for topic, partitions := range bounds {
		for p, at := range partitions {
			if at.Start >= at.End || len(t.found[topic][p]) >= t.limit || t.bytes > tailBytes {
				continue
			}
			if next[topic] == nil {
				next[topic] = map[int32]Bounds{}
			}
			from := max(at.Start, at.End-back)
			next[topic][p] = Bounds{from, at.End}
			partitions[p] = Bounds{at.Start, from}
		}
	}
	return next
}

func (t *tail) add(r *kgo.Record) {
	if t.wanted != nil && !t.wanted(r) {
		return
	}
	if t.older[r.Topic] == nil {
		t.older[r.Topic] = map[int32][]*kgo.Record{}
	}
	list := t.older[r.Topic][r.Partition]
	list = append(list, r)
	t.bytes += len(r.Value)
	for len(list) > t.limit || len(list) > 1 && t.bytes > tailBytes {
		t.bytes -= len(list[0].Value)
		list[0], list = nil, list[1:]
	}
	t.older[r.Topic][r.Partition] = list
}

func (t *tail) merge() {
	for topic, partitions := range t.older {
		for p, list := range partitions {
			if t.found[topic] == nil {
				t.found[topic] = map[int32][]*kgo.Record{}
			}
			t.found[topic][p] = append(list, t.found[topic][p]...)
		}
	}
}

func (t *tail) newest() []*kgo.Record {
	var all []*kgo.Record
	for _, partitions := range t.found {
		for _, list := range partitions {
			all = append(all, list...)
		}
	}
	slices.SortFunc(all, func(a, b *kgo.Record) int {
		return cmp.Or(b.Timestamp.Compare(a.Timestamp), cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition), cmp.Compare(b.Offset, a.Offset))
	})
	return all[:min(len(all), t.limit)]
}

const (
	pickGap  = 512 // offsets between two wanted records that are read over rather than jumped
	pickRuns = 8   // of a partition at most
)

// Pick reads the records at offsets of a topic, by partition; those that are gone are left out.
func Pick(ctx context.Context, cl *kgo.Client, opts []kgo.Opt, topic string, offsets map[int32][]int64) ([]*kgo.Record, error) {
	bounds, err := TopicBounds(ctx, cl, topic)
	if err != nil {
		return nil, err
	}
	wanted, left := map[int32]map[int64]bool{}, map[int32][]Bounds{}
	for p, list := range offsets {
		at := bounds[topic][p]
		list = slices.DeleteFunc(slices.Sorted(slices.Values(list)), func(o int64) bool { return o < at.Start || o >= at.End })
		left[p], wanted[p] = runs(list), map[int64]bool{}
		for _, o := range list {
			wanted[p][o] = true
		}
	}
	var out []*kgo.Record
	for range pickRuns {
		next := map[int32]Bounds{}
		for p, list := range left {
			if len(list) > 0 {
				next[p], left[p] = list[0], list[1:]
			}
		}
		err := Scan(ctx, opts, Ranges{topic: next}, func(r *kgo.Record) {
			if wanted[r.Partition][r.Offset] {
				out = append(out, r)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// runs cuts sorted offsets into ranges that are read in one piece each, at most pickRuns.
func runs(offsets []int64) []Bounds {
	for gap := int64(pickGap); ; gap *= 4 {
		var out []Bounds
		for _, o := range offsets {
			if last := len(out) - 1; last >= 0 && o-out[last].End < gap {
				out[last].End = o + 1
			} else {
				out = append(out, Bounds{o, o + 1})
			}
		}
		if len(out) <= pickRuns {
			return out
		}
	}
}
