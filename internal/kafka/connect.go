package kafka

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/reeve-run/reeve/internal/config"
)

const (
	connectLimit = 10 * time.Second       // Connect tries this long to reach a broker, which may be starting too
	connectEvery = 500 * time.Millisecond // and waits this long between two tries
)

// Unreachable says that no broker answers; Where is the list of their addresses.
type Unreachable struct {
	Where string
	Err   error
}

func (e *Unreachable) Error() string {
	return fmt.Sprintf("reach Kafka at %s: no broker answered within %s: start it, or give its address in REEVE_KAFKA_BROKERS: %v", e.Where, connectLimit, e.Err)
}

// Unwrap gives the client's error.
func (e *Unreachable) Unwrap() error { return e.Err }

// ExitCode is the exit code of a process that ends for it.
func (e *Unreachable) ExitCode() int { return 5 }

// Options are the options of every client: where the brokers are, who asks, and where warnings go.
func Options(cfg config.Kafka, logger *slog.Logger) []kgo.Opt {
	return []kgo.Opt{
		kgo.SeedBrokers(cfg.Brokers...),
		kgo.ClientID("reeve"),
		kgo.WithLogger(clientLog{logger}),
		kgo.DisableClientMetrics(),
	}
}

// Connect makes a client after it has made sure that a broker answers within 10 s and that the cluster has transactions
// of version 2, which Reeve's hops rest on. The error says where it looked and what to do.
func Connect(ctx context.Context, cfg config.Kafka, logger *slog.Logger) (*kgo.Client, error) {
	cl, err := kgo.NewClient(append(Options(cfg, logger), kgo.MetadataMinAge(100*time.Millisecond))...)
	if err != nil {
		return nil, fmt.Errorf("configure the Kafka client for %s: %w", strings.Join(cfg.Brokers, ","), err)
	}
	if err := check(ctx, cl, cfg.Brokers); err != nil {
		cl.Close()
		return nil, err
	}
	return cl, nil
}

func check(ctx context.Context, cl *kgo.Client, brokers []string) error {
	where := strings.Join(brokers, ",")
	resp, err := ask(ctx, cl)
	if err != nil {
		return &Unreachable{Where: where, Err: err}
	}
	if level := transactions(resp); level < 2 {
		return fmt.Errorf("use Kafka at %s: its feature transaction.version is %d and Reeve needs 2: run Kafka 4.0 or later, and raise the feature with kafka-features upgrade --feature transaction.version=2", where, level)
	}
	return nil
}

// ask asks for the brokers' versions until one answers.
func ask(ctx context.Context, cl *kgo.Client) (*kmsg.ApiVersionsResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	tick := time.NewTicker(connectEvery)
	defer tick.Stop()
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName, req.ClientSoftwareVersion = "reeve", "1"
	var last error
	for {
		resp, err := req.RequestWith(ctx, cl)
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		if err == nil {
			return resp, nil
		}
		if last == nil || ctx.Err() == nil { // the end of the time is no news
			last = err
		}
		select {
		case <-ctx.Done():
			return nil, last
		case <-tick.C:
		}
	}
}

// transactions is the level of transactions that the whole cluster has agreed on.
func transactions(resp *kmsg.ApiVersionsResponse) int16 {
	for _, f := range resp.FinalizedFeatures {
		if f.Name == "transaction.version" {
			return f.MaxVersionLevel
		}
	}
	return 0
}

// clientLog passes the client's own warnings and errors on.
type clientLog struct{ logger *slog.Logger }

func (l clientLog) Level() kgo.LogLevel { return kgo.LogLevelWarn }

func (l clientLog) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	to := slog.LevelWarn
	if level == kgo.LogLevelError {
		to = slog.LevelError
	}
	l.logger.Log(context.Background(), to, "kafka client: "+msg, keyvals...)
}
