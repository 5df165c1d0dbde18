package dispatch

import (
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/offsets"
)

// held is what is polled and not moved of one partition.
type held struct {
	topicID [16]byte
	queue   []*kgo.Record
	bytes   int
	next    int64          // committed position: everything below is moved
	end     int64          // behind the last record that was polled
	ahead   map[int64]bool // moved beyond next; nil where nothing is
	passed  offsets.Count  // of what was produced up to there
	added   int64          // how often Add was called
	paused  bool
	had     int64 // records that had their turn, see Carrier.waiting
}

// sparse reports whether few records are held. What comes during a transaction then waits at the broker until its end,
// where one fetch brings what would have been many.
func (c *Carrier) sparse() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, h := range c.parts {
		n += len(h.queue)
	}
	return n < sparse
}

// saturated reports whether enough is held of every partition: more would only wait in memory.
func (c *Carrier) saturated() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.parts {
		if len(h.queue) < enough {
			return false
		}
	}
	return len(c.parts) > 0
}

func (c *Carrier) hold(fetches kgo.Fetches) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fetches.EachPartition(func(fp kgo.FetchTopicPartition) {
		h := c.parts[fp.Partition]
		if h == nil {
			return // taken back meanwhile: the next owner reads it
		}
		if len(fp.Records) > 0 {
			h.end = fp.Records[len(fp.Records)-1].Offset + 1
		}
		fresh := h.fresh(fp.Records)
		h.queue = append(h.queue, fresh...)
		for _, r := range fresh {
			h.bytes += size(r)
		}
		if !h.paused && (len(h.queue) > maxHeldRecords || h.bytes > maxHeldBytes) {
			h.paused = true
			c.member.Pause(fp.Partition)
		}
	})
}

func size(r *kgo.Record) int {
	const overhead = 200 // of a record in memory
	n := overhead + len(r.Key) + len(r.Value)
	for i := range r.Headers {
		n += len(r.Headers[i].Key) + len(r.Headers[i].Value)
	}
	return n
}

// position is a commit's, which speaks of the topic that the partition was assigned of: were it of one that has taken its
// name since, that one's records below would count as moved.
func (h *held) position(node string, at int64, passed offsets.Count, settled offsets.Set, clean bool) hop.Position {
	m := offsets.Metadata{Clean: clean, Passed: passed, Settled: settled, TopicID: h.topicID, Node: node}
	return hop.Position{Offset: at, Metadata: m.Encode(at)}
}
