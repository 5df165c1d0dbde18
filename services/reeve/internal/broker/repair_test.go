package broker_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const copies = 6 // partitions of the topic, each of which gets every record

// commitOffsets commits offset n in every partition for a group, in the client's open transaction.
func commitOffsets(ctx context.Context, c *kgo.Client, id string, n int64) error {
	pid, epoch, err := c.ProducerID(ctx)
	if err != nil {
		return err
	}
	r := kmsg.NewPtrTxnOffsetCommitRequest()
	r.TransactionalID, r.Group, r.ProducerID, r.ProducerEpoch, r.Generation = id, "group", pid, epoch, -1
	t := kmsg.NewTxnOffsetCommitRequestTopic()
	t.Topic, t.TopicID = "copies", topicID(ctx, c)
	for p := range int32(copies) {
		partition := kmsg.NewTxnOffsetCommitRequestTopicPartition()
		partition.Partition, partition.Offset = p, n
		t.Partitions = append(t.Partitions, partition)
	}
	r.Topics = append(r.Topics, t)
	answer, err := r.RequestWith(ctx, c)
	if err != nil {
		return err
	}
	for _, p := range answer.Topics[0].Partitions {
		if p.ErrorCode != 0 {
			return fmt.Errorf("commit offset: code %d", p.ErrorCode)
		}
	}
	return nil
}

func topicID(ctx context.Context, c *kgo.Client) [16]byte {
	topics, err := kadm.NewClient(c).ListTopics(ctx, "copies")
	if err != nil {
		return [16]byte{}
	}
	return topics["copies"].ID
}

// transact commits record n to every partition together with offset n.
func transact(ctx context.Context, c *kgo.Client, id string, n int64) error {
	if err := c.BeginTransaction(); err != nil {
		return err
	}
	records := make([]*kgo.Record, copies)
	for p := range records {
		records[p] = &kgo.Record{Topic: "copies", Partition: int32(p), Value: []byte(fmt.Sprint(n))}
	}
	if err := c.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return err
	}
	if err := commitOffsets(ctx, c, id, n); err != nil {
		return err
	}
	return c.EndTransaction(ctx, kgo.TryCommit)
}

// A transaction that a kill cut through is there in every partition and for every offset, or nowhere; one that was
// acknowledged is there; and none that was gone comes back at a later kill.
func TestAKillLeavesNoHalfTransaction(t *testing.T) {
	const id = "writer"
	dir := t.TempDir()
	next, committed := int64(1), int64(0)
	for round := range 8 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		address, kill := killable(ctx, t, dir)
		if round > 0 {
			at := verify(ctx, t, address, round)
			if at < committed || at > next {
				t.Fatalf("round %d: transaction %d is the last, acknowledged was %d and begun %d", round, at, committed, next)
			}
			next, committed = at+1, at
		}
		c, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.TransactionalID(id), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(10*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			if _, err := kadm.NewClient(c).CreateTopic(ctx, copies, -1, nil, "copies"); err != nil {
				t.Fatal(err)
			}
		}
		struck := make(chan struct{})
		time.AfterFunc(time.Duration(50+rand.IntN(150))*time.Millisecond, func() {
			defer close(struck)
			kill()
			c.Close() // or it would wait for an answer to what it had sent
		})
		for transact(ctx, c, id, next) == nil {
			committed = next
			next++
		}
		<-struck
		cancel()
	}
}

// verify gives the last transaction that is there, 0 if none, having checked that every partition and every offset agree.
func verify(ctx context.Context, t *testing.T, address string, round int) int64 {
	t.Helper()
	// Markers are kept, since one stands at the end of whatever was written.
	c, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.ConsumeTopics("copies"), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.MetadataMinAge(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ends, err := kadm.NewClient(c).ListCommittedOffsets(ctx, "copies")
	if err != nil || ends.Error() != nil || len(ends["copies"]) != copies {
		t.Fatalf("round %d: %v, %v", round, ends, err)
	}
	var at, last [copies]int64
	for _, end := range ends["copies"] {
		for at[end.Partition] < end.Offset {
			fetches := c.PollFetches(ctx)
			if err := fetches.Err(); err != nil {
				t.Fatalf("round %d: read: %v, at %v of %v", round, err, at, ends)
			}
			fetches.EachRecord(func(r *kgo.Record) {
				at[r.Partition] = r.Offset + 1
				if r.Attrs.IsControl() {
					return
				}
				var n int64
				if _, err := fmt.Sscan(string(r.Value), &n); err != nil {
					t.Fatal(err)
				}
				if n != last[r.Partition]+1 {
					t.Fatalf("round %d: partition %d has %d after %d", round, r.Partition, n, last[r.Partition])
				}
				last[r.Partition] = n
			})
		}
	}
	offsets, err := kadm.NewClient(c).FetchOffsets(ctx, "group")
	if errors.Is(err, kerr.GroupIDNotFound) && last[0] == 0 { // the kill came before the first transaction
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	for p := range int32(copies) {
		if o, _ := offsets.Lookup("copies", p); o.At != last[0] || last[p] != last[0] {
			t.Fatalf("round %d: records %v, offset of partition %d is %d", round, last, p, o.At)
		}
	}
	return last[0]
}

func TestAnOrderlyEndNeedsNoRepair(t *testing.T) {
	dir, ctx := t.TempDir(), within(t)
	for range 2 {
		b := start(t, dir)
		c := dial(t, b.Address(), kgo.AllowAutoTopicCreation(), kgo.DefaultProduceTopic("events"))
		if err := c.ProduceSync(ctx, kgo.StringRecord("x")).FirstErr(); err != nil {
			t.Fatal(err)
		}
		c.Close()
		b.Close()
	}
}
