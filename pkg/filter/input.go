package filter

import (
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/event"
)

// input is one record as an expression sees it. What isn't named isn't looked at.
type input struct {
	topic          string
	record         *kgo.Record
	data, envelope ref.Val
	headers        ref.Val
	err            error // why a name has no value
}

// ResolveName gives the value of a name.
func (in *input) ResolveName(name string) (any, bool) {
	switch name {
	case "data":
		if in.data == nil {
			in.data = in.content()
		}
		return in.data, in.err == nil
	case "headers":
		if in.headers == nil {
			in.headers = headers(in.record.Headers)
		}
		return in.headers, true
	case "key":
		return text(in.record.Key), true
	case "topic":
		return types.String(in.topic), true
	case "type":
		t, err := event.Type(in.topic, in.record)
		in.fail(err)
		return text(t), err == nil
	case "envelope":
		if in.envelope == nil {
			in.envelope = in.says()
		}
		return in.envelope, in.err == nil
	}
	return nil, false
}

// Parent is none.
func (in *input) Parent() cel.Activation { return nil }

func (in *input) fail(err error) {
	if in.err == nil {
		in.err = err
	}
}

func (in *input) content() ref.Val {
	content, err := event.JSON(in.topic, in.record)
	in.fail(err)
	if content == nil {
		return types.NullValue
	}
	return value(content)
}

func (in *input) says() ref.Val {
	e, err := event.Recognise(in.topic, in.record)
	in.fail(err)
	if e.Type == "" && err == nil {
		e.Type, err = event.Type(in.topic, in.record)
		in.fail(err)
	}
	optional := func(s string) ref.Val {
		if s == "" {
			return types.NullValue
		}
		return text(s)
	}
	return types.NewStringInterfaceMap(types.DefaultTypeAdapter, map[string]any{
		"id": text(e.ID), "type": optional(e.Type), "correlation_id": optional(e.CorrelationID), "causation_id": optional(e.CausationID),
		"tenant_id": optional(e.TenantID), "source": optional(e.Source), "reply_to": optional(e.ReplyTo), "webhook": optional(e.Webhook),
		"created_at": types.Timestamp{Time: e.CreatedAt.Truncate(time.Microsecond)}, "delivery_attempts": types.Int(e.DeliveryAttempts),
	})
}

func headers(hs []kgo.RecordHeader) ref.Val {
	m := make(map[string]string, len(hs))
	for _, h := range hs {
		m[valid(h.Key)] = valid(string(h.Value))
	}
	return types.NewStringStringMap(types.DefaultTypeAdapter, m)
}

func text[S []byte | string](s S) types.String { return types.String(valid(string(s))) }

func valid(s string) string { return strings.ToValidUTF8(s, "�") }
