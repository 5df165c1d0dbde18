// Package bus is what requests do on Kafka: publish an event, look at groups, read dead letters and results.
package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/topics"
)

const (
	contentType   = "application/vnd.reeve.event+json"
	deliverWithin = 10 * time.Second
	// largeRecord is what goes alone in a batch of its own: the client never splits a batch, and one of many small
	// records must stay below the limit that topics usually have.
	largeRecord = 900_000
	largest     = 32 << 20
)

// Bus talks to Kafka for requests. Its methods are safe for concurrent use.
type Bus struct {
	names  topics.Names
	opts   []kgo.Opt
	client *kgo.Client // batches of the usual size; questions
	large  *kgo.Client // one record a batch
	create bool        // creates the topics that people name
}

// New makes a bus; opts configure its clients. With create it makes topics that don't exist.
func New(opts []kgo.Opt, names topics.Names, create bool) (*Bus, error) {
	produce := slices.Concat(opts, []kgo.Opt{kgo.RecordDeliveryTimeout(deliverWithin), kgo.UnknownTopicRetries(1), kgo.MetadataMinAge(100 * time.Millisecond),
		kgo.ProducerLinger(0),
		// Without it a record whose answer is lost with its broker is waited for until a broker answers again, whatever the
		// limit of the request. Who publishes hears that nobody knows whether it is there.
		kgo.AllowIdempotentProduceCancellation()})
	client, err := kgo.NewClient(produce...)
	if err != nil {
		return nil, fmt.Errorf("configure the producer: %w", err)
	}
	large, err := kgo.NewClient(append(produce, kgo.ProducerBatchMaxBytes(largest))...)
	if err != nil {
		client.Close()
		return nil, fmt.Errorf("configure the producer of large records: %w", err)
	}
	return &Bus{names: names, opts: opts, client: client, large: large, create: create}, nil
}

// Close closes the connections.
func (b *Bus) Close() {
	b.client.Close()
	b.large.Close()
}

// Event is an event in Reeve's envelope.
type Event struct {
	ID      string `json:"id"`
	Topic   string `json:"topic"`
	Type    string `json:"type,omitempty"`
	Payload struct {
		Content json.RawMessage `json:"content"`
		Webhook *string         `json:"webhook"`
		ReplyTo *string         `json:"reply_to"`
	} `json:"payload"`
	TenantID         *string `json:"tenant_id"`
	CorrelationID    *string `json:"correlation_id"`
	CausationID      *string `json:"causation_id"`
	Source           *string `json:"source"`
	CreatedAt        float64 `json:"created_at"`
	DeliveryAttempts int     `json:"delivery_attempts"`

	Key *string `json:"-"` // of the record
}

// Published is where an event stands, or why it couldn't be published.
type Published struct {
	Partition int32
	Offset    int64
	Err       error // a *Refused, or that Kafka didn't answer
}

// Refused says that Kafka answered and didn't take an event.
type Refused struct {
	Code, Message, Remedy string
}

func (e *Refused) Error() string { return e.Message + ": " + e.Remedy }

// Publish publishes events and says of each what became of it, in their order.
func (b *Bus) Publish(ctx context.Context, events []Event) ([]Published, error) {
	out := make([]Published, len(events))
	done := make(chan int, len(events))
	for i := range events {
		record, err := events[i].record()
		if err != nil {
			return nil, err
		}
		b.produce(ctx, record, func(r *kgo.Record, err error) {
			out[i] = Published{Partition: r.Partition, Offset: r.Offset, Err: refusal(r.Topic, len(r.Value), err)}
			done <- i
		})
	}
	var missing []int
	for range events {
		i := <-done
		if r := (*Refused)(nil); b.create && errors.As(out[i].Err, &r) && r.Code == "topic_not_found" {
			missing = append(missing, i)
		}
	}
	if len(missing) > 0 {
		return out, b.publishAgain(ctx, events, out, missing)
	}
	return out, nil
}

// publishAgain makes the topics that were missing and publishes the events that met them.
func (b *Bus) publishAgain(ctx context.Context, events []Event, out []Published, missing []int) error {
	for _, i := range missing {
		if err := b.EnsureTopic(ctx, events[i].Topic); err != nil {
			return err
		}
	}
	for _, i := range missing {
		record, err := events[i].record()
		if err != nil {
			return err
		}
		r, err := b.client.ProduceSync(ctx, record).First()
		out[i] = Published{Partition: r.Partition, Offset: r.Offset, Err: refusal(r.Topic, len(r.Value), err)}
	}
	return nil
}

func (b *Bus) produce(ctx context.Context, r *kgo.Record, done func(*kgo.Record, error)) {
	if len(r.Value) > largeRecord {
		done(b.large.ProduceSync(ctx, r).First())
		return
	}
	b.client.Produce(ctx, r, done)
}

func (e *Event) record() (*kgo.Record, error) {
	value, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode event %s: %w", e.ID, err)
	}
	r := &kgo.Record{Topic: e.Topic, Value: value, Headers: []kgo.RecordHeader{{Key: "content-type", Value: []byte(contentType)}}}
	if e.Key != nil {
		r.Key = []byte(*e.Key)
	}
	return r, nil
}

func refusal(topic string, size int, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, kerr.MessageTooLarge):
		return &Refused{"event_too_large", fmt.Sprintf("the event has %d bytes, more than the topic %s takes", size, topic),
			"raise max.message.bytes of the topic, or send less"}
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return &Refused{"topic_not_found", "the topic " + topic + " does not exist", "create it on Kafka first, or check its name"}
	case errors.Is(err, kerr.InvalidTopicException):
		return &Refused{"invalid_topic", topic + " is no legal topic name", "use 1 to 249 of the characters a-z A-Z 0-9 . _ -"}
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return &Refused{"topic_denied", "Kafka does not let the registry write to " + topic, "grant it in Kafka's ACLs; `reeve acls` prints the rights that are needed"}
	}
	return err
}

// EnsureTopic makes a user's topic, with the brokers' own defaults, if it doesn't exist.
func (b *Bus) EnsureTopic(ctx context.Context, topic string) error {
	resp, err := kadm.NewClient(b.client).CreateTopic(ctx, -1, -1, nil, topic)
	if err == nil {
		err = resp.Err
	}
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("create topic %s: %w", topic, err)
	}
	return nil
}

// Creates reports whether the bus makes topics that people name.
func (b *Bus) Creates() bool { return b.create }
