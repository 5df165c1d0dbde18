package bus

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/pkg/topics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The broker goes away in the middle of a record, so that nobody knows whether it is there.
func TestAPublishEndsWithItsRequestAlsoWhenKafkaNeverAnswers(t *testing.T) {
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "t"))
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	asked := make(chan struct{}, 100)
	broker.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		select {
		case asked <- struct{}{}:
		default:
		}
		return nil, errors.New("the connection breaks"), true
	})
	b, err := New([]kgo.Opt{kgo.SeedBrokers(broker.ListenAddrs()...)}, topics.Names{}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	event := Event{ID: "e", Topic: "t"}
	event.Payload.Content = json.RawMessage("1")
	ended := make(chan error, 1)
	go func() {
		out, err := b.Publish(ctx, []Event{event})
		if err == nil {
			err = out[0].Err
		}
		ended <- err
	}()
	select {
	case <-asked:
		cancel()
	case <-time.After(time.Minute):
		t.Fatal("the broker was never asked")
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Error("it is said to be published")
		}
	case <-time.After(time.Minute):
		t.Fatal("it waits for ever")
	}
}
