package worker_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
	"github.com/reeve-run/reeve/pkg/worker"
)

// BenchmarkSettle measures the engine alone with no-op tasks: from the task topic to the settled outcome. It needs a
// broker of its own process (REEVE_TEST_KAFKA_BROKERS), or it measures kfake.
func BenchmarkSettle(b *testing.B) {
	seeds := strings.Split(os.Getenv("REEVE_TEST_KAFKA_BROKERS"), ",")
	if seeds[0] == "" {
		seeds = newBroker(b)
	}
	names := topics.Names{Prefix: fmt.Sprintf("bench%d", time.Now().UnixNano()%1e9)}
	opts := []kgo.Opt{kgo.SeedBrokers(seeds...)}
	cl, err := kgo.NewClient(append(opts, kgo.DefaultProduceTopic(names.Tasks("orders", "biller")), kgo.MaxBufferedRecords(100_000))...)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(cl.Close)
	adm := kadm.NewClient(cl)
	made := []string{names.Tasks("orders", "biller"), names.Outcomes(), names.Retry(tiers[0]), names.Retry(tiers[1])}
	if _, err := adm.CreateTopics(b.Context(), 8, 1, nil, made...); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if _, err := adm.DeleteTopics(context.Background(), made...); err != nil {
			b.Log(err)
		}
	})
	value := []byte(`{"seq":1,"text":"` + strings.Repeat("x", 370) + `"}`)
	for i := range b.N {
		o := task.Origin{Topic: "orders", Partition: int32(i % 8), Offset: int64(i / 8), TopicID: "6ba7b810-9dad-11d1-80b4-00c04fd430c8"}
		cl.Produce(b.Context(), &kgo.Record{Key: fmt.Appendf(nil, "key-%d", i), Value: value, Headers: []kgo.RecordHeader{
			{Key: task.HeaderAgent, Value: []byte("orders/biller")}, {Key: task.HeaderOrigin, Value: o.AppendHeader(nil)}, {Key: task.HeaderAttempt, Value: []byte("1")},
			{Key: task.HeaderEvent, Value: fmt.Appendf(nil, "1700000000000 orders:%d:%d", i%8, i/8)}}}, nil)
	}
	if err := cl.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
	pool, err := hop.NewPool(b.Context(), hop.PoolConfig{Opts: opts, Names: names, Service: "bench", Node: "a"})
	if err != nil {
		b.Fatal(err)
	}
	defer pool.Close()
	run := worker.NewFuncRunner(256, ok)
	defer run.Close()
	e := worker.New(worker.Config{Pool: pool, Opts: opts, Names: names, Spec: sweepSpec(), Service: "bench", Node: "a", Runner: run, Tiers: tiers})
	b.ResetTimer()
	before := cpu()
	if err := e.Start(); err != nil {
		b.Fatal(err)
	}
	awaitSettled(b, adm, names, int64(b.N))
	b.StopTimer()
	b.ReportMetric((cpu()-before).Seconds()*1e6/float64(b.N), "client-cpu-s/M")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	e.Stop(ctx)
}

// awaitSettled waits until the work group has committed everything.
func awaitSettled(b *testing.B, adm *kadm.Client, names topics.Names, n int64) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		os, err := adm.FetchOffsets(b.Context(), names.WorkGroup("orders", "biller"))
		if errors.Is(err, kerr.GroupIDNotFound) { // nobody has joined yet
			continue
		}
		if err != nil {
			b.Fatal(err)
		}
		sum := int64(0)
		os.Each(func(o kadm.OffsetResponse) { sum += max(o.At, 0) })
		if sum >= n {
			return
		}
	}
}

func cpu() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
