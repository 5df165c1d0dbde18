package history

import (
	"fmt"
	"log/slog"
	"strconv"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// BenchmarkBatch is what the registry itself does for an outcome, without Kafka's client and the database's.
func BenchmarkBatch(b *testing.B) {
	const n = 10_000
	records := make([]*kgo.Record, n)
	for i := range records {
		records[i] = record("reeve-agent", "t/n", "reeve-origin", fmt.Sprintf("t/%d/%d/4hJ3k2l1QmmZx0a9S8d7Fg", i%8, 1_000_000+i/8), "reeve-attempt", "1", "reeve-outcome", "completed",
			"reeve-settled", "done", "reeve-final", "true", "reeve-version", "1.0.0", "reeve-event", "1763820000000 7f1c1d9e-0b5c-4f0e-9d6a-"+strconv.Itoa(i),
			"reeve-times", "1763820000000 1763820000003 1763820000004 1763820000009", "reeve-runner", "bench bench-1")
	}
	p := NewProjector(nil, slog.New(slog.DiscardHandler))
	p.sources["t/n\x004hJ3k2l1QmmZx0a9S8d7Fg"] = 1
	b.ReportAllocs()
	for b.Loop() {
		p.attempts, p.ids = p.attempts[:0], p.ids[:0]
		if err := p.read(b.Context(), records); err != nil {
			b.Fatal(err)
		}
		if d := p.foldBatch(map[taskKey]prior{}); len(d) != 1 {
			b.Fatal(d)
		}
		if packs, rest := p.packBatch(); len(packs) != 16 || len(rest) != 0 {
			b.Fatal(len(packs), len(rest))
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/outcome")
}
