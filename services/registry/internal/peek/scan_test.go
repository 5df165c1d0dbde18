package peek

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// written has a topic of two partitions: three records committed one by one in the first, three in the second, and
// then more aborted ones than a first look goes back over.
func written(t *testing.T) (*kgo.Client, []kgo.Opt) {
	t.Helper()
	opts := []kgo.Opt{kgo.SeedBrokers(testenv.Kfake(t).Address), kgo.MetadataMinAge(50 * time.Millisecond)}
	cl, err := kgo.NewClient(append(opts, kgo.DefaultProduceTopic("t"), kgo.TransactionalID("x"), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	if err := kafka.EnsureTopics(t.Context(), cl, -1, kafka.Topic{Name: "t", Partitions: 2}, kafka.Topic{Name: "empty", Partitions: 1}); err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	one := func(partition int32, n int, end kgo.TransactionEndTry) {
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		r := &kgo.Record{Partition: partition, Value: fmt.Append(nil, n), Timestamp: at.Add(time.Duration(n) * time.Second)}
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := cl.EndTransaction(t.Context(), end); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 6 {
		one(int32(n%2), n, kgo.TryCommit)
	}
	for range 40 {
		one(0, 100, kgo.TryAbort)
	}
	return cl, opts
}

func TestTailGoesBackOverWhatWasAborted(t *testing.T) {
	cl, opts := written(t)
	for limit, want := range map[int]string{1: "5 ", 3: "5 4 3 ", 6: "5 4 3 2 1 0 ", 100: "5 4 3 2 1 0 "} {
		records, err := Tail(t.Context(), cl, opts, limit, nil, "t", "empty", "nowhere")
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, r := range records {
			got += string(r.Value) + " "
		}
		if got != want {
			t.Errorf("the last %d are %s, want %s", limit, got, want)
		}
	}
}

func TestCountLeavesOutMarkersUpToItsLimit(t *testing.T) {
	cl, opts := written(t)
	bounds, err := TopicBounds(t.Context(), cl, "t", "empty", "nowhere")
	if err != nil {
		t.Fatal(err)
	}
	counts, err := Count(t.Context(), opts, bounds, 1000)
	if _, nowhere := counts["nowhere"]; err != nil || counts["t"] != 6 || nowhere {
		t.Errorf("%v, %v", counts, err)
	}
	if counts, err = Count(t.Context(), opts, bounds, 10); err != nil || counts["t"] != 3+86 {
		t.Errorf("what is longer than the limit counts as long as it is: %v, %v", counts, err)
	}
}

func TestPickReadsWhatIsAskedForAndStillThere(t *testing.T) {
	cl, opts := written(t)
	records, err := Pick(t.Context(), cl, opts, "t", map[int32][]int64{0: {2, 0, 1, 9999}, 1: {4}, 7: {0}})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, r := range records {
		got[string(r.Value)] = true
	}
	if len(records) != 3 || !got["0"] || !got["2"] || !got["5"] {
		t.Errorf("%v: want those at 0/0, 0/2 and 1/4; a marker and what never was are none", got)
	}
}

func TestRunsAreFew(t *testing.T) {
	var offsets []int64
	for i := range int64(1000) {
		offsets = append(offsets, i*i*10)
	}
	out := runs(offsets)
	if len(out) > pickRuns || out[0].Start != 0 || out[len(out)-1].End != 999*999*10+1 {
		t.Errorf("%v", out)
	}
	if out = runs([]int64{1, 2, 5000}); len(out) != 2 {
		t.Errorf("a gap is jumped: %v", out)
	}
}
