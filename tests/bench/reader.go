package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// countRecords counts a topic's records as a read_committed reader gets them, from its start until the context ends, and tells
// seen of each batch's. It goes by the heads of the batches: to decompress and decode some hundred thousand records would
// take a share of the processor from those who are measured, and a larger one where records are larger.
func countRecords(ctx context.Context, brokers []string, topic string, seen func(n int)) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		return err
	}
	defer cl.Close()
	found, err := kadm.NewClient(cl).ListTopics(ctx, topic)
	if err != nil {
		return fmt.Errorf("look up %s: %w", topic, err)
	}
	of := found[topic]
	if of.Err != nil {
		return fmt.Errorf("look up %s: %w", topic, of.Err)
	}
	at := make([]position, len(of.Partitions))
	leader := of.Partitions[0].Leader
	for ctx.Err() == nil {
		for p, d := range of.Partitions {
			if d.Leader != leader {
				return fmt.Errorf("partition %d of %s has another leader than the first: the bench counts on one broker", p, topic)
			}
		}
		resp, err := fetchFrom(at, topic, of.ID).RequestWith(ctx, cl.Broker(int(leader)))
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("fetch %s: %w", topic, err)
		}
		for _, rt := range resp.Topics {
			for _, rp := range rt.Partitions {
				if err := kerr.ErrorForCode(rp.ErrorCode); err != nil {
					return fmt.Errorf("fetch %s/%d: %w", topic, rp.Partition, err)
				}
				n, err := at[rp.Partition].count(rp.RecordBatches, rp.AbortedTransactions)
				if err != nil {
					return fmt.Errorf("read %s/%d: %w", topic, rp.Partition, err)
				}
				if n > 0 {
					seen(n)
				}
			}
		}
	}
	return nil
}

func fetchFrom(at []position, topic string, id [16]byte) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.IsolationLevel = int32((500 * time.Millisecond).Milliseconds()), 1, 16<<20, 1
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic, rt.TopicID = topic, id
	for p := range at {
		rp := kmsg.NewFetchRequestTopicPartition()
		rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes = int32(p), at[p].next, 8<<20
		rt.Partitions = append(rt.Partitions, rp)
	}
	req.Topics = append(req.Topics, rt)
	return req
}

// position is where the reading of a partition stands.
type position struct {
	next    int64
	aborted map[int64]bool // producers whose transaction here was aborted, until its marker
}

// The layout of a record batch's head: https://kafka.apache.org/documentation/#recordbatch.
const (
	batchLength     = 8
	batchAttributes = 21
	batchLastDelta  = 23
	batchProducer   = 43
	batchRecords    = 57
	batchHead       = 61

	isTransactional = 1 << 4
	isControl       = 1 << 5
)

// count counts the records of whole batches that weren't aborted, and moves the position behind them.
func (at *position) count(batches []byte, aborted []kmsg.FetchResponseTopicPartitionAbortedTransaction) (n int, err error) {
	slices.SortFunc(aborted, func(a, b kmsg.FetchResponseTopicPartitionAbortedTransaction) int {
		return int(a.FirstOffset - b.FirstOffset)
	})
	for len(batches) >= batchHead {
		base, length := int64(binary.BigEndian.Uint64(batches)), int(binary.BigEndian.Uint32(batches[batchLength:]))+batchLength+4
		if length < batchHead {
			return n, errors.New("a batch is shorter than its head")
		}
		if length > len(batches) { // the broker cut the last one
			break
		}
		last := base + int64(binary.BigEndian.Uint32(batches[batchLastDelta:]))
		attributes, producer := binary.BigEndian.Uint16(batches[batchAttributes:]), int64(binary.BigEndian.Uint64(batches[batchProducer:]))
		for len(aborted) > 0 && aborted[0].FirstOffset <= last {
			if at.aborted == nil {
				at.aborted = map[int64]bool{}
			}
			at.aborted[aborted[0].ProducerID] = true
			aborted = aborted[1:]
		}
		switch {
		case last < at.next: // of a batch that was asked for in its middle
		case attributes&isControl != 0:
			delete(at.aborted, producer)
		case attributes&isTransactional == 0 || !at.aborted[producer]:
			n += int(binary.BigEndian.Uint32(batches[batchRecords:]))
		}
		at.next = max(at.next, last+1)
		batches = batches[length:]
	}
	return n, nil
}
