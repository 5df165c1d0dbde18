package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/reeve-run/reeve/pkg/spec"
)

// createLimit bounds how long a metadata request waits for the topic that it asks for.
const createLimit = 10 * time.Second

// Config is what a broker needs.
type Config struct {
	// Dir is where the log is kept; it is made if needed.
	Dir string
	// Listener is where clients connect; its address is what the broker tells them, so it may be no wildcard. The
	// broker closes it.
	Listener net.Listener
	// Partitions is how many a topic gets whose creator doesn't say. Defaults to 4.
	Partitions int
	// Reserved reports topics that aren't made just because somebody names them. Defaults to none.
	Reserved func(topic string) bool
	// Logger is told of created topics. Defaults to none.
	Logger *slog.Logger
}

// Broker is a running broker.
type Broker struct {
	cluster *kfake.Cluster
	client  *kgo.Client
	config  Config
	address string
	journal *journal // used by one request at a time

	mu      sync.Mutex
	known   map[string]bool // topics that were seen to exist; one that is deleted later is asked for in vain, as on Kafka
	closing context.Context
	stop    context.CancelFunc
	work    sync.WaitGroup
}

// Start reads what is on disk and serves.
func Start(c Config) (*Broker, error) {
	if c.Partitions == 0 {
		c.Partitions = 4
	}
	if c.Reserved == nil {
		c.Reserved = func(string) bool { return false }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	address := c.Listener.Addr().String()
	journal, err := prepare(c.Dir)
	if err != nil {
		_ = c.Listener.Close()
		return nil, err
	}
	cluster, err := kfake.NewCluster(
		kfake.NumBrokers(1),
		kfake.ListenFn(func(string, string) (net.Listener, error) { return c.Listener, nil }),
		kfake.DataDir(c.Dir),
		kfake.SyncWrites(),
		kfake.DefaultNumPartitions(c.Partitions),
		kfake.WithLogger(clusterLog{c.Logger}),
		kfake.BrokerConfigs(map[string]string{
			"group.initial.rebalance.delay.ms": "0",
			// What was published stays: retention could empty a partition, and after a kill the cluster would number an
			// empty one from 0 again (onDeleteRecords keeps the last record for the same reason).
			"log.retention.ms": "-1",
		}),
	)
	if err != nil {
		journal.close()
		_ = c.Listener.Close()
		return nil, fmt.Errorf("start embedded broker on %s: %w", c.Dir, err)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.ClientID("reeve-broker"))
	if err != nil {
		cluster.Close()
		journal.close()
		return nil, fmt.Errorf("configure the embedded broker's own client: %w", err)
	}
	b := &Broker{cluster: cluster, client: client, config: c, address: address, journal: journal, known: map[string]bool{}}
	b.closing, b.stop = context.WithCancel(context.Background())
	cluster.ControlKey(int16(kmsg.Metadata), b.onMetadata)
	cluster.ControlKey(int16(kmsg.DeleteRecords), b.onDeleteRecords)
	cluster.ControlKey(int16(kmsg.TxnOffsetCommit), b.onTxnOffsetCommit)
	cluster.ControlKey(int16(kmsg.EndTxn), b.onEndTxn)
	return b, nil
}

// prepare repairs the directory if the last end was no orderly one.
func prepare(dir string) (*journal, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("start embedded broker: %w", err)
	}
	switch err := os.Remove(orderly(dir)); {
	case errors.Is(err, os.ErrNotExist):
		if err := repair(dir); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, fmt.Errorf("start embedded broker: %w", err)
	}
	return openJournal(dir)
}

// orderly is the file that says that the last end was an orderly one.
func orderly(dir string) string { return filepath.Join(dir, "orderly") }

// Address is where clients connect, host:port.
func (b *Broker) Address() string { return b.address }

// Close writes everything out and ends the broker. Clients should be gone by then.
func (b *Broker) Close() {
	b.stop()
	b.client.Close()
	b.work.Wait()
	b.cluster.Close()
	b.journal.close()
	if err := os.WriteFile(orderly(b.config.Dir), nil, 0o644); err != nil {
		b.config.Logger.Warn("embedded broker: note the orderly end, the next start will take longer", slog.Any("error", err))
	}
}

func (b *Broker) onTxnOffsetCommit(request kmsg.Request) (kmsg.Response, error, bool) {
	b.journal.offsets(request.(*kmsg.TxnOffsetCommitRequest))
	return nil, nil, false
}

// onEndTxn writes a commit down before the cluster begins it. Where that fails the client's connection is closed, and
// the transaction stays open.
func (b *Broker) onEndTxn(request kmsg.Request) (kmsg.Response, error, bool) {
	if err := b.journal.end(request.(*kmsg.EndTxnRequest)); err != nil {
		b.config.Logger.Error("embedded broker", slog.Any("error", err))
		b.cluster.KeepControl()
		return nil, err, true
	}
	return nil, nil, false
}

// onMetadata makes the topics that a client asks for and that don't exist, before the cluster answers the request. It
// never answers itself.
func (b *Broker) onMetadata(request kmsg.Request) (kmsg.Response, error, bool) {
	if topics := b.unknown(request.(*kmsg.MetadataRequest)); len(topics) > 0 {
		b.work.Add(1)
		b.cluster.SleepControl(func() {
			defer b.work.Done()
			b.create(topics)
		})
	}
	return nil, nil, false
}

// unknown are the topics of a request that may have to be made.
func (b *Broker) unknown(request *kmsg.MetadataRequest) []string {
	if !request.AllowAutoTopicCreation {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var topics []string
	for _, t := range request.Topics {
		if t.Topic != nil && !b.known[*t.Topic] && spec.CheckTopic(*t.Topic) == nil && !b.config.Reserved(*t.Topic) {
			topics = append(topics, *t.Topic)
		}
	}
	return topics
}

// onDeleteRecords lets every partition keep its last record. After a kill the cluster learns where a partition ends from
// what is in its log: an empty one would begin at 0 again, and groups that stand beyond would skip what comes.
func (b *Broker) onDeleteRecords(request kmsg.Request) (kmsg.Response, error, bool) {
	b.work.Add(1)
	b.cluster.SleepControl(func() {
		defer b.work.Done()
		b.spareLast(request.(*kmsg.DeleteRecordsRequest))
	})
	return nil, nil, false
}

// spareLast lowers the offsets of a request. A partition whose end can't be found out is left to the cluster.
func (b *Broker) spareLast(request *kmsg.DeleteRecordsRequest) {
	ctx, cancel := context.WithTimeout(b.closing, createLimit)
	defer cancel()
	topics := make([]string, len(request.Topics))
	for i, t := range request.Topics {
		topics[i] = t.Topic
	}
	ends, err := kadm.NewClient(b.client).ListEndOffsets(ctx, topics...)
	if err != nil {
		b.config.Logger.Warn("find the ends of topics that are trimmed", slog.Any("topics", topics), slog.Any("error", err))
	}
	for _, t := range request.Topics {
		for i := range t.Partitions {
			p := &t.Partitions[i]
			end, ok := ends.Lookup(t.Topic, p.Partition)
			if !ok || end.Err != nil || end.Offset == 0 {
				continue
			}
			if p.Offset == -1 || p.Offset == end.Offset {
				p.Offset = end.Offset - 1
			}
		}
	}
}

// create makes topics; one that exists is fine. What fails is for the client to see: its request says unknown topic.
func (b *Broker) create(topics []string) {
	ctx, cancel := context.WithTimeout(b.closing, createLimit)
	defer cancel()
	answers, err := kadm.NewClient(b.client).CreateTopics(ctx, -1, -1, nil, topics...)
	if err != nil {
		b.config.Logger.Warn("create the topics that a client names", slog.Any("topics", topics), slog.Any("error", err))
		return
	}
	for _, a := range answers {
		switch {
		case a.Err == nil:
			b.config.Logger.Info("created a topic that a client names", slog.String("topic", a.Topic))
		case !errors.Is(a.Err, kerr.TopicAlreadyExists):
			b.config.Logger.Warn("create a topic that a client names", slog.String("topic", a.Topic), slog.Any("error", a.Err))
			continue
		}
		b.mu.Lock()
		b.known[a.Topic] = true
		b.mu.Unlock()
	}
}

// clusterLog passes on what kfake warns of: trouble with its files, which it doesn't tell clients. Slow transactions
// are its way of measuring.
type clusterLog struct{ logger *slog.Logger }

func (l clusterLog) Logf(level kfake.LogLevel, format string, args ...any) {
	switch {
	case level == kfake.LogLevelError:
		l.logger.Error("embedded broker: " + fmt.Sprintf(format, args...))
	case level == kfake.LogLevelWarn && !strings.HasPrefix(format, "txn: EndTxn slow"):
		l.logger.Warn("embedded broker: " + fmt.Sprintf(format, args...))
	}
}
