package worker_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/reeve-run/reeve/pkg/worker"
)

// A log that has lost its end gets new tasks at offsets that were read already. They run, what waited there is gone, and what
// is below goes on. The fake can't lose the end of a log: what it has there stands for the new tasks.
func TestTasksAtOffsetsThatALogHasLostRun(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStand(t)
		var mu sync.Mutex
		runs, cut := map[string]int{}, 0
		alerts := make(chan worker.Alert, 100)
		s.engine("a", runner(t, 16, func(ctx context.Context, a *worker.Attempt) worker.Result {
			v := string(a.Record.Value)
			mu.Lock()
			runs[v]++
			first := runs[v] == 1
			mu.Unlock()
			if first && (v == "2" || v == "18") { // offsets 1 and 9 of partition 0
				<-ctx.Done()
				mu.Lock()
				cut++
				mu.Unlock()
			}
			return ok(ctx, a)
		}), func(c *worker.Config) { c.Alert = func(a worker.Alert) { alerts <- a } })
		s.publish(0, 20)
		s.outcomes(17) // 12 waits behind 2
		s.cluster.ControlKey(int16(kmsg.OffsetForLeaderEpoch), func(r kmsg.Request) (kmsg.Response, error, bool) {
			s.cluster.KeepControl()
			req := r.(*kmsg.OffsetForLeaderEpochRequest)
			resp := req.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
			for _, topic := range req.Topics {
				rt := kmsg.NewOffsetForLeaderEpochResponseTopic()
				rt.Topic = topic.Topic
				for _, p := range topic.Partitions {
					rp := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
					rp.Partition, rp.LeaderEpoch, rp.EndOffset = p.Partition, p.LeaderEpoch, 5
					rt.Partitions = append(rt.Partitions, rp)
				}
				resp.Topics = append(resp.Topics, rt)
			}
			return resp, nil, true
		})
		if err := s.cluster.MoveTopicPartition(s.names.Tasks("orders", "biller"), 0, 0); err != nil {
			t.Fatal(err)
		}
		s.until("everything is settled", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return cut == 2 && runs["2"] == 2 && runs["10"] == 2 && runs["12"] == 1 && runs["14"] == 2 && runs["16"] == 2 && runs["18"] == 2
		})
		s.awaitLag(0)
		mu.Lock()
		defer mu.Unlock()
		for _, v := range []string{"0", "4", "6", "8", "1", "19"} { // below the end, or of the other partition
			if runs[v] != 1 {
				t.Errorf("%s ran %d times", v, runs[v])
			}
		}
		select {
		case a := <-alerts:
			if a.Kind != "records_lost" || !strings.Contains(a.Message, "/0: the broker has lost the end of the log, from offset 5 to 9") {
				t.Errorf("%+v", a)
			}
		case <-time.After(time.Second):
			t.Error("nobody is told")
		}
	})
}
