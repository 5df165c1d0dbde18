package kafka

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"
	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/internal/config"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/topics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func broker(t *testing.T, opts ...kfake.Opt) config.Kafka {
	t.Helper()
	c, err := kfake.NewCluster(append(opts, kfake.NumBrokers(1))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return config.Kafka{Brokers: c.ListenAddrs(), Prefix: "reeve", Replication: -1}
}

func connect(t *testing.T, opts ...kfake.Opt) *kgo.Client {
	t.Helper()
	cl, err := Connect(t.Context(), broker(t, opts...), quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func TestAnOldBrokerIsRefusedWithTheRemedy(t *testing.T) {
	_, err := Connect(t.Context(), broker(t, kfake.MaxVersions(kversion.V3_8_0())), quiet())
	if err == nil || !strings.Contains(err.Error(), "run Kafka 4.0 or later") {
		t.Error(err)
	}
}

func TestAnUnreachableBrokerIsNamedWithTheRemedy(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // takes a port that nobody answers on once it is closed
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = Connect(ctx, config.Kafka{Brokers: []string{addr}}, quiet())
	if err == nil || !strings.Contains(err.Error(), addr) || !strings.Contains(err.Error(), "REEVE_KAFKA_BROKERS") || !strings.Contains(err.Error(), "refused") {
		t.Error(err)
	}
	if away := (*Unreachable)(nil); !errors.As(err, &away) || away.ExitCode() != 5 {
		t.Errorf("%T asks for no exit code of its own", err)
	}
}

// Services and brokers are often started together; a service that gave up at the first refused connection would have to
// be started again by somebody.
func TestABrokerThatStartsLaterIsWaitedFor(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	refused := make(chan struct{})
	var once sync.Once
	logger := slog.New(seen{slog.DiscardHandler, func() { once.Do(func() { close(refused) }) }})
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() {
		<-refused
		c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.ListenFn(func(network, _ string) (net.Listener, error) { return net.Listen(network, addr) }))
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(c.Close)
	})
	cl, err := Connect(t.Context(), config.Kafka{Brokers: []string{addr}}, logger)
	if err != nil {
		t.Fatal(err)
	}
	cl.Close()
}

// seen tells of every line that is logged.
type seen struct {
	slog.Handler
	tell func()
}

func (s seen) Enabled(context.Context, slog.Level) bool { return true }

func (s seen) Handle(context.Context, slog.Record) error {
	s.tell()
	return nil
}

func TestTopicsAreMadeOnceWithTheirSettings(t *testing.T) {
	cl, names := connect(t), topics.Names{}
	agent := &spec.Agent{Topic: "orders", Name: "a_1", Partitions: 3}
	wanted := append(RetryTopics(names, []time.Duration{time.Second}), ControlTopic(names), StatusTopic(names), OutcomesTopic(names),
		TasksTopic(names, agent, 5<<20), DLQTopic(names, agent, 5<<20))
	for range 2 {
		if err := EnsureTopics(t.Context(), cl, -1, wanted...); err != nil {
			t.Fatal(err)
		}
	}
	adm := kadm.NewClient(cl)
	listed, err := adm.ListTopics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range wanted {
		if got := len(listed[w.Name].Partitions); got != int(w.Partitions) {
			t.Errorf("%s has %d partitions, want %d", w.Name, got, w.Partitions)
		}
		described, err := adm.DescribeTopicConfigs(t.Context(), w.Name)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, c := range described[0].Configs {
			got[c.Key] = c.MaybeValue()
		}
		for k, v := range w.Configs {
			if got[k] != v {
				t.Errorf("%s: %s is %q, want %q", w.Name, k, got[k], v)
			}
		}
	}
	tasks := names.Tasks("orders", "a_1")
	if err := RaiseMaxBytes(t.Context(), cl, tasks, 19<<20); err != nil {
		t.Fatal(err)
	}
	if err := RaiseMaxBytes(t.Context(), cl, tasks, 1<<20); err != nil { // never lowers it
		t.Fatal(err)
	}
	if n, err := MaxBytes(t.Context(), cl, tasks); n != 19<<20 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

func TestTrimDeletesBelowTheOffset(t *testing.T) {
	cl := connect(t)
	if err := EnsureTopics(t.Context(), cl, -1, Topic{Name: "t", Partitions: 1}); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "t", Value: []byte("v")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := Trim(t.Context(), cl, map[string]map[int32]int64{"t": {0: 3}, "gone": {0: 7}}); err != nil {
			t.Fatal(err)
		}
	}
	start, err := kadm.NewClient(cl).ListStartOffsets(t.Context(), "t")
	if err != nil {
		t.Fatal(err)
	}
	if o, _ := start.Lookup("t", 0); o.Offset != 3 {
		t.Errorf("the log starts at %d, want 3", o.Offset)
	}
}
