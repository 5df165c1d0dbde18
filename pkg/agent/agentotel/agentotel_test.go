package agentotel_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/pkg/agent"
	"github.com/reeve-run/reeve/pkg/agent/agentotel"
	"github.com/reeve-run/reeve/pkg/agent/agenttest"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/task"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	producer  = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	traceID   = "4bf92f3577b34da6a3ce929d0e0e4736"
	producers = "00f067aa0ba902b7"
)

// traced is a tracer and what it recorded.
func traced() (trace.Tracer, *tracetest.SpanRecorder) {
	spans := tracetest.NewSpanRecorder()
	return sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("test"), spans
}

// event is one with a producer's headers.
func event(value string) *kgo.Record {
	return &kgo.Record{Topic: "orders", Value: []byte(value), Headers: []kgo.RecordHeader{{Key: "traceparent", Value: []byte(producer)}, {Key: "tracestate", Value: []byte("vendor=1")}}}
}

func attributes(s sdktrace.ReadOnlySpan) map[attribute.Key]string {
	out := map[attribute.Key]string{}
	for _, kv := range s.Attributes() {
		out[kv.Key] = kv.Value.String()
	}
	return out
}

func TestAnAttemptIsASpanBelowItsProducersAndItsRecordsGoOnBelowIt(t *testing.T) {
	tracer, spans := traced()
	const own = "00-11111111111111111111111111111111-2222222222222222-01"
	shared := &kgo.Record{Topic: "invoices", Value: []byte("shared"), Headers: []kgo.RecordHeader{{Key: "a", Value: []byte("b")}}}
	handler := agent.Handle(func(ctx context.Context, e agent.Event[int]) (any, error) {
		_, child := tracer.Start(ctx, "charge the card")
		child.End()
		return nil, e.Publish(shared, &kgo.Record{Topic: "invoices", Value: []byte("own"), Headers: []kgo.RecordHeader{{Key: "traceparent", Value: []byte(own)}}})
	})
	in := agenttest.In{Record: event("1"), Attempt: 2, Agent: agent.Agent{Topic: "orders", Name: "billing"}}
	in.Record.Headers = append(in.Record.Headers, kgo.RecordHeader{Key: "reeve-correlation-id", Value: []byte("c-1")})
	in.Record.Partition, in.Record.Offset = 1, 42
	got := agenttest.Run(t, agentotel.Middleware(tracer, nil)(handler), in)
	if got.Outcome != task.Completed || len(spans.Ended()) != 2 {
		t.Fatalf("%+v, %d spans", got, len(spans.Ended()))
	}
	child, span := spans.Ended()[0], spans.Ended()[1]
	if span.Name() != "process orders" || span.SpanKind() != trace.SpanKindConsumer || span.Status().Code != codes.Unset || len(span.Events()) > 0 {
		t.Errorf("%s %s %+v", span.Name(), span.SpanKind(), span.Status())
	}
	if p := span.Parent(); p.TraceID().String() != traceID || p.SpanID().String() != producers || !p.IsRemote() || p.TraceState().String() != "vendor=1" {
		t.Errorf("its parent is %+v", p)
	}
	if child.Parent().SpanID() != span.SpanContext().SpanID() {
		t.Error("the handler's span isn't below the attempt's")
	}
	has := attributes(span)
	for key, want := range map[attribute.Key]string{
		"messaging.system": "kafka", "messaging.operation.type": "process", "messaging.destination.name": "orders", "messaging.destination.partition.id": "1", "messaging.kafka.offset": "42",
		"messaging.message.id": "orders:1:42", "messaging.message.conversation_id": "c-1", "reeve.agent": "orders/billing", "reeve.attempt": "2", "reeve.outcome": "completed", "error.type": "",
	} {
		if has[key] != want {
			t.Errorf("%s is %q, not %q", key, has[key], want)
		}
	}
	carried := fmt.Sprintf("00-%s-%s-01", traceID, span.SpanContext().SpanID())
	for i, want := range []string{carried, own} {
		if is := route.Header(got.Published[i], "traceparent"); is != want {
			t.Errorf("%s carries %s, not %s", got.Published[i].Value, is, want)
		}
	}
	if s := route.Header(got.Published[0], "tracestate"); s != "vendor=1" || route.Header(got.Published[0], "a") != "b" || len(shared.Headers) != 1 {
		t.Errorf("%s, %+v", s, shared.Headers)
	}
}

func TestAFailedAttemptIsAFailedSpan(t *testing.T) {
	for name, tt := range map[string]struct {
		handler func(context.Context, agent.Event[int]) (any, error)
		value   string
		outcome task.Outcome
		class   task.Class
		status  string
		events  int
	}{
		"an error":             {func(context.Context, agent.Event[int]) (any, error) { return nil, errors.New("odd") }, "1", task.Failed, task.ClassInternal, "odd", 1},
		"an error with class":  {func(context.Context, agent.Event[int]) (any, error) { return nil, agent.Permanent(errors.New("no")) }, "1", task.Failed, task.ClassPermanent, "no", 1},
		"a deadline":           {func(ctx context.Context, _ agent.Event[int]) (any, error) { <-ctx.Done(); return nil, ctx.Err() }, "1", task.TimedOut, task.ClassTimeout, "context deadline exceeded", 1},
		"no content for it":    {nil, "no JSON", task.Failed, task.ClassInvalidInput, "the event's content is no JSON: invalid character 'o' in literal null (expecting 'u')", 1},
		"a panic":              {func(context.Context, agent.Event[int]) (any, error) { panic("too much") }, "1", task.Crashed, task.ClassCrash, "panic: too much", 1},
		"the goroutine's end":  {func(context.Context, agent.Event[int]) (any, error) { runtime.Goexit(); return nil, nil }, "1", task.Crashed, task.ClassCrash, "the function ended its goroutine", 0},
		"a guess by a message": {func(context.Context, agent.Event[int]) (any, error) { return nil, errors.New("it timed out") }, "1", task.Failed, task.ClassTimeout, "it timed out", 1},
	} {
		t.Run(name, func(t *testing.T) {
			tracer, spans := traced()
			in := agenttest.In{Record: event(tt.value)}
			if tt.outcome == task.TimedOut {
				in.Timeout = 1
			}
			got := agenttest.Run(t, agentotel.Middleware(tracer, nil)(agent.Handle(tt.handler)), in)
			if len(spans.Ended()) != 1 {
				t.Fatalf("%d spans", len(spans.Ended()))
			}
			span := spans.Ended()[0]
			has := attributes(span)
			if got.Outcome != tt.outcome || got.Class != tt.class || has["reeve.outcome"] != string(tt.outcome) || has["error.type"] != string(tt.class) {
				t.Errorf("recorded %s %s, traced %v", got.Outcome, got.Class, has)
			}
			if span.Status() != (sdktrace.Status{Code: codes.Error, Description: tt.status}) || len(span.Events()) != tt.events {
				t.Errorf("%+v, %+v", span.Status(), span.Events())
			}
		})
	}
}

func TestOnesOwnPropagatorReadsAndWrites(t *testing.T) {
	tracer, _ := traced()
	tenant := ""
	handler := agent.Handle(func(ctx context.Context, e agent.Event[int]) (any, error) {
		tenant = baggage.FromContext(ctx).Member("tenant").Value()
		return nil, e.Publish(&kgo.Record{Topic: "invoices"})
	})
	record := event("1")
	record.Headers = append(record.Headers, kgo.RecordHeader{Key: "baggage", Value: []byte("tenant=acme")})
	got := agenttest.Run(t, agentotel.Middleware(tracer, propagation.Baggage{})(handler), agenttest.In{Record: record})
	if h := got.Published[0].Headers; tenant != "acme" || len(h) != 1 || h[0].Key != "baggage" || string(h[0].Value) != "tenant=acme" {
		t.Errorf("%q, %+v", tenant, h)
	}
}

func TestTheAttemptsOfATaskStandBelowItsProducerAndAreCarriedThroughKafka(t *testing.T) {
	tracer, spans := traced()
	reeve := agenttest.Start(t)
	o := reeve.Options()
	o.Middleware = []agent.Middleware{agentotel.Middleware(tracer, nil)}
	reeve.RunWith(o, agent.Agent{Topic: "orders", Name: "billing", Handler: agent.Handle(func(_ context.Context, e agent.Event[int]) (any, error) {
		if e.DeliveryAttempts() == 1 {
			return nil, errors.New("not yet")
		}
		return nil, e.Publish(&kgo.Record{Topic: "invoices", Value: []byte("1")})
	})})
	p := reeve.PublishRecord(event("1"))
	p.Outcome("billing")
	ended := spans.Ended()
	if len(ended) != 2 || ended[0].Status().Code != codes.Error || ended[1].Status().Code != codes.Unset {
		t.Fatalf("%d spans: %+v", len(ended), ended)
	}
	for i, s := range ended {
		has := attributes(s)
		id := has["messaging.destination.name"] + "/" + has["messaging.destination.partition.id"] + "/" + has["messaging.kafka.offset"]
		if s.Parent().SpanID().String() != producers || has["reeve.attempt"] != fmt.Sprint(i+1) || id != p.TaskID {
			t.Errorf("below %s: %v", s.Parent().SpanID(), has)
		}
	}
	want := fmt.Sprintf("00-%s-%s-01", traceID, ended[1].SpanContext().SpanID())
	if got := route.Header(reeve.Records("invoices", 1)[0], "traceparent"); got != want {
		t.Errorf("%s carries on, not %s", got, want)
	}
}
