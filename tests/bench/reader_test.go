package bench

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// What is measured is what a read_committed reader would have got.
func TestRecordsAreCountedAsAReaderGetsThem(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	produce := func(end kgo.TransactionEndTry, n int, opts ...kgo.Opt) {
		t.Helper()
		cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()...), kgo.DefaultProduceTopic("out"), kgo.TransactionalID(fmt.Sprint(n))}, opts...)...)
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			cl.Produce(t.Context(), kgo.KeySliceRecord(fmt.Append(nil, i), []byte("v")), nil)
		}
		if err := cl.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := cl.EndTransaction(t.Context(), end); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	total, done := 0, make(chan error, 1)
	go func() {
		done <- countRecords(ctx, c.ListenAddrs(), "out", func(n int) {
			if total += n; total >= 100+30+7 {
				cancel()
			}
		})
	}()
	produce(kgo.TryCommit, 100, kgo.ProducerBatchCompression(kgo.SnappyCompression()))
	produce(kgo.TryAbort, 50)
	produce(kgo.TryCommit, 30, kgo.ProducerBatchCompression(kgo.NoCompression()))
	produce(kgo.TryAbort, 20)
	produce(kgo.TryCommit, 7)
	if err := <-done; err != nil || total != 137 {
		t.Errorf("%d records are counted of 137 that were committed: %v", total, err)
	}
}
