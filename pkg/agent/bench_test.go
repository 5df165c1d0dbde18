package agent_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/agent"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/topics"
	"github.com/reeve-run/reeve/pkg/worker"
)

// BenchmarkHandler measures what the SDK adds to one call of the engine.
func BenchmarkHandler(b *testing.B) {
	record := &kgo.Record{Key: []byte("k"), Value: []byte(`{"id":17,"amount":3,"text":"what people write in the events that they publish, and a little more of it"}`), Headers: []kgo.RecordHeader{
		{Key: task.HeaderAgent, Value: []byte("orders/hello")}, {Key: task.HeaderOrigin, Value: []byte("orders/0/1/6ba7b810-9dad-11d1-80b4-00c04fd430c8")},
		{Key: task.HeaderAttempt, Value: []byte("1")}, {Key: task.HeaderEvent, Value: []byte("1700000000000 orders:0:1")}}}
	for name, h := range map[string]agent.Handler{
		"typed": agent.Handle(accept),
		"bytes": agent.Handle(func(_ context.Context, e agent.Event[[]byte]) (json.RawMessage, error) { return nil, nil }),
		"raw":   func(context.Context, *agent.Task) (json.RawMessage, error) { return json.RawMessage("1"), nil },
	} {
		b.Run(name, func(b *testing.B) {
			s, err := hello().Spec(topics.Names{}, topics.DefaultTiers())
			if err != nil {
				b.Fatal(err)
			}
			f := agent.Func(h, s, topics.Names{})
			at := worker.NewAttempt(record, 1, time.Minute, false, func(worker.Result) {})
			b.ReportAllocs()
			for b.Loop() {
				if r := f(b.Context(), at); r.Outcome != task.Completed {
					b.Fatalf("%+v", r)
				}
			}
		})
	}
}
