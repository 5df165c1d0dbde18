// Package agentotel traces the attempts of agents with OpenTelemetry, by the program's own tracer:
//
//	agent.Options{Middleware: []agent.Middleware{agentotel.Middleware(provider.Tracer("shop"), nil)}}
//
// Each attempt is a span of kind consumer, "process <topic>", below the one that the event's headers name, so that the
// attempts of a task stand side by side below its producer. Its context is the handler's, and records that the attempt
// publishes (agent.Task.Publish) carry it on. It knows the API of OpenTelemetry alone; the SDK is the program's.
//
// The attributes follow the semantic conventions for messaging. The destination, its partition and the offset are those of
// the event on the user's topic; reeve.agent, reeve.attempt and reeve.outcome are Reeve's words, and error.type is the
// error's class. An attempt that fails is a span with status error and the error as an event. What
// is found out after the handler has returned, a result that is no JSON or a published record that its topic refuses, is with
// the outcome alone.
package agentotel

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/reeve-run/reeve/pkg/agent"
	"github.com/reeve-run/reeve/pkg/task"
)

// Middleware traces every attempt by a tracer. The propagator reads the event's headers and writes those of published
// records; nil is W3C's, traceparent and tracestate. A published record that has such a header keeps it.
func Middleware(tracer trace.Tracer, p propagation.TextMapPropagator) agent.Middleware {
	if p == nil {
		p = propagation.TraceContext{}
	}
	return func(next agent.Handler) agent.Handler {
		return func(ctx context.Context, t *agent.Task) (result json.RawMessage, err error) {
			ctx, span := begin(ctx, tracer, p, t)
			returned := false
			defer func() {
				switch {
				case returned:
					end(ctx, span, err)
				default:
					crash(span, recover()) // it panics again below
				}
			}()
			result, err = next(ctx, t)
			returned = true
			return result, err
		}
	}
}

func begin(ctx context.Context, tracer trace.Tracer, p propagation.TextMapPropagator, t *agent.Task) (context.Context, trace.Span) {
	topic, name := t.Agent()
	origin := t.Origin()
	ctx, span := tracer.Start(p.Extract(ctx, headers{t}), "process "+origin.Topic, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
		semconv.MessagingSystemKafka, semconv.MessagingOperationTypeProcess, semconv.MessagingOperationName("process"),
		semconv.MessagingDestinationName(origin.Topic), semconv.MessagingDestinationPartitionID(strconv.Itoa(int(origin.Partition))), semconv.MessagingKafkaOffset(int(origin.Offset)),
		attribute.String("reeve.agent", topic+"/"+name), attribute.Int("reeve.attempt", t.DeliveryAttempts()),
	))
	if span.IsRecording() {
		span.SetAttributes(semconv.MessagingMessageID(t.ID()))
		if id := t.CorrelationID(); id != "" {
			span.SetAttributes(semconv.MessagingMessageConversationID(id))
		}
	}
	carrier := propagation.MapCarrier{}
	p.Inject(ctx, carrier)
	for key, value := range carrier {
		t.Stamp(kgo.RecordHeader{Key: key, Value: []byte(value)})
	}
	return ctx, span
}

func end(ctx context.Context, span trace.Span, err error) {
	outcome, class := agent.Judge(ctx, err)
	span.SetAttributes(attribute.String("reeve.outcome", string(outcome)))
	if err != nil {
		span.RecordError(err)
		fail(span, class, err.Error())
	}
	span.End()
}

// crash ends the span of an attempt that didn't return: it panicked with p, or ended its goroutine. The panic goes on.
func crash(span trace.Span, p any) {
	span.SetAttributes(attribute.String("reeve.outcome", string(task.Crashed)))
	if p == nil {
		fail(span, task.ClassCrash, "the function ended its goroutine")
		span.End()
		return
	}
	err, ok := p.(error)
	if !ok {
		err = fmt.Errorf("%v", p)
	}
	span.RecordError(err, trace.WithStackTrace(true))
	fail(span, task.ClassCrash, "panic: "+err.Error())
	span.End()
	panic(p)
}

func fail(span trace.Span, class task.Class, message string) {
	span.SetAttributes(semconv.ErrorTypeKey.String(string(class)))
	span.SetStatus(codes.Error, message)
}

// headers are a task's, for a propagator to read.
type headers struct{ *agent.Task }

// Get is the last header of a key.
func (h headers) Get(key string) string { return h.Header(key) }

// Set does nothing: the event's headers are what they are.
func (headers) Set(string, string) {}

// Keys are those of all headers.
func (h headers) Keys() []string {
	hs := h.Record().Headers
	keys := make([]string, len(hs))
	for i := range hs {
		keys[i] = hs[i].Key
	}
	return keys
}
