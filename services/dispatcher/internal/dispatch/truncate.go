package dispatch

import (
	"context"
	"fmt"
	"sort"
)

// Truncated lets go of what is held of a partition beyond the end of its log, and of what was moved beyond: new records have
// these offsets. What is held below is moved as ever. The position is committed at once: else whoever owns the partition next
// would pass over what has come meanwhile.
func (c *Carrier) Truncated(ctx context.Context, p int32, end int64) int64 {
	c.txn.Lock()
	defer c.txn.Unlock()
	next, cut := c.truncate(p, end)
	if cut {
		c.handOver(ctx, p)
	}
	return next
}

func (c *Carrier) truncate(p int32, end int64) (next int64, cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.parts[p]
	switch {
	case h == nil:
		return end, false
	case h.end <= end:
		return h.end, false
	}
	read := h.end
	h.truncate(end)
	if h.paused && len(h.queue) <= maxHeldRecords/4 && h.bytes <= maxHeldBytes/4 {
		h.paused = false
		c.member.Resume(p)
	}
	c.cfg.Rule.Truncated(p, end, read)
	return end, true
}

// truncate forgets everything from an end on.
func (h *held) truncate(end int64) {
	n := sort.Search(len(h.queue), func(i int) bool { return h.queue[i].Offset >= end })
	for _, r := range h.queue[n:] {
		h.bytes -= size(r)
	}
	clear(h.queue[n:])
	h.queue = h.queue[:n]
	for offset := range h.ahead {
		if offset >= end {
			delete(h.ahead, offset)
		}
	}
	h.next, h.end = min(h.next, end), end
}

// truncatedRange says what a log has lost.
func truncatedRange(topic string, p int32, end, read int64) string {
	return fmt.Sprintf("the broker has lost the end of %s, partition %d: offsets %d to %d, which had been read; what of them wasn't moved on is gone", topic, p, end, read-1)
}
